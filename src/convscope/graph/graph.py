"""A network as a graph of tensor operations with spatial geometry, recorded on one forward pass.

The recorder sees the ATen operations below autograd while the network runs (a TorchDispatchMode). Nothing is traced, so control flow,
wrappers and any Python in between do not matter; ATen has few, canonical operations; and as module calls are seen in the same run, the
operation behind every layer is known (`docs/notes/graph.md` compares this with tracing). In an unknown operation every output depends
on every input (`Whole`), which is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from convscope.graph.geometry import Geometry, Whole, Window
from convscope.graph.geometry_rules import Call, Spatial
from convscope.graph.operations import Role, geometry_of, known, macs_of


@dataclass(frozen=True)
class Reference:
    """A node's value among the arguments of a recorded call."""

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
        operation: ATen name, e.g. "convolution"; "input" for the image.
        shape: With the batch axis.
        spatial: Where y and x are among the axes; None without such axes.
        edges: The nodes it was computed from (parameters and constants are not nodes).
        macs: Multiply-accumulate operations for one image.
        function, arguments, keywords: The recorded call, with `Reference` for nodes.
        output: Which of the operation's outputs this is.
    """

    operation: str
    shape: tuple[int, ...]
    spatial: Spatial | None
    edges: tuple[Edge, ...] = ()
    macs: int = 0
    function: Callable[..., Any] | None = None
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] | None = None
    output: int = 0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its map; None without spatial axes."""
        return None if self.spatial is None else self.spatial.size(self.shape)

    @property
    def role(self) -> Role:
        """What its operation is in a network, see :class:`~convscope.graph.operations.Operation`."""
        return known(self.operation).role

    @property
    def is_relu(self) -> bool:
        """Whether it is a ReLU, in place or not."""
        return self.operation in ("relu", "relu_")


@dataclass(frozen=True)
class Field:
    """Receptive fields of a layer's positions along one axis.

    Attributes:
        first, last: First and last pixel for each position, inclusive, not clipped to the image.
        whole: Whether it is all of the image.
        jump: Pixels between the fields of neighbouring positions (a fraction after upsampling); 0 for the whole image.
    """

    first: np.ndarray
    last: np.ndarray
    whole: bool
    jump: float

    @property
    def size(self) -> int:
        """Pixels of the largest receptive field."""
        return int((self.last - self.first).max()) + 1


class Graph:
    """The operations of one forward, in order.

    Attributes:
        nodes: What was computed; node 0 is the image.
        decisions: Names of operations that took a value out of the tensors (``.item()``, a condition): for another image, the
            operations that follow may be others.
    """

    def __init__(self, nodes: Sequence[Node], decisions: Sequence[str] = ()) -> None:
        self.nodes = tuple(nodes)
        self.decisions = tuple(decisions)

    def field(self, node: int, axis: int, *, clipped: bool = False) -> Field:
        """Receptive field in the image (node 0) of every position along an axis of a node.

        Intervals are followed backward through every path, and their hull is taken where paths meet; behind a sum over the map the
        field is the whole image.

        Args:
            node: Number of the node.
            axis: 0 for y, 1 for x.
            clipped: Leave out the padding of the image and of any map on the way. A position that reads nothing but padding has
                first > last.
        """
        image = self.nodes[0].size
        own = self.nodes[node].size
        length = 1 if own is None else own[axis]
        if own is None or image is None:
            return everything(length, (image or (1, 1))[axis])
        positions = np.arange(length + 1)  # one beyond the end, so that a map of one position has a jump, too
        wanted: dict[int, tuple[np.ndarray, np.ndarray]] = {node: (positions, positions)}
        for index in range(node, 0, -1):
            if index not in wanted:
                continue
            first, last = wanted.pop(index)
            for edge in self.nodes[index].edges:
                rule, size = edge.x if axis else edge.y, self.nodes[edge.node].size
                if isinstance(rule, Whole):
                    return everything(length, image[axis])
                if clipped and isinstance(rule, Window) and size is not None:
                    a, b = rule.reads_inside(first, last, size[axis])
                else:
                    a, b = rule.reads(first, last)
                if clipped:
                    a, b = _inside(a, b, first > last, size, axis)
                if edge.node in wanted:
                    a, b = _hull(*wanted[edge.node], a, b)
                wanted[edge.node] = a, b
        first, last = wanted.get(0, (np.zeros(length + 1, int), np.full(length + 1, -1)))  # computed from parameters alone
        return Field(first[:-1], last[:-1], False, float(first[-1] - first[0]) / length)

    def readers(self) -> dict[int, list[int]]:
        """For each node, the nodes computed from it, in order."""
        found: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for edge in node.edges:
                found.setdefault(edge.node, []).append(index)
        return found

    def sources(self, node: int, among: Collection[int]) -> list[int]:
        """The nodes among some that a node reads directly: along a path that meets none of the others, in order."""
        found: set[int] = set()
        waiting = [edge.node for edge in self.nodes[node].edges]
        seen: set[int] = set()
        while waiting:
            if (reached := waiting.pop()) in seen:
                continue
            seen.add(reached)
            if reached in among:
                found.add(reached)
            else:
                waiting += [edge.node for edge in self.nodes[reached].edges]
        return sorted(found)

    def before(self, node: int) -> set[int]:
        """A node and all nodes that it was computed from."""
        found, waiting = set[int](), [node]
        while waiting:
            if (reached := waiting.pop()) not in found:
                found.add(reached)
                waiting += [edge.node for edge in self.nodes[reached].edges]
        return found

    def macs(self, begin: int, end: int) -> int:
        """Multiply-accumulate operations of nodes begin .. end-1, for one image."""
        return sum(node.macs for node in self.nodes[begin:end])


def everything(length: int, pixels: int) -> Field:
    """The field of so many positions that all see all of the image."""
    return Field(np.zeros(length, int), np.full(length, pixels - 1), True, 0.0)


def _inside(a: np.ndarray, b: np.ndarray, empty: np.ndarray, size: tuple[int, int] | None, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals clipped to a map; empty ones, and those wholly outside, become (0, -1)."""
    a, b = np.maximum(a, 0), b if size is None else np.minimum(b, size[axis] - 1)
    empty = empty | (a > b)
    return np.where(empty, 0, a), np.where(empty, -1, b)


def _hull(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hull of two intervals each; an empty one (first > last) adds nothing."""
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
        """The node whose value a tensor is; None if it was not computed from the image."""
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
        for which, output in enumerate(outputs):
            call = Call(args, kwargs, [(self.nodes[number], value) for number, value in inputs], output)
            spatial, rules = geometry_of(name, call, which)
            edges = tuple(Edge(number, *rule) for (number, _), rule in zip(inputs, rules, strict=True))
            macs = 0 if which else macs_of(name, args, output) // max(1, self.nodes[0].shape[0])
            self._store(output, Node(name, tuple(output.shape), spatial, edges, macs, func, arguments, keywords, which))
        if name.endswith("_") and outputs:
            self._overwritten(outputs[0])

    def _store(self, value: Tensor, node: Node) -> None:
        self.nodes.append(node)
        self._numbers[id(value)] = len(self.nodes) - 1
        self._alive.append(value)
        sharing = self._sharing.setdefault(value.untyped_storage().data_ptr(), [])
        if all(value is not other for other in sharing):
            sharing.append(value)

    def _overwritten(self, value: Tensor) -> None:
        """Tensors on the same memory changed with it: from here on they depend on all of it."""
        changed = self._numbers[id(value)]
        for other in list(self._sharing.get(value.untyped_storage().data_ptr(), [])):
            if other is not value:
                edges = tuple(Edge(number, Whole(), Whole()) for number in (self._numbers[id(other)], changed))
                self.nodes.append(Node("overwritten", tuple(other.shape), self.nodes[self._numbers[id(other)]].spatial, edges))
                self._numbers[id(other)] = len(self.nodes) - 1

    def _referred(self, value: Any) -> Any:
        return Reference(self._numbers[id(value)]) if isinstance(value, Tensor) and id(value) in self._numbers else value
