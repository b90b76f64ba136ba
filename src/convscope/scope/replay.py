"""Running a recorded operation again on other values: for a batch where one picture was recorded, whole or in windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.scope.frames import Places
from convscope.scope.geometry import SAME
from convscope.scope.graph import Graph, Node, Reference

LAID_OUT = frozenset(["view", "_unsafe_view", "reshape", "expand"])
"""Operations that are told the shape of their result."""
MULTIPLYING = frozenset(["convolution", "addmm", "mm"])
"""Operations whose weights are worth keeping in the number format that they are computed in."""
FRESH = frozenset(["convolution", "add", "cat", "addmm", "_native_batch_norm_legit_no_training", "native_batch_norm"])
"""Operations whose result shares no memory with anything else."""
_ADAPTIVE = frozenset(["_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"])
_MAX_POOLS = frozenset(["max_pool2d", "max_pool2d_with_indices"])
_BATCH_NORMS = frozenset(["native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"])
Scaled = tuple[Tensor, Tensor]
"""Kernels and biases of a convolution with the batch norm after it multiplied in."""


class NotRepeatable(Exception):
    """A network that cannot be run again from the record of its operations; full inference still can."""


def repeated(node: Node, value_of: Callable[[int], Tensor], shape: Sequence[int], *, overwrites: bool) -> Tensor:
    """The operation of a node on other values; nothing that is used again is changed.

    Args:
        node: What was recorded.
        value_of: The value of another node.
        shape: Of the result, for operations that are told it.
        overwrites: Whether a ReLU may work in the memory of its input.

    Raises:
        NotRepeatable: The operation's result depends on more than the record holds.
    """
    if node.function is None:
        raise NotRepeatable(f"{node.operation} cannot be run again")
    if node.operation in _ADAPTIVE and all(edge.y == SAME and edge.x == SAME for edge in node.edges):
        return value_of(node.edges[0].node)  # told a size, not a window
    if node.operation == "as_strided_":  # how pooling to 1 x 1 marks its result as channels-last
        if node.shape[2:] != (1, 1) or tuple(node.arguments[2][:2]) != (node.shape[1], 1):
            raise NotRepeatable("as_strided_ cannot be run again")
        return value_of(node.edges[0].node)
    if overwrites and node.operation in ("relu", "relu_"):
        return F.relu_(value_of(node.edges[0].node))
    arguments = [_filled(item, value_of) for item in node.arguments]
    keywords = {name: _filled(item, value_of) for name, item in (node.keywords or {}).items()}
    if node.operation in LAID_OUT:
        return arguments[0].expand(shape) if node.operation == "expand" else arguments[0].reshape(shape)
    if node.operation == "convolution" and not arguments[6]:  # the form that autocast knows
        source, weight, bias, stride, padding, dilation, _, _, groups = arguments
        return F.conv2d(source, weight, bias, stride, padding, dilation, groups)
    function: Any = node.function
    if node.operation.endswith("_") and not node.operation.startswith("_"):
        function = getattr(getattr(torch.ops.aten, node.operation[:-1]), function._overloadname)
    result = function(*arguments, **keywords)
    return result[node.place] if isinstance(result, (tuple, list)) else result


def _filled(item: Any, value_of: Callable[[int], Tensor]) -> Any:
    """A recorded argument with values in place of references."""
    if isinstance(item, Reference):
        return value_of(item.node)
    return [_filled(one, value_of) for one in item] if isinstance(item, list) else item


def local(node: Node) -> bool:
    """Whether a node can be run in windows: sliding windows whose padding is known, and what works position by position."""
    if node.operation in ("overwritten", "input") or not node.edges:
        return False
    if all(edge.y == SAME and edge.x == SAME for edge in node.edges):
        return True
    if node.operation == "convolution":
        return not node.arguments[6] and not isinstance(node.arguments[1], Reference)
    if node.operation in _MAX_POOLS:
        return node.place == 0
    if node.operation == "avg_pool2d":
        _, _, padding, ceil, include, divisor = (*node.arguments[1:], *[None] * 6)[:6]
        plain = not padding or not any(padding) or include in (None, True)
        return plain and not ceil and divisor is None
    return node.operation == "constant_pad_nd"


def beyond(node: Node) -> float:
    """What a sliding operation finds beyond the ends of the map."""
    if node.operation == "constant_pad_nd":
        return float(node.arguments[2]) if len(node.arguments) > 2 else 0.0
    return -math.inf if node.operation in _MAX_POOLS else 0.0


def unpadded(node: Node, read: Tensor, scaled: Scaled | None = None) -> Tensor:
    """A sliding operation on windows that hold all it reads, padding included."""
    arguments = node.arguments
    if node.operation == "constant_pad_nd":
        return read
    if node.operation == "convolution":
        _, weight, bias, stride, _, dilation, _, _, groups = arguments
        weight, bias = scaled or (weight, bias)
        return F.conv2d(read, weight, bias, stride, 0, dilation, groups)
    kernel = arguments[1]
    stride = arguments[2] if len(arguments) > 2 and arguments[2] else kernel
    if node.operation == "avg_pool2d":
        return F.avg_pool2d(read, kernel, stride)
    return F.max_pool2d(read, kernel, stride, 0, arguments[4] if len(arguments) > 4 else 1)


def batched(node: Node, batch: int, places: Places | None) -> tuple[int, ...]:
    """The shape of a node's value for a batch, in windows or whole."""
    shape = [node.shape[0] * batch, *node.shape[1:]]
    if places is not None and node.spatial is not None:
        if node.spatial.rows:
            shape[0] = batch * places.height * places.width
        else:
            shape[node.spatial.y], shape[node.spatial.x] = places.height, places.width
    return tuple(shape)


def scaled_convolutions(graph: Graph, readers: dict[int, list[int]], last: int) -> dict[int, Scaled]:
    """Convolutions with the batch norm after them multiplied in, where nothing else reads between the two: {batch norm: ...}."""
    found: dict[int, Scaled] = {}
    for index, by in readers.items():
        node, follower = graph.nodes[index], graph.nodes[by[0]]
        if node.operation != "convolution" or node.arguments[6] or len(by) > 1 or index == last:
            continue
        if follower.operation not in _BATCH_NORMS or follower.place != 0 or any(edge.y != SAME for edge in follower.edges):
            continue
        _, gain, shift, mean, variance, *rest = follower.arguments
        weight, bias = node.arguments[1], node.arguments[2]
        if mean is None or variance is None or isinstance(weight, Reference):
            continue
        scale = (variance.double() + float(rest[-1])).rsqrt() * (1.0 if gain is None else gain.double())
        offset = ((0.0 if bias is None else bias.double()) - mean.double()) * scale + (0.0 if shift is None else shift.double())
        found[by[0]] = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), offset.to(weight.dtype)
    return found
