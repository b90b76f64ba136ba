"""Exact incremental inference: where a picture changes inside a box, only what the box reaches is computed again.

Every changed value is held as a frame: a window of one size for a whole batch, at its own place for each picture, outside of which the
value is the kept one. An operation reads its windows out of the kept value, lays the changed ones over them, and runs without padding on
a source that was padded once. From the first operation that sums over the map on, whole maps are computed. Nothing is approximate.

In bfloat16, products with weights are run on the change alone, without bias, and added to the kept float32 value: what is rounded is the
change and never the value, so that small changes keep their order.

Source: Nakandala, Kumar, Papakonstantinou 2019 (Krypton, SIGMOD), with tight windows for each axis and through joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.graph.geometry import Window
from convscope.graph.graph import Graph
from convscope.incremental.frames import Corner, Frame, Places, alone, cut, laid_over
from convscope.incremental.planner import Batch, Planner
from convscope.incremental.replay import NotRepeatable, Replay, batched, beyond, local, slides
from convscope.scope.precision import computing_in
from convscope.scope.scope import Scope

__all__ = ["NotRepeatable", "Rerun", "rerun"]

Values = Mapping[int, Frame | Tensor]
Corners = Mapping[int | None, Corner]


def rerun(scope: Scope, picture: Tensor, layer: str, *, precision: str = "float32") -> Rerun:
    """A scope's network on one picture, ready to be run again on changes of it.

    Args:
        scope: The network.
        picture: (1 3 h w) in pixel space, of any size.
        layer: The layer whose value is wanted.
        precision: "float32" (or the network's own wider type), or "bfloat16".

    Raises:
        NotRepeatable: The network cannot be run again from the record of its operations.
        LayerNotFound: Unknown layer.
    """
    size = (picture.shape[-2], picture.shape[-1])
    if size != (scope.inputs.height, scope.inputs.width):
        scope = Scope(scope.model, replace(scope.inputs, size=size), name=scope.name)
    last = scope.layers[layer].node
    if last is None:
        raise NotRepeatable(f"layer {layer} does not depend on the picture")
    return Rerun(scope.graph, scope.inputs.normalize(picture.to(scope.device, scope.dtype)), last, precision=precision)


class Rerun:
    """A network on one picture, ready to be run again on changes of it.

    Args:
        graph: The operations of one forward on a single picture of this size.
        picture: What the network was fed, (1 3 h w), normalized.
        last: The node whose value is wanted.
        precision: "float32" stands for the picture's own type; in "bfloat16" changes are multiplied in bfloat16.

    Attributes:
        base: The value of `last` for the unchanged picture, (1 ...).
        planner: What changes with which boxes, and how to run them together.

    Raises:
        NotRepeatable: The record holds something that cannot be repeated, such as a decision on a value.
    """

    def __init__(self, graph: Graph, picture: Tensor, last: int, *, precision: str = "float32") -> None:
        self.last = last
        self.precision = precision
        self._replay = Replay(graph, last, precision=precision)
        self.nodes, self._readers = self._replay.nodes, self._replay.readers
        self.planner = Planner(self.nodes, self._replay.joined, device=picture.device.type)
        self._neck = next((index for index in self.nodes if self._narrow(index)), last)
        self._kept: dict[int, Tensor] = {0: picture.contiguous(memory_format=torch.channels_last)}
        self._padded: dict[tuple[int, tuple[int, ...], float], Tensor] = {}
        with torch.no_grad(), computing_in("float32", picture.device):
            for index, node in self.nodes.items():
                if index:
                    shared = any(self._cut_from(edge.node) for edge in node.edges)
                    self._kept[index] = self._replay.whole(index, self._kept.__getitem__, node.shape, overwrites=not shared)
                    self._forget(self._kept, index, spare=self._cut_from)
            for index, node in self.nodes.items():  # now, so that nothing that stays is allocated between what comes and goes
                windows = all(isinstance(rule, Window) for edge in node.edges for rule in (edge.y, edge.x))
                if index and slides(node) and local(node) and windows and index not in self._replay.linear:
                    self._pad(index)
        self.base = self._kept[last]

    def run(self, batch: Batch, source: Tensor) -> Tensor:
        """The last node's value for pictures that differ from the kept one inside their boxes.

        Args:
            batch: One of the planner's.
            source: The picture that the changed pixels are taken from, (1 3 h w), normalized.

        Returns:
            (batch ...).
        """
        return self.finish(self.begin(batch, source))

    def begin(self, batch: Batch, source: Tensor) -> Tensor:
        """The first half of :meth:`run`: the maps. What remains, :meth:`finish`, may be done for several batches at once."""
        plan, count = batch.plan, len(batch.boxes)
        with torch.no_grad(), computing_in("float32", self.base.device):
            corners = self._corners(plan, count)
            values: dict[int, Frame | Tensor] = {0: self._patched(batch.boxes, source, plan[0], corners)}
            for index in self.nodes:
                if 0 < index <= self._neck:
                    values[index] = self._step(index, plan[index], corners, values, count)
                    self._forget(values, index)
            return self._whole(self._neck, values[self._neck], corners)

    def finish(self, begun: Tensor) -> Tensor:
        """The second half of :meth:`run`: dense layers, which are read from memory once for however many pictures."""
        values: dict[int, Frame | Tensor] = {self._neck: begun}
        with torch.no_grad(), computing_in("float32", self.base.device):
            for index in self.nodes:
                if index > self._neck:
                    values[index] = self._step(index, None, {}, values, len(begun))
                    self._forget(values, index)
        return self._whole(self.last, values[self.last], {})

    @property
    def kept(self) -> int:
        """Numbers that are kept of the picture."""
        return sum(value.numel() for value in {id(value): value for value in [*self._kept.values(), *self._padded.values()]}.values())

    def _forget(self, values: dict[int, Any], index: int, spare: Any = lambda _index: False) -> None:
        for edge in self.nodes[index].edges:
            if self._readers[edge.node][-1] == index and not spare(edge.node):
                values.pop(edge.node, None)

    def _corners(self, plan: Mapping[int, Places | None], batch: int) -> dict[int | None, Corner]:
        """The windows' first rows and columns on the device, brought there in one go; None: of whole maps."""
        planned = {index: places for index, places in plan.items() if places is not None}
        table = np.stack([np.zeros((2, batch), int), *([places.y, places.x] for places in planned.values())])
        there = torch.from_numpy(table).to(self.base.device)
        return {index: (there[row, 0], there[row, 1]) for row, index in enumerate([None, *planned])}

    def _patched(self, boxes: np.ndarray, source: Tensor, places: Places | None, corners: Corners) -> Frame | Tensor:
        """What is in the windows of the changed pictures."""
        picture, batch = self._kept[0], len(boxes)
        where, corner = places or self._everything(0, batch), corners[None if places is None else 0]
        inside = torch.from_numpy(boxes).to(picture.device)
        rows = corner[0][:, None] + torch.arange(where.height, device=picture.device)
        columns = corner[1][:, None] + torch.arange(where.width, device=picture.device)
        in_rows = (rows >= inside[:, 0:1]) & (rows < inside[:, 2:3])
        in_columns = (columns >= inside[:, 1:2]) & (columns < inside[:, 3:4])
        old, new = (cut(image, self.nodes[0].spatial, where, corner) for image in (picture, source.to(picture)))
        value = torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], new, old)
        value = value.contiguous(memory_format=torch.channels_last)
        return value if places is None else Frame(value, places, corner)

    def _step(self, index: int, places: Places | None, corners: Corners, values: Values, batch: int) -> Frame | Tensor:
        """The value of a node for a batch."""
        node = self.nodes[index]
        if places is None:
            if index in self._replay.linear:
                return self._changed_whole(index, corners, values)
            return self._replay.whole(index, lambda source: self._whole(source, values[source], corners), batched(node, batch, None))
        corner = corners[index]
        if index in self._replay.linear:
            return Frame(self._changed(index, places, corner, values), places, corner)
        if slides(node):
            needs, there, shift = self._reads(index, places, corner)
            source = node.edges[0].node
            read = laid_over(self._pad(index), self.nodes[source].spatial, _framed(values[source]), needs, there, shift)
            return Frame(self._replay.slid(index, read), places, corner)

        def window(source: int) -> Tensor:
            frame = _framed(values[source])
            if frame.places.same(places):
                return frame.value
            return laid_over(self._kept[source], self.nodes[source].spatial, frame, places, corner)

        return Frame(self._replay.whole(index, window, batched(node, batch, places)), places, corner)

    def _changed(self, index: int, places: Places, corner: Corner, values: Values) -> Tensor:
        """A product with weights in windows, by the change of its input."""
        source = self.nodes[index].edges[0].node
        frame, spatial = _framed(values[source]), self.nodes[source].spatial
        change = (frame.value - cut(self._kept[source], spatial, frame.places, frame.corner)).bfloat16()
        needs, there, _ = self._reads(index, places, corner)
        read = change if frame.places.same(needs) else alone(spatial, replace(frame, value=change), needs, there)
        return cut(self._kept[index], self.nodes[index].spatial, places, corner).add_(self._replay.changed(index, read, padded=True))

    def _changed_whole(self, index: int, corners: Corners, values: Values) -> Tensor:
        """A product with weights on whole maps, by the change of its input."""
        source = self.nodes[index].edges[0].node
        before, after = self._kept[source], self._kept[index]
        change = (self._whole(source, values[source], corners).unflatten(0, (-1, len(before))) - before).flatten(0, 1)
        return (self._replay.changed(index, change, padded=False).unflatten(0, (-1, len(after))) + after).flatten(0, 1)

    def _reads(self, index: int, places: Places, corner: Corner) -> tuple[Places, Corner, tuple[int, int]]:
        """The windows that an operation with one input reads, their corners, and the padding in front of its input."""
        (edge,) = self.nodes[index].edges
        y, x = edge.y, edge.x
        if not isinstance(y, Window) or not isinstance(x, Window):
            raise RuntimeError("only sliding windows are run in windows")
        needs = Places(
            places.y * y.stride - y.padding,
            places.x * x.stride - x.padding,
            (places.height - 1) * y.stride + y.span,
            (places.width - 1) * x.stride + x.span,
        )
        return needs, (corner[0] * y.stride - y.padding, corner[1] * x.stride - x.padding), (y.padding, x.padding)

    def _pad(self, index: int) -> Tensor:
        """The kept input of a sliding operation with as much around it as its windows may reach."""
        node, (edge,) = self.nodes[index], self.nodes[index].edges
        if not isinstance(edge.y, Window) or not isinstance(edge.x, Window):
            raise RuntimeError("only sliding windows are run in windows")
        size, own = self.nodes[edge.node].size or (1, 1), node.size or (1, 1)
        ends = [max(0, rule.reads(own[axis] - 1, own[axis] - 1)[1] - size[axis] + 1) for axis, rule in enumerate((edge.y, edge.x))]
        key = edge.node, (edge.x.padding, ends[1], edge.y.padding, ends[0]), beyond(node)
        if key not in self._padded:
            kept = self._kept[edge.node]
            padded = F.pad(kept, key[1], value=key[2]) if any(key[1]) else kept
            self._padded[key] = padded.contiguous(memory_format=torch.channels_last)
        return self._padded[key]

    def _everything(self, index: int, batch: int) -> Places:
        return Places(np.zeros(batch, int), np.zeros(batch, int), *(self.nodes[index].size or (1, 1)))

    def _whole(self, index: int, value: Frame | Tensor, corners: Corners) -> Tensor:
        """All of a node's value: the kept one with the windows laid over it."""
        if isinstance(value, Tensor):
            return value
        return laid_over(self._kept[index], self.nodes[index].spatial, value, self._everything(index, len(value.places.y)), corners[None])

    def _cut_from(self, index: int) -> bool:
        """Whether windows are ever cut from the kept value of a node, as they are not where one operation takes its windows as they are."""
        readers = self._readers.get(index, [])
        same = [edge.node for edge in self.nodes[index].edges if index in self._replay.joined]
        linear = not self._replay.linear.isdisjoint([index, *readers, *same])
        plain = all(len(node.edges) == 1 and local(node) and not slides(node) for node in map(self.nodes.__getitem__, readers))
        return index in (0, self.last) or linear or not plain

    def _narrow(self, index: int) -> bool:
        """Whether a node is a vector that everything after it is computed from."""
        node = self.nodes[index]
        later = (self.nodes[other] for other in self.nodes if other > index)
        return (
            node.size is None
            and len(node.shape) == 2
            and node.shape[0] == 1
            and all(edge.node >= index for one in later for edge in one.edges)
        )


def _framed(value: Frame | Tensor) -> Frame:
    if isinstance(value, Tensor):
        raise RuntimeError("a whole map is never asked for in windows")
    return value
