"""Which recorded operations can be run again on crops of their maps, and running them: for a batch where one image was recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from convscope.graph.folding import Folded, folded_convolutions
from convscope.graph.geometry import SAME
from convscope.graph.graph import Graph, Node, Reference
from convscope.graph.operations import known
from convscope.incremental.crops import Windows


class NotRepeatable(Exception):
    """A network that cannot be run again from the record of its operations; full inference still can."""


class Replay:
    """The operations that a node's value is computed from, each ready to be run again on other values.

    Args:
        graph: The record of one forward.
        last: The node.
        precision: "bfloat16" fills `linear`.
        keep: Further nodes whose own value is wanted.

    Attributes:
        nodes: Those that are needed, by number, in order; node 0 is the image.
        readers: The nodes among them that are computed from each.
        folded: Batch norms folded into the convolutions before them; they pass values on.
        linear: Products with weights that are run on changes of their input, in bfloat16.

    Raises:
        NotRepeatable: An operation decides on values, draws random numbers, or mixes the images of a batch.
    """

    def __init__(self, graph: Graph, last: int, *, precision: str = "float32", keep: Collection[int] = ()) -> None:
        if graph.decisions:
            raise NotRepeatable(f"the network decides on values ({graph.decisions[0]}), so its operations may differ for another image")
        self.nodes = {index: graph.nodes[index] for index in _needed(graph, last)}
        self.readers: dict[int, list[int]] = {}
        for index, node in self.nodes.items():
            if index:
                check_batchable(graph.nodes, index)
            for edge in node.edges:
                self.readers.setdefault(edge.node, []).append(index)
        folded = folded_convolutions(graph, self.readers, [last, *keep])
        self.folded = frozenset(folded)
        self._kernels = {self.nodes[index].edges[0].node: pair for index, pair in folded.items()}
        self.linear = frozenset(index for index, node in self.nodes.items() if precision == "bfloat16" and _is_linear(node))
        self._weights = {index: self._weight(index).bfloat16() for index in self.linear}

    def run(self, index: int, value_of: Callable[[int], Tensor], shape: tuple[int, ...], *, overwrites: bool = True) -> Tensor:
        """The value of a node, whole; or crops of it, for an operation that reads its own positions alone.

        Args:
            index: Its number.
            value_of: The values of the nodes that it is computed from.
            shape: Of the result, for operations that take it as an argument.
            overwrites: Whether a ReLU may work in the memory of an input that nothing else reads.
        """
        node = self.nodes[index]
        if index in self._kernels:
            _, _, _, stride, padding, dilation, _, _, groups = node.arguments
            return F.conv2d(value_of(node.edges[0].node), *self._kernels[index], stride, padding, dilation, groups)
        if index in self.folded:
            return value_of(node.edges[0].node)
        free = all(self.readers[edge.node] == [index] and known(self.nodes[edge.node].operation).fresh for edge in node.edges)
        return repeated(node, value_of, shape, overwrites=overwrites and free)

    def run_on_crops(self, index: int, read: Tensor) -> Tensor:
        """Crops of the value of a sliding operation, from crops of its input that hold all it reads, padding included."""
        return slid(self.nodes[index], read, self._kernels.get(index))

    def change(self, index: int, change: Tensor, *, padded: bool) -> Tensor:
        """How much the value of a `linear` node changes with its input, in bfloat16.

        Args:
            index: Its number.
            change: Of its input.
            padded: Whether that holds all it reads, padding included.
        """
        node, change = self.nodes[index], change.bfloat16()
        if node.role != "convolution":
            return change @ self._weights[index]
        _, _, _, stride, padding, dilation, _, _, groups = node.arguments
        return F.conv2d(change, self._weights[index], None, stride, 0 if padded else padding, dilation, groups)

    def _weight(self, index: int) -> Tensor:
        node = self.nodes[index]
        return self._kernels[index][0] if index in self._kernels else node.arguments[-1 if node.role == "dense" else 1]


def _needed(graph: Graph, last: int) -> list[int]:
    """The nodes that the last one is computed from, in order, and itself."""
    wanted = {0, last}
    for index in range(last, 0, -1):
        if index in wanted:
            wanted |= {edge.node for edge in graph.nodes[index].edges}
    return sorted(wanted)


def _is_linear(node: Node) -> bool:
    """Whether a node is its input times weights, plus what does not depend on the image."""
    if node.role == "convolution":
        return isinstance(node.arguments[0], Reference) and isinstance(node.arguments[1], Tensor) and not node.arguments[6]
    if node.role != "dense" or node.keywords:
        return False
    *offset, source, weight = node.arguments
    return isinstance(source, Reference) and isinstance(weight, Tensor) and not any(isinstance(item, Reference) for item in offset)


def repeated(node: Node, value_of: Callable[[int], Tensor], shape: Sequence[int], *, overwrites: bool) -> Tensor:
    """The operation of a node on other values.

    Args:
        node: What was recorded.
        value_of: The value of another node.
        shape: Of the result, for operations that take it as an argument.
        overwrites: Whether a ReLU may work in the memory of its input.

    Raises:
        NotRepeatable: The operation's result depends on more than the record holds.
    """
    if node.function is None:
        raise NotRepeatable(f"{node.operation} cannot be run again")
    if node.role == "adaptive pool" and all(edge.y == SAME and edge.x == SAME for edge in node.edges):
        return value_of(node.edges[0].node)  # its argument is a size, not a window
    if node.operation == "as_strided_":  # how pooling to 1 x 1 marks its result as channels-last
        if node.shape[2:] != (1, 1) or tuple(node.arguments[2][:2]) != (node.shape[1], 1):
            raise NotRepeatable("as_strided_ cannot be run again")
        return value_of(node.edges[0].node)
    if overwrites and node.is_relu:
        return F.relu_(value_of(node.edges[0].node))
    arguments = [_filled(item, value_of) for item in node.arguments]
    keywords = {name: _filled(item, value_of) for name, item in (node.keywords or {}).items()}
    if known(node.operation).shaped:
        return arguments[0].expand(shape) if node.operation == "expand" else arguments[0].reshape(shape)
    if node.role == "join":  # constants were recorded for one image
        arguments[0] = [own.expand(shape[0], *own.shape[1:]) for own in arguments[0]]
    if node.operation == "native_group_norm":
        arguments[3] = shape[0]
    if node.role == "convolution" and not arguments[6]:  # the form that autocast knows
        source, weight, bias, stride, padding, dilation, _, _, groups = arguments
        return F.conv2d(source, weight, bias, stride, padding, dilation, groups)
    function: Any = node.function
    if node.operation.endswith("_") and not node.operation.startswith("_"):  # in place
        function = getattr(getattr(torch.ops.aten, node.operation[:-1]), function._overloadname)
    result = function(*arguments, **keywords)
    return result[node.output] if isinstance(result, (tuple, list)) else result


def _filled(item: Any, value_of: Callable[[int], Tensor]) -> Any:
    """A recorded argument with values in place of references."""
    if isinstance(item, Reference):
        return value_of(item.node)
    return [_filled(one, value_of) for one in item] if isinstance(item, list) else item


def check_batchable(nodes: Sequence[Node], index: int) -> None:
    """Whether a node's value for several images is what it is for each by itself.

    Raises:
        NotRepeatable: It mixes images, or has them elsewhere than along its first axis.
    """
    node = nodes[index]
    if node.function is None:
        return
    schema: Any = getattr(node.function, "_schema", None)
    given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    given |= dict(zip((argument.name for argument in schema.arguments), node.arguments, strict=False)) | dict(node.keywords or {})
    if given.get("training") or torch.Tag.nondeterministic_seeded in getattr(node.function, "tags", []):
        raise NotRepeatable(f"{node.operation} uses statistics or draws of its own")
    rank = len(nodes[node.edges[0].node].shape)
    axes = [given.get(name) for name in ("dim", "dims", "dim0", "dim1")]
    axes = [axis for given in axes for axis in (given if isinstance(given, (list, tuple)) else [given]) if isinstance(axis, int)]
    touched = axes[:1] != [0] if node.operation == "permute" else any(axis in (0, -rank) for axis in axes)
    rows = node.spatial is not None and node.spatial.rows
    if touched or (node.shape[:1] != (1,) and not rows and node.output == 0):
        raise NotRepeatable(f"{node.operation} works along the batch")


def slides(node: Node) -> bool:
    """Whether it reads other positions than its own."""
    moved = node.operation == "constant_pad_nd" and any(node.arguments[1][:4])
    return moved or any(edge.y != SAME or edge.x != SAME for edge in node.edges)


def local(node: Node) -> bool:
    """Whether a node can be run on crops: sliding windows whose padding is known, and operations on each position by itself."""
    if node.operation in ("overwritten", "input") or not node.edges or _has_own_map(node):
        return False
    if node.operation == "constant_pad_nd":
        return not (any(node.arguments[1][:4]) and any(node.arguments[1][4:]))
    if node.operation == "slice" and node.spatial is not None:
        return node.arguments[1] % len(node.shape) not in (node.spatial.y, node.spatial.x)
    if not slides(node):
        return True
    if node.role == "convolution":
        return not node.arguments[6] and not isinstance(node.arguments[1], Reference)
    if node.role == "max pool":
        return node.output == 0
    if node.role == "average pool":
        _, _, padding, ceil, include, divisor = (*node.arguments[1:], *[None] * 6)[:6]
        plain = not padding or not any(padding) or include in (None, True)
        return plain and not ceil and divisor is None
    return False


def _has_own_map(node: Node) -> bool:
    """Whether it joins in a constant that differs between positions, such as coordinates; weights are none."""
    if node.spatial is None or node.role in ("convolution", "dense", "batch norm"):
        return False
    from_end = [len(node.shape) - axis for axis in ((0,) if node.spatial.rows else (node.spatial.y, node.spatial.x))]
    constants = [item for item in tree_leaves((node.arguments, node.keywords)) if isinstance(item, Tensor)]
    return any(own.ndim >= axis and own.shape[-axis] > 1 for own in constants for axis in from_end)


def padding_value(node: Node) -> float:
    """What a sliding operation reads outside the map."""
    if node.operation == "constant_pad_nd":
        return float(node.arguments[2]) if len(node.arguments) > 2 else 0.0
    return -math.inf if node.role == "max pool" else 0.0


def slid(node: Node, read: Tensor, folded: Folded | None = None) -> Tensor:
    """A sliding operation without padding, on crops that hold all it reads."""
    arguments = node.arguments
    if node.operation == "constant_pad_nd":
        return read
    if node.role == "convolution":
        _, weight, bias, stride, _, dilation, _, _, groups = arguments
        weight, bias = folded or (weight, bias)
        return F.conv2d(read, weight, bias, stride, 0, dilation, groups)
    kernel = arguments[1]
    stride = arguments[2] if len(arguments) > 2 and arguments[2] else kernel
    if node.role == "average pool":
        return F.avg_pool2d(read, kernel, stride)
    return F.max_pool2d(read, kernel, stride, 0, arguments[4] if len(arguments) > 4 else 1)


def batched(node: Node, batch: int, windows: Windows | None) -> tuple[int, ...]:
    """The shape of a node's value for a batch, in windows or whole."""
    shape = [node.shape[0] * batch, *node.shape[1:]]
    if windows is not None and node.spatial is not None:
        if node.spatial.rows:
            shape[0] = batch * windows.height * windows.width
        else:
            shape[node.spatial.y], shape[node.spatial.x] = windows.height, windows.width
    return tuple(shape)
