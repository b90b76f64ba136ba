"""A network as a graph of tensor operations with spatial geometry, recorded on one real forward.

The recorder watches the ATen operations below autograd while the network runs (a TorchDispatchMode). Tracing was tried first, on every
convolutional network of torchvision: see `docs/notes/graph.md`. Recording needs no tracing, so control flow, wrappers and
any Python in between do not matter; ATen has few, canonical operations; and as module calls are seen in the same run, every layer
knows its operation. An operation that is not known here is `Whole`: everything depends on everything, which is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from convscope.graph.geometry import Geometry, Whole
from convscope.graph.operations import MACS, Spatial, geometry_of


@dataclass(frozen=True)
class Reference:
    """Stands in a recorded call for the value of a node."""

    node: int


@dataclass(frozen=True)
class Edge:
    """How a node depends on another: one rule for the y axis, one for the x axis."""

    node: int
    y: Geometry
    x: Geometry


@dataclass(frozen=True)
class Node:
    """One tensor that an operation produced.

    Attributes:
        operation: ATen name, e.g. "convolution"; "input" for the picture.
        shape: With the batch axis.
        spatial: Where y and x are among the axes; None if it has no such axes (any more).
        edges: What it was computed from (parameters and constants are not nodes).
        macs: Multiply-accumulate operations for one image.
        function, arguments, keywords: The recorded call, with `Reference` for nodes.
        place: Which of the operation's outputs this is.
    """

    operation: str
    shape: tuple[int, ...]
    spatial: Spatial | None
    edges: tuple[Edge, ...] = ()
    macs: int = 0
    function: Callable[..., Any] | None = None
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] | None = None
    place: int = 0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its map; None without spatial axes."""
        return None if self.spatial is None else self.spatial.size(self.shape)


@dataclass(frozen=True)
class Field:
    """What the units along one axis of a layer see of the picture.

    Attributes:
        first, last: First and last pixel for each unit position, inclusive, not clipped to the picture.
        whole: Whether they see all of it.
        jump: Pixels between the fields of neighbouring units (a fraction after enlargement); 0 for the whole picture.
    """

    first: np.ndarray
    last: np.ndarray
    whole: bool
    jump: float

    @property
    def size(self) -> int:
        """Pixels seen by the unit that sees most."""
        return int((self.last - self.first).max()) + 1


class Graph:
    """The operations of one forward, in order.

    Attributes:
        nodes: What was computed; node 0 is the picture.
        decisions: Names of operations that took a value out of the tensors (``.item()``, a condition): on another picture, what
            follows may be something else.
    """

    def __init__(self, nodes: Sequence[Node], decisions: Sequence[str] = ()) -> None:
        self.nodes = tuple(nodes)
        self.decisions = tuple(decisions)

    def field(self, node: int, axis: int, *, clipped: bool = False) -> Field:
        """What every position along an axis (0: y, 1: x) of a node sees of the picture (node 0).

        Exact hulls by interval arithmetic backwards through every path; a path that sums over the map sees the whole picture.

        Args:
            node: Number of the node.
            axis: 0 for y, 1 for x.
            clipped: Leave out what lies in the padding of the picture or of any map on the way. A unit that sees nothing but padding
                has first > last.
        """
        picture = self.nodes[0].size
        here = self.nodes[node].size
        length = 1 if here is None else here[axis]
        if here is None or picture is None:
            return _everything(length, (picture or (1, 1))[axis])
        positions = np.arange(length + 1)  # one beyond the end, so that a map of one position has a jump, too
        wanted: dict[int, tuple[np.ndarray, np.ndarray]] = {node: (positions, positions)}
        for index in range(node, 0, -1):
            if index not in wanted:
                continue
            first, last = wanted.pop(index)
            for edge in self.nodes[index].edges:
                rule = edge.x if axis else edge.y
                if isinstance(rule, Whole):
                    return _everything(length, picture[axis])
                a, b = rule.reads(first, last)
                if clipped:
                    a, b = _inside(a, b, first > last, self.nodes[edge.node].size, axis)
                if edge.node in wanted:
                    a, b = _hull(*wanted[edge.node], a, b)
                wanted[edge.node] = a, b
        first, last = wanted.get(0, (np.zeros(length + 1, int), np.full(length + 1, -1)))  # computed from parameters alone: sees nothing
        return Field(first[:-1], last[:-1], False, float(first[-1] - first[0]) / length)

    def readers(self) -> dict[int, list[int]]:
        """The nodes that are computed from each node, in order."""
        found: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for edge in node.edges:
                found.setdefault(edge.node, []).append(index)
        return found

    def macs(self, begin: int, end: int) -> int:
        """Multiply-accumulate operations of nodes begin .. end-1, for one image."""
        return sum(node.macs for node in self.nodes[begin:end])


def _everything(length: int, pixels: int) -> Field:
    return Field(np.zeros(length, int), np.full(length, pixels - 1), True, 0.0)


def _inside(a: np.ndarray, b: np.ndarray, empty: np.ndarray, size: tuple[int, int] | None, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals cut to a map; empty ones, and those wholly outside, become (0, -1)."""
    a, b = np.maximum(a, 0), b if size is None else np.minimum(b, size[axis] - 1)
    empty = empty | (a > b)
    return np.where(empty, 0, a), np.where(empty, -1, b)


def _hull(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Union of intervals, where an empty one (first > last) adds nothing."""
    first = np.where(a > b, c, np.where(c > d, a, np.minimum(a, c)))
    last = np.where(a > b, d, np.where(c > d, b, np.maximum(b, d)))
    return first, last


class Recorder(TorchDispatchMode):
    """Records what is computed from one tensor while the block runs.

    Attributes:
        nodes: So far; node 0 is the tensor itself.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.nodes: list[Node] = [Node("input", tuple(images.shape), Spatial(2, 3))]
        self._decisions: list[str] = []
        self._numbers = {id(images): 0}
        self._alive = [images]  # ids stay unique while the tensors live
        self._sharing: dict[int, list[Tensor]] = {images.untyped_storage().data_ptr(): [images]}

    def node_of(self, value: Tensor) -> int | None:
        """The node whose value a tensor is; None if it was not computed from the picture."""
        return self._numbers.get(id(value))

    def graph(self) -> Graph:
        """What was recorded."""
        return Graph(self.nodes, self._decisions)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        sources = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor) and id(value) in self._numbers]
        result = func(*args, **kwargs)
        if sources:
            self._add(func, args, kwargs, sources, result)
        return result

    def _add(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], sources: list[Tensor], result: Any) -> None:
        name = str(func.overloadpacket.__name__)
        arguments, keywords = tree_map(self._referred, (args, dict(kwargs)))
        inputs = [(self._numbers[id(value)], value) for value in sources]
        outputs = [value for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
        if not outputs:
            self._decisions.append(name)
        for place, output in enumerate(outputs):
            spatial, rules = geometry_of(name, args, kwargs, [(self.nodes[number], value) for number, value in inputs], output, place)
            edges = tuple(Edge(number, *rule) for (number, _), rule in zip(inputs, rules, strict=True))
            count = MACS.get(name, lambda *_: 0)(args, output) if place == 0 else 0
            macs = count // max(1, self.nodes[0].shape[0])
            self._keep(output, Node(name, tuple(output.shape), spatial, edges, macs, func, arguments, keywords, place))
        if name.endswith("_") and outputs:
            self._overwritten(outputs[0])

    def _keep(self, value: Tensor, node: Node) -> None:
        self.nodes.append(node)
        self._numbers[id(value)] = len(self.nodes) - 1
        self._alive.append(value)
        sharing = self._sharing.setdefault(value.untyped_storage().data_ptr(), [])
        if all(value is not other for other in sharing):
            sharing.append(value)

    def _overwritten(self, value: Tensor) -> None:
        """Other tensors on the same memory changed with it: from here on they depend on everything about it."""
        changed = self._numbers[id(value)]
        for other in list(self._sharing.get(value.untyped_storage().data_ptr(), [])):
            if other is not value:
                edges = tuple(Edge(number, Whole(), Whole()) for number in (self._numbers[id(other)], changed))
                self.nodes.append(Node("overwritten", tuple(other.shape), self.nodes[self._numbers[id(other)]].spatial, edges))
                self._numbers[id(other)] = len(self.nodes) - 1

    def _referred(self, value: Any) -> Any:
        return Reference(self._numbers[id(value)]) if isinstance(value, Tensor) and id(value) in self._numbers else value
