"""Planning of incremental inference: which windows change at each operation, the cost in arithmetic and memory, which boxes to batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from convscope.graph.geometry import Whole, Window
from convscope.graph.graph import Node
from convscope.graph.operations import known
from convscope.incremental.crops import Span, Windows
from convscope.incremental.replay import batched, local, slides

_WORTH = 0.9
"""Windows that fill more of a map than this are not worth their copying: the whole map is computed."""
_BATCH_COST = 0.25
"""Cost of a batch besides its arithmetic, in full inferences of one image: dense layers' weights are read once more."""
_CALL_COST = {"cpu": 8e6, "cuda": 3e8}
"""Cost of starting an operation, in multiply-accumulate operations that could be done meanwhile."""
_MOST = 128
"""Larger batches are no faster."""
Spans = Mapping[int, tuple[Span, Span] | None]


@dataclass(frozen=True)
class Batch:
    """Changes of an image that are run together.

    Attributes:
        members: Their numbers among all boxes.
        boxes: Where they are, (batch 4): y0 x0 y1 x1, end exclusive.
        plan: Windows of one size at each node; None: whole maps.
        cost: Multiply-accumulate operations, as a share of those of full inference.
    """

    members: np.ndarray
    boxes: np.ndarray
    plan: Mapping[int, Windows | None]
    cost: float


class Planner:
    """Plans for the operations of a network on one image.

    Args:
        nodes: The operations that are needed, by number, in order; 0 is the image.
        folded: Operations that are computed as part of the one before them.
        device: Type of the device.
    """

    def __init__(self, nodes: Mapping[int, Node], folded: Collection[int] = (), *, device: str = "cpu") -> None:
        self.nodes = nodes
        self._folded = frozenset(folded)
        self._call_cost = _CALL_COST.get(device, 0.0) * len(nodes)
        self._last_read = {edge.node: index for index, node in nodes.items() for edge in node.edges}
        self._reads = Counter(edge.node for node in nodes.values() for edge in node.edges)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of full inference on one image, at least 1."""
        return max(1, sum(node.macs for node in self.nodes.values()))

    def spans(self, boxes: np.ndarray) -> Spans:
        """Rows and columns that change at each node when the pixels in boxes do: ((y0 y1), (x0 x1)), inclusive, not clipped; None: all.

        Args:
            boxes: (batch 4): y0 x0 y1 x1, end exclusive.
        """
        spans: dict[int, tuple[Span, Span] | None] = {0: ((boxes[:, 0], boxes[:, 2] - 1), (boxes[:, 1], boxes[:, 3] - 1))}
        for index, node in self.nodes.items():
            if index:
                spans[index] = _reached(node, spans)
        return spans

    def batch(self, boxes: np.ndarray, members: np.ndarray | None = None, spans: Spans | None = None) -> Batch:
        """Boxes as one batch.

        Args:
            boxes: (n 4): y0 x0 y1 x1, end exclusive, inside the image and not empty.
            members: Numbers of those in the batch; None for all.
            spans: Of all boxes, if known.
        """
        members = np.arange(len(boxes)) if members is None else members
        plan: dict[int, Windows | None] = {}
        done = 0.0
        for index, span in (spans or self.spans(boxes)).items():
            node = self.nodes[index]
            plan[index] = None
            if span is not None and node.size is not None and all(plan[edge.node] is not None for edge in node.edges):
                sides = [_windows(first[members], last[members], length) for (first, last), length in zip(span, node.size, strict=True)]
                (y, height), (x, width) = sides
                if height * width <= _WORTH * node.size[0] * node.size[1]:
                    plan[index] = Windows(y, x, height, width)
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
                done += node.macs * _lengths(span[0], node.size[0]) * _lengths(span[1], node.size[1]) / np.prod(node.size)
        return done / self.macs

    def batches(self, boxes: np.ndarray, full: int, cached: int = 0) -> list[Batch]:
        """Boxes in batches whose windows have nearly one size, so that little is computed in vain; the largest windows first.

        Args:
            boxes: (n 4): y0 x0 y1 x1, end exclusive, inside the image and not empty.
            full: Images at once in full inference: a batch, with all cached values, needs no more memory than these.
            cached: Number of cached values.
        """
        spans = self.spans(boxes)
        sized = [(self.nodes[index], span) for index, span in spans.items() if span is not None and self.nodes[index].macs]
        group = np.zeros(len(boxes), int)
        if sized:
            weights = np.array([node.macs / np.prod(node.size or (1, 1)) for node, _ in sized])
            sides = [np.array([_lengths(span[axis], (node.size or (1, 1))[axis]) for node, span in sized]).T for axis in (0, 1)]
            another = _BATCH_COST * self.macs + self._call_cost
            groups = [_grouped(own, weights * other.mean(0), 4 * another) for own, other in (sides, sides[::-1])]
            group = groups[0] * (groups[1].max() + 1) + groups[1]
        found: list[Batch] = []
        for number in np.unique(group):
            together = np.flatnonzero(group == number)
            at_once = self._at_once(self.batch(boxes, together, spans).plan, full, cached)
            parts = np.array_split(together, -(-len(together) // at_once))
            found += [self.batch(boxes, part, spans) for part in parts]
        return sorted(found, key=lambda batch: -self.in_memory(batch.plan) * len(batch.members))

    def in_memory(self, plan: Mapping[int, Windows | None] | None = None) -> int:
        """Values in memory for one image of a batch at the operation that needs most: its inputs, its output, and all that is read later.

        Args:
            plan: Of a batch; None for full inference, where every operation writes a map of its own.
        """
        alive: dict[int, int] = {}
        most = 0
        for index, node in self.nodes.items():
            view = known(node.operation).view
            alive[index] = int(np.prod(batched(node, 1, None if plan is None else plan[index])))
            if view or (plan is not None and (index in self._folded or node.is_relu)):
                source = max((edge.node for edge in node.edges), key=alive.__getitem__)
                if self._reads[source] == 1:
                    alive[source] = 0
                elif view:
                    alive[index] = 0
            read = 0 if plan is None else sum(self._read(node, edge.node, plan, index) for edge in node.edges)
            most = max(most, sum(alive.values()) + read)
            for edge in node.edges:
                if self._last_read[edge.node] == index:
                    alive.pop(edge.node, None)
        return most

    def _read(self, node: Node, source: int, plan: Mapping[int, Windows | None], index: int) -> int:
        """Values that are copied for an operation to read one of its inputs."""
        theirs, own = plan[source], plan[index]
        if theirs is None:
            return 0
        if own is None:
            return int(np.prod(self.nodes[source].shape))
        if not slides(node):
            return 0 if theirs.same(own) else int(np.prod(batched(self.nodes[source], 1, own)))
        y, x = next((edge.y, edge.x) for edge in node.edges if edge.node == source)
        if not isinstance(y, Window) or not isinstance(x, Window):
            return 0
        needs = Windows(own.y, own.x, (own.height - 1) * y.stride + y.span, (own.width - 1) * x.stride + x.span)
        return int(np.prod(batched(self.nodes[source], 1, needs)))

    def _at_once(self, plan: Mapping[int, Windows | None], full: int, cached: int) -> int:
        return int(min(_MOST, max(1, (full * self.in_memory() - cached) // self.in_memory(plan))))


def _reached(node: Node, spans: Spans) -> tuple[Span, Span] | None:
    """Rows and columns that change at a node, given those of its inputs; not clipped to its size."""
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


def _windows(first: np.ndarray, last: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """Intervals clipped to 0 .. length-1 and widened to one size: (starts, size); empty ones are put anywhere inside."""
    first, last = np.maximum(first, 0), np.minimum(last, length - 1)
    size = int(np.max(last - first, initial=0)) + 1
    return np.clip(first, 0, length - size), size


def _lengths(span: Span, length: int) -> np.ndarray:
    """Length of each interval inside 0 .. length-1, (batch)."""
    return np.maximum(np.minimum(span[1], length - 1) - np.maximum(span[0], 0) + 1, 0)


def _grouped(sides: np.ndarray, weights: np.ndarray, batch_cost: float) -> np.ndarray:
    """Groups of windows along one axis, each of the size of its largest: merges the cheapest pair of groups while one batch less pays.

    Args:
        sides: Length of each image's window at each operation, (image operation).
        weights: Cost of one position at each operation, (operation).
        batch_cost: Cost of a batch besides.

    Returns:
        The number of each image's group, (image).
    """
    kinds, kind, count = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    members = [[number] for number in range(len(kinds))]
    tops, counts = kinds.astype(float), count.astype(float)
    while len(members) > 1:
        together = np.maximum(tops[:, None], tops[None]) @ weights * (counts[:, None] + counts[None])
        separate = tops @ weights * counts
        gain = together - separate[:, None] - separate[None] - batch_cost
        gain[np.tril_indices(len(members))] = np.inf
        first, second = np.unravel_index(gain.argmin(), gain.shape)
        if gain[first, second] >= 0:
            break
        members[first] += members.pop(second)
        tops[first], counts[first] = np.maximum(tops[first], tops[second]), counts[first] + counts[second]
        tops, counts = np.delete(tops, second, 0), np.delete(counts, second)
    group = np.zeros(len(kinds), int)
    for number, kinds_in_it in enumerate(members):
        group[kinds_in_it] = number
    return group[kind.ravel()]
