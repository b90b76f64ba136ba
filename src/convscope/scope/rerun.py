"""Exact incremental inference: where a picture changes inside a box, only what the box reaches is computed again.

Every changed value is held as a frame: a window of one size for a whole batch, at its own place for each picture, outside of which the
value is the kept one. An operation reads its windows out of the kept value, lays the changed ones over them, and runs without padding on
a source that was padded once. From the first operation that sums over the map on, whole maps are computed. Nothing is approximate.

Source: Nakandala, Kumar, Papakonstantinou 2019 (Krypton, SIGMOD), with tight windows for each axis and through joins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.scope.frames import Frame, Places, Span, cut, laid_over, lengths, together, windows
from convscope.scope.geometry import Whole, Window
from convscope.scope.graph import Graph, Node
from convscope.scope.precision import computing_in, wide
from convscope.scope.replay import (
    FRESH,
    MULTIPLYING,
    NotRepeatable,
    batched,
    beyond,
    check_apart,
    local,
    repeated,
    scaled_convolutions,
    slides,
    unpadded,
)
from convscope.scope.scope import Scope

__all__ = ["Batch", "NotRepeatable", "Rerun", "rerun"]

_WORTH = 0.9
"""Windows that fill more of a map than this are not worth their copying: the whole map is computed."""
_BATCH_COST = 0.25
"""What a batch costs beside its arithmetic, in full inferences of one picture: dense layers' weights are read once more."""
_CALL_COST = {"cpu": 8e6, "cuda": 3e8}
"""What starting an operation costs, in multiply-accumulate operations that could have been done meanwhile."""
_MOST = 128
"""Larger batches are no faster."""
Spans = Mapping[int, tuple[Span, Span] | None]
Corner = tuple[Tensor, Tensor]


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


@dataclass(frozen=True)
class Batch:
    """Changes of a picture that are run together.

    Attributes:
        members: Their numbers among all that were asked for.
        boxes: Where they are, (batch 4): y0 x0 y1 x1, end exclusive.
        plan: Windows of one size at each node; None: whole maps.
        cost: Multiply-accumulate operations, as a share of those of full inference.
    """

    members: np.ndarray
    boxes: np.ndarray
    plan: Mapping[int, Places | None]
    cost: float


class Rerun:
    """A network on one picture, ready to be run again on changes of it.

    Args:
        graph: The operations of one forward on a single picture of this size.
        picture: What the network was fed, (1 3 h w), normalized.
        last: The node whose value is wanted.
        precision: "float32" stands for the picture's own type. In "bfloat16" what comes after the last weights is wider all the same: eight
            bits are too few for a logit.

    Attributes:
        base: The value of `last` for the unchanged picture, (1 ...).

    Raises:
        NotRepeatable: The record holds something that cannot be repeated, such as a decision on a value.
    """

    def __init__(self, graph: Graph, picture: Tensor, last: int, *, precision: str = "float32") -> None:
        if graph.decisions:
            raise NotRepeatable(f"the network decides on values ({graph.decisions[0]}), so its operations may be others on another picture")
        self.last = last
        self.precision = precision
        self.needed = _needed(graph, last)
        for index in self.needed[1:]:
            check_apart(graph.nodes, index)
        weighed = [index for index in self.needed if graph.nodes[index].operation in MULTIPLYING]
        self._exact = math.inf if precision == "float32" else max(weighed, default=0)
        self.nodes = {index: _in(precision if index < self._exact else "float32", graph.nodes[index]) for index in self.needed}
        self._readers: dict[int, list[int]] = {}
        for index in self.needed:
            for edge in graph.nodes[index].edges:
                self._readers.setdefault(edge.node, []).append(index)
        self._scaled = {
            index: pair if precision == "float32" else (pair[0].bfloat16(), pair[1].bfloat16())
            for index, pair in scaled_convolutions(graph, self._readers, [last]).items()
        }
        self._under = {self.nodes[index].edges[0].node: index for index in self._scaled}
        self._neck = next((index for index in self.needed if self._narrow(index)), last)
        self._padded: dict[tuple[int, tuple[int, ...], float], Tensor] = {}
        self._kept: dict[int, Tensor] = {0: picture.contiguous(memory_format=torch.channels_last)}
        with torch.no_grad(), computing_in(precision, picture.device):
            for index in self.needed[1:]:
                shared = any(self._cut_from(edge.node) for edge in self.nodes[index].edges)
                self._kept[index] = self._repeated(index, self._kept.__getitem__, self.nodes[index].shape, overwrites=not shared)
                for edge in self.nodes[index].edges:
                    if self._readers[edge.node][-1] == index and not self._cut_from(edge.node):
                        self._kept.pop(edge.node, None)
        self.base = self._kept[last]

    def run(self, batch: Batch, source: Tensor) -> Tensor:
        """The last node's value for pictures that differ from the kept one inside their boxes.

        Args:
            batch: One of :meth:`batches`.
            source: The picture that the changed pixels are taken from, (1 3 h w), normalized.

        Returns:
            (batch ...).
        """
        return self.finish(self.begin(batch, source))

    def begin(self, batch: Batch, source: Tensor) -> Tensor:
        """The first half of :meth:`run`: the maps. What remains, :meth:`finish`, may be done for several batches at once."""
        plan, count = batch.plan, len(batch.boxes)
        corners = self._corners(plan, count)
        values: dict[int, Frame | Tensor] = {0: self._patched(batch.boxes, source, plan[0], corners)}
        with torch.no_grad(), computing_in(self.precision, self.base.device):
            for index in self.needed[1:]:
                if index > self._neck:
                    break
                values[index] = self._step(index, plan[index], corners, values, count)
                self._forget(values, index)
            return self._whole(self._neck, values[self._neck], corners)

    def finish(self, begun: Tensor) -> Tensor:
        """The second half of :meth:`run`: dense layers, which are read from memory once for however many pictures."""
        values = {self._neck: begun}
        with torch.no_grad(), computing_in(self.precision, self.base.device):
            for index in self.needed:
                if index > self._neck:
                    values[index] = self._repeated(index, values.__getitem__, batched(self.nodes[index], len(begun), None))
                    self._forget(values, index)
        return values[self.last]

    def _forget(self, values: dict[int, Any], index: int) -> None:
        for edge in self.nodes[index].edges:
            if self._readers[edge.node][-1] == index:
                values.pop(edge.node, None)

    def spans(self, boxes: np.ndarray) -> Spans:
        """Rows and columns that change at each node when the pixels in boxes do: ((y0 y1), (x0 x1)), inclusive, uncut; None: all.

        Args:
            boxes: (batch 4): y0 x0 y1 x1, end exclusive.
        """
        spans: dict[int, tuple[Span, Span] | None] = {0: ((boxes[:, 0], boxes[:, 2] - 1), (boxes[:, 1], boxes[:, 3] - 1))}
        for index in self.needed[1:]:
            spans[index] = _reached(self.nodes[index], spans)
        return spans

    def batch(self, boxes: np.ndarray, members: np.ndarray | None = None, spans: Spans | None = None) -> Batch:
        """Boxes as one batch.

        Args:
            boxes: (n 4): y0 x0 y1 x1, end exclusive, inside the picture and not empty.
            members: Numbers of those in the batch; None for all.
            spans: Of all boxes, if known.
        """
        members = np.arange(len(boxes)) if members is None else members
        plan: dict[int, Places | None] = {}
        done = 0.0
        for index, span in (spans or self.spans(boxes)).items():
            node = self.nodes[index]
            plan[index] = None
            if span is not None and node.size is not None and all(plan[edge.node] is not None for edge in node.edges):
                sides = [windows(first[members], last[members], length) for (first, last), length in zip(span, node.size, strict=True)]
                (y, height), (x, width) = sides
                if height * width <= _WORTH * node.size[0] * node.size[1]:
                    plan[index] = Places(y, x, height, width)
                    done += node.macs * height * width / (node.size[0] * node.size[1])
                    continue
            done += node.macs
        return Batch(members, boxes[members], plan, done / self.macs)

    def least(self, boxes: np.ndarray) -> np.ndarray:
        """The share of the multiply-accumulate operations of full inference that no exact method can save, for each box, (batch)."""
        done = np.zeros(len(boxes))
        for index, span in self.spans(boxes).items():
            node = self.nodes[index]
            if span is None or node.size is None:
                done += node.macs
            else:
                done += node.macs * lengths(span[0], node.size[0]) * lengths(span[1], node.size[1]) / np.prod(node.size)
        return done / self.macs

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of full inference on one picture, at least 1."""
        return max(1, sum(node.macs for node in self.nodes.values()))

    def batches(self, boxes: np.ndarray, full: int) -> list[Batch]:
        """Boxes in batches whose windows have nearly one size, so that little is computed for nothing.

        Args:
            boxes: (n 4): y0 x0 y1 x1, end exclusive, inside the picture and not empty.
            full: How many pictures full inference takes at once: a batch needs no more memory than these.
        """
        spans = self.spans(boxes)
        sized = [(self.nodes[index], span) for index, span in spans.items() if span is not None and self.nodes[index].macs]
        at_once = self._at_once(self.batch(boxes, spans=spans).plan, full)
        group = np.zeros(len(boxes), int)
        if sized:
            weights = np.array([node.macs / np.prod(node.size or (1, 1)) for node, _ in sized])
            sides = [np.array([lengths(span[axis], (node.size or (1, 1))[axis]) for node, span in sized]).T for axis in (0, 1)]
            another = _BATCH_COST * self.macs + _CALL_COST.get(self.base.device.type, 0.0) * len(self.needed)
            groups = [together(own, weights * other.mean(0), 4 * another) for own, other in (sides, sides[::-1])]
            group = groups[0] * (groups[1].max() + 1) + groups[1]
        return [
            self.batch(boxes, part, spans)
            for number in np.unique(group)
            for members in [np.flatnonzero(group == number)]
            for part in np.array_split(members, -(-len(members) // at_once))
        ]

    def _at_once(self, plan: Mapping[int, Places | None], full: int) -> int:
        """Pictures whose largest changed value is no larger than the largest of full inference on `full` pictures."""
        largest = max(np.prod(node.shape) for node in self.nodes.values())
        changed = max(np.prod(batched(self.nodes[index], 1, places)) for index, places in plan.items())
        return int(min(_MOST, max(1, full * largest // changed)))

    def _corners(self, plan: Mapping[int, Places | None], batch: int) -> dict[int | None, Corner]:
        """The windows' first rows and columns on the device, brought there in one go; None: of whole maps."""
        planned = {index: places for index, places in plan.items() if places is not None}
        table = np.stack([np.zeros((2, batch), int), *([places.y, places.x] for places in planned.values())])
        there = torch.from_numpy(table).to(self.base.device)
        return {index: (there[row, 0], there[row, 1]) for row, index in enumerate([None, *planned])}

    def _patched(self, boxes: np.ndarray, source: Tensor, places: Places | None, corners: Mapping[int | None, Corner]) -> Frame | Tensor:
        """What is in the windows of the changed pictures."""
        picture, batch = self._kept[0], len(boxes)
        where, corner = places or self._everything(0, batch), corners[None if places is None else 0]
        inside = torch.from_numpy(boxes).to(picture.device)
        rows = corner[0][:, None] + torch.arange(where.height, device=picture.device)
        columns = corner[1][:, None] + torch.arange(where.width, device=picture.device)
        in_rows = (rows >= inside[:, 0:1]) & (rows < inside[:, 2:3])
        in_columns = (columns >= inside[:, 1:2]) & (columns < inside[:, 3:4])
        old, new = (cut(image, self.nodes[0].spatial, where, *corner) for image in (picture, source.to(picture)))
        value = torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], new, old)
        value = value.contiguous(memory_format=torch.channels_last)
        return value if places is None else Frame(value, places, *corner)

    def _step(
        self,
        index: int,
        places: Places | None,
        corners: Mapping[int | None, Corner],
        values: Mapping[int, Frame | Tensor],
        batch: int,
    ) -> Frame | Tensor:
        node = self.nodes[index]
        if places is None:
            return self._repeated(index, lambda source: self._whole(source, values[source], corners), batched(node, batch, None))
        corner = corners[index]
        if slides(node):
            return Frame(self._slide(index, places, corner, values), places, *corner)

        def window(source: int) -> Tensor:
            frame = _framed(values[source])
            if frame.places.same(places):
                return frame.value
            return laid_over(self._kept[source], self.nodes[source].spatial, frame, places, corner, (0, 0))

        return Frame(self._repeated(index, window, batched(node, batch, places)), places, *corner)

    def _slide(self, index: int, places: Places, corner: Corner, values: Mapping[int, Frame | Tensor]) -> Tensor:
        """A convolution, pooling or padding in windows: read what they need from a padded source, and run without padding."""
        node = self.nodes[index]
        (edge,) = node.edges
        y, x, source = edge.y, edge.x, self.nodes[edge.node]
        if not isinstance(y, Window) or not isinstance(x, Window):
            raise RuntimeError("only sliding windows are run in windows")
        size, own = source.size or (1, 1), node.size or (1, 1)
        ends = [max(0, rule.reads(own[axis] - 1, own[axis] - 1)[1] - size[axis] + 1) for axis, rule in enumerate((y, x))]
        padded = self._pad(edge.node, (x.padding, ends[1], y.padding, ends[0]), beyond(node))
        needs = Places(
            places.y * y.stride - y.padding,
            places.x * x.stride - x.padding,
            (places.height - 1) * y.stride + y.span,
            (places.width - 1) * x.stride + x.span,
        )
        there = corner[0] * y.stride - y.padding, corner[1] * x.stride - x.padding
        read = laid_over(padded, source.spatial, _framed(values[edge.node]), needs, there, (y.padding, x.padding))
        with self._widely(index):
            return unpadded(node, wide(read) if index >= self._exact else read, self._scaled.get(self._under.get(index, -1)))

    def _widely(self, index: int) -> AbstractContextManager[Any]:
        return computing_in("float32", self._kept[0].device) if index >= self._exact else nullcontext()

    def _pad(self, index: int, pads: tuple[int, int, int, int], fill: float) -> Tensor:
        key = index, pads, fill
        if key not in self._padded:
            kept = self._kept[index]
            padded = F.pad(kept, pads, value=fill) if any(pads) else kept
            self._padded[key] = padded.contiguous(memory_format=torch.channels_last)
        return self._padded[key]

    def _everything(self, index: int, batch: int) -> Places:
        return Places(np.zeros(batch, int), np.zeros(batch, int), *(self.nodes[index].size or (1, 1)))

    def _whole(self, index: int, value: Frame | Tensor, corners: Mapping[int | None, Corner]) -> Tensor:
        """All of a node's value: the kept one with the windows laid over it."""
        if isinstance(value, Tensor):
            return value
        everything = self._everything(index, len(value.y))
        return laid_over(self._kept[index], self.nodes[index].spatial, value, everything, corners[None], (0, 0))

    def _cut_from(self, index: int) -> bool:
        """Whether windows are ever cut from the kept value of a node, as they are not where one operation takes its windows as they are."""
        readers = [self.nodes[reader] for reader in self._readers.get(index, [])]
        plain = all(len(node.edges) == 1 and local(node) and not slides(node) for node in readers)
        return index in (0, self.last) or not plain

    def _narrow(self, index: int) -> bool:
        """Whether a node is a vector that everything after it is computed from."""
        node = self.nodes[index]
        later = (self.nodes[other] for other in self.needed if other > index)
        return (
            node.size is None
            and len(node.shape) == 2
            and node.shape[0] == 1
            and all(edge.node >= index for one in later for edge in one.edges)
        )

    def _repeated(self, index: int, value_of: Callable[[int], Tensor], shape: tuple[int, ...], *, overwrites: bool = True) -> Tensor:
        """The operation of a node on other values, batch norms multiplied into the convolutions before them."""
        with self._widely(index):
            return self._computed(index, (lambda source: wide(value_of(source))) if index >= self._exact else value_of, shape, overwrites)

    def _computed(self, index: int, value_of: Callable[[int], Tensor], shape: tuple[int, ...], overwrites: bool) -> Tensor:
        node = self.nodes[index]
        if index in self._under:
            _, _, _, stride, padding, dilation, _, _, groups = node.arguments
            return F.conv2d(value_of(node.edges[0].node), *self._scaled[self._under[index]], stride, padding, dilation, groups)
        if index in self._scaled:
            return value_of(node.edges[0].node)
        spent = all(self._readers[edge.node] == [index] and self.nodes[edge.node].operation in FRESH for edge in node.edges)
        return repeated(node, value_of, shape, overwrites=overwrites and spent)


def _needed(graph: Graph, last: int) -> list[int]:
    """The nodes that the last one is computed from, in order, and itself."""
    wanted = {0, last}
    for index in range(last, 0, -1):
        if index in wanted:
            wanted |= {edge.node for edge in graph.nodes[index].edges}
    return sorted(wanted)


def _in(precision: str, node: Node) -> Node:
    """A node with its weights in the number format that they are multiplied in."""
    if precision == "float32" or node.operation not in MULTIPLYING:
        return node
    cast = [item.bfloat16() if isinstance(item, Tensor) else item for item in node.arguments]
    return dataclasses.replace(node, arguments=tuple(cast))


def _framed(value: Frame | Tensor) -> Frame:
    if isinstance(value, Tensor):
        raise RuntimeError("a whole map is never asked for in windows")
    return value


def _reached(node: Node, spans: Spans) -> tuple[Span, Span] | None:
    """What changes at a node, given what changes at its inputs; not cut to its size."""
    if node.size is None or not local(node):
        return None
    found: list[Span] = []
    for axis in (0, 1):
        ends: list[Span] = []
        for edge in node.edges:
            span, rule = spans[edge.node], edge.x if axis else edge.y
            if span is None or isinstance(rule, Whole):
                return None
            ends.append(rule.reaches(*span[axis]))
        firsts, lasts = ([pair[side] for pair in ends] for side in (0, 1))
        found.append((np.min(firsts, 0), np.max(lasts, 0)))
    return found[0], found[1]
