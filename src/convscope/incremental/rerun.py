"""Exact incremental inference: after a change of the image inside a box, only the positions that depend on the box are computed again.

Every changed value is stored as crops: windows of one size for a whole batch, at each image's own position; outside of them the value is
the cached one. An operation crops its windows from the cached value, pastes the recomputed crops onto them, and runs without padding on a
source that was padded once. From the first operation on that sums over the map, whole maps are computed. In float32 nothing is
approximate.

In bfloat16, products with weights are run on the change alone, without bias, and added to the cached float32 value: the change is
rounded, never the value, so that small changes keep their order.

Source: Nakandala, Kumar, Papakonstantinou 2019 (Krypton, SIGMOD), with tight windows for each axis and through joins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.graph.geometry import Window
from convscope.graph.graph import Graph
from convscope.incremental.crops import Crops, Offsets, Windows, crop, paste, paste_on_zeros
from convscope.incremental.planner import Batch, Planner
from convscope.incremental.replay import NotRepeatable, Replay, batched, local, padding_value, slides
from convscope.scope.precision import computing_in
from convscope.scope.scope import Scope

__all__ = ["NotRepeatable", "Rerun", "rerun"]

Values = Mapping[int, Crops | Tensor]
AllOffsets = Mapping[int | None, Offsets]


def rerun(scope: Scope, image: Tensor, layer: str, *, precision: str = "float32") -> Rerun:
    """Incremental inference of a scope's network on changes of one image.

    Args:
        scope: The network.
        image: (1 3 h w) in pixel space, of any size.
        layer: The layer whose value is wanted.
        precision: "float32" (or the network's own wider type), or "bfloat16".

    Raises:
        NotRepeatable: The network cannot be run again from the record of its operations.
        LayerNotFound: Unknown layer.
    """
    scope = scope.at((image.shape[-2], image.shape[-1]))
    if scope.one_at_a_time:
        raise NotRepeatable(f"images are run one at a time: {scope.one_at_a_time}")
    last = scope.layers[layer].node
    if last is None or scope.layers[layer].batch_axis:
        raise NotRepeatable(f"layer {layer} does not depend on the image, or does not begin with the axis that counts images")
    return Rerun(scope.graph, scope.inputs.normalize(image.to(scope.device, scope.dtype)), last, precision=precision)


class Rerun:
    """Incremental inference of a network on changes of one image.

    Args:
        graph: The operations of one forward on a single image of this size.
        image: The network's input, (1 3 h w), normalized.
        last: The node whose value is wanted.
        precision: "float32" means the image's own type; in "bfloat16" changes are multiplied in bfloat16.

    Attributes:
        base: The value of `last` for the unchanged image, (1 ...).
        planner: Which windows change with which boxes, and how to batch them.

    Raises:
        NotRepeatable: The record holds something that cannot be repeated, such as a decision on a value.
    """

    def __init__(self, graph: Graph, image: Tensor, last: int, *, precision: str = "float32") -> None:
        self.last = last
        self.precision = precision
        self._replay = Replay(graph, last, precision=precision)
        self.nodes, self._readers = self._replay.nodes, self._replay.readers
        self.planner = Planner(self.nodes, self._replay.folded, device=image.device.type)
        self._bottleneck = next((index for index in self.nodes if self._is_bottleneck(index)), last)
        self._cached: dict[int, Tensor] = {0: image.contiguous(memory_format=torch.channels_last)}
        self._padded: dict[tuple[int, tuple[int, ...], float], Tensor] = {}
        with torch.no_grad(), computing_in("float32", image.device):
            for index, node in self.nodes.items():
                if index:
                    shared = any(self._cropped_later(edge.node) for edge in node.edges)
                    self._cached[index] = self._replay.run(index, self._cached.__getitem__, node.shape, overwrites=not shared)
                    self._free(self._cached, index, keep=self._cropped_later)
            for index, node in self.nodes.items():  # now, so that lasting memory is not allocated between temporary memory
                windows = all(isinstance(rule, Window) for edge in node.edges for rule in (edge.y, edge.x))
                if index and slides(node) and local(node) and windows and index not in self._replay.linear:
                    self._pad(index)
        self.base = self._cached[last]

    def run(self, batch: Batch, source: Tensor) -> Tensor:
        """The last node's value for images that differ from the cached one inside their boxes.

        Args:
            batch: One of the planner's.
            source: The image that the changed pixels are taken from, (1 3 h w), normalized.

        Returns:
            (batch ...).
        """
        return self.finish(self.begin(batch, source))

    def begin(self, batch: Batch, source: Tensor) -> Tensor:
        """The first half of :meth:`run`: the maps. The second, :meth:`finish`, may be run for several batches at once."""
        plan, count = batch.plan, len(batch.boxes)
        with torch.no_grad(), computing_in("float32", self.base.device):
            offsets = self._offsets(plan, count)
            values: dict[int, Crops | Tensor] = {0: self._changed_image(batch.boxes, source, plan[0], offsets)}
            for index in self.nodes:
                if 0 < index <= self._bottleneck:
                    values[index] = self._step(index, plan[index], offsets, values, count)
                    self._free(values, index)
            return self._whole(self._bottleneck, values[self._bottleneck], offsets)

    def finish(self, begun: Tensor) -> Tensor:
        """The second half of :meth:`run`: dense layers, whose weights are read from memory once for any number of images."""
        values: dict[int, Crops | Tensor] = {self._bottleneck: begun}
        with torch.no_grad(), computing_in("float32", self.base.device):
            for index in self.nodes:
                if index > self._bottleneck:
                    values[index] = self._step(index, None, {}, values, len(begun))
                    self._free(values, index)
        return self._whole(self.last, values[self.last], {})

    @property
    def cached(self) -> int:
        """Number of cached values."""
        return sum(value.numel() for value in {id(value): value for value in [*self._cached.values(), *self._padded.values()]}.values())

    def _free(self, values: dict[int, Any], index: int, keep: Callable[[int], bool] = lambda _index: False) -> None:
        """Drops the inputs of a node that nothing reads later."""
        for edge in self.nodes[index].edges:
            if self._readers[edge.node][-1] == index and not keep(edge.node):
                values.pop(edge.node, None)

    def _offsets(self, plan: Mapping[int, Windows | None], batch: int) -> dict[int | None, Offsets]:
        """First rows and columns of all windows on the device, transferred at once; None: of whole maps."""
        planned = {index: windows for index, windows in plan.items() if windows is not None}
        table = np.stack([np.zeros((2, batch), int), *([windows.y, windows.x] for windows in planned.values())])
        on_device = torch.from_numpy(table).to(self.base.device)
        return {index: (on_device[row, 0], on_device[row, 1]) for row, index in enumerate([None, *planned])}

    def _changed_image(self, boxes: np.ndarray, source: Tensor, planned: Windows | None, offsets: AllOffsets) -> Crops | Tensor:
        """Crops of the changed images."""
        image, batch = self._cached[0], len(boxes)
        windows, own = planned or self._full_map(0, batch), offsets[None if planned is None else 0]
        inside = torch.from_numpy(boxes).to(image.device)
        rows = own[0][:, None] + torch.arange(windows.height, dtype=torch.int64, device=image.device)
        columns = own[1][:, None] + torch.arange(windows.width, dtype=torch.int64, device=image.device)
        in_rows = (rows >= inside[:, 0:1]) & (rows < inside[:, 2:3])
        in_columns = (columns >= inside[:, 1:2]) & (columns < inside[:, 3:4])
        old, new = (crop(value, self.nodes[0].spatial, windows, own) for value in (image, source.to(image)))
        value = torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], new, old)
        value = value.contiguous(memory_format=torch.channels_last)
        return value if planned is None else Crops(value, windows, own)

    def _step(self, index: int, windows: Windows | None, offsets: AllOffsets, values: Values, batch: int) -> Crops | Tensor:
        """The value of a node for a batch."""
        node = self.nodes[index]
        if windows is None:
            if index in self._replay.linear:
                return self._by_change_whole(index, offsets, values)
            return self._replay.run(index, lambda source: self._whole(source, values[source], offsets), batched(node, batch, None))
        own = offsets[index]
        if index in self._replay.linear:
            return Crops(self._by_change(index, windows, own, values), windows, own)
        if slides(node):
            needs, start, padding = self._reads(index, windows, own)
            source = node.edges[0].node
            read = paste(self._pad(index), self.nodes[source].spatial, _crops(values[source]), needs, start, padding)
            return Crops(self._replay.run_on_crops(index, read), windows, own)

        def cropped(source: int) -> Tensor:
            crops = _crops(values[source])
            if crops.windows.same(windows):
                return crops.value
            return paste(self._cached[source], self.nodes[source].spatial, crops, windows, own)

        return Crops(self._replay.run(index, cropped, batched(node, batch, windows)), windows, own)

    def _by_change(self, index: int, windows: Windows, own: Offsets, values: Values) -> Tensor:
        """A product with weights on crops, by the change of its input."""
        source = self.nodes[index].edges[0].node
        crops, spatial = _crops(values[source]), self.nodes[source].spatial
        change = (crops.value - crop(self._cached[source], spatial, crops.windows, crops.offsets)).bfloat16()
        needs, start, _ = self._reads(index, windows, own)
        read = change if crops.windows.same(needs) else paste_on_zeros(spatial, replace(crops, value=change), needs, start)
        return crop(self._cached[index], self.nodes[index].spatial, windows, own).add_(self._replay.change(index, read, padded=True))

    def _by_change_whole(self, index: int, offsets: AllOffsets, values: Values) -> Tensor:
        """A product with weights on whole maps, by the change of its input."""
        source = self.nodes[index].edges[0].node
        before, after = self._cached[source], self._cached[index]
        change = (self._whole(source, values[source], offsets).unflatten(0, (-1, len(before))) - before).flatten(0, 1)
        return (self._replay.change(index, change, padded=False).unflatten(0, (-1, len(after))) + after).flatten(0, 1)

    def _reads(self, index: int, windows: Windows, own: Offsets) -> tuple[Windows, Offsets, tuple[int, int]]:
        """The windows that an operation with one input reads, their offsets, and the padding before its input."""
        (edge,) = self.nodes[index].edges
        y, x = edge.y, edge.x
        if not isinstance(y, Window) or not isinstance(x, Window):
            raise RuntimeError("only sliding windows are run on crops")
        needs = Windows(
            windows.y * y.stride - y.padding,
            windows.x * x.stride - x.padding,
            (windows.height - 1) * y.stride + y.span,
            (windows.width - 1) * x.stride + x.span,
        )
        return needs, (own[0] * y.stride - y.padding, own[1] * x.stride - x.padding), (y.padding, x.padding)

    def _pad(self, index: int) -> Tensor:
        """The cached input of a sliding operation, padded as far as its windows read."""
        node, (edge,) = self.nodes[index], self.nodes[index].edges
        if not isinstance(edge.y, Window) or not isinstance(edge.x, Window):
            raise RuntimeError("only sliding windows are run on crops")
        size, own = self.nodes[edge.node].size or (1, 1), node.size or (1, 1)
        ends = [max(0, rule.reads(own[axis] - 1, own[axis] - 1)[1] - size[axis] + 1) for axis, rule in enumerate((edge.y, edge.x))]
        key = edge.node, (edge.x.padding, ends[1], edge.y.padding, ends[0]), padding_value(node)
        if key not in self._padded:
            cached = self._cached[edge.node]
            padded = F.pad(cached, key[1], value=key[2]) if any(key[1]) else cached
            self._padded[key] = padded.contiguous(memory_format=torch.channels_last)
        return self._padded[key]

    def _full_map(self, index: int, batch: int) -> Windows:
        return Windows(np.zeros(batch, int), np.zeros(batch, int), *(self.nodes[index].size or (1, 1)))

    def _whole(self, index: int, value: Crops | Tensor, offsets: AllOffsets) -> Tensor:
        """All of a node's value: the cached one with the crops pasted onto it."""
        if isinstance(value, Tensor):
            return value
        return paste(self._cached[index], self.nodes[index].spatial, value, self._full_map(index, len(value.windows.y)), offsets[None])

    def _cropped_later(self, index: int) -> bool:
        """Whether a later operation crops this cached value. If not, it can be freed."""
        readers = self._readers.get(index, [])
        same = [edge.node for edge in self.nodes[index].edges if index in self._replay.folded]
        linear = not self._replay.linear.isdisjoint([index, *readers, *same])
        in_position = all(len(node.edges) == 1 and local(node) and not slides(node) for node in map(self.nodes.__getitem__, readers))
        return index in (0, self.last) or linear or not in_position

    def _is_bottleneck(self, index: int) -> bool:
        """Whether a node is a vector that everything after it is computed from."""
        node = self.nodes[index]
        later = (self.nodes[other] for other in self.nodes if other > index)
        return (
            node.size is None
            and len(node.shape) == 2
            and node.shape[0] == 1
            and all(edge.node >= index for one in later for edge in one.edges)
        )


def _crops(value: Crops | Tensor) -> Crops:
    if isinstance(value, Tensor):
        raise RuntimeError("a whole map is never read as crops")
    return value
