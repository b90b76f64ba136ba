"""Weights between the units of layers: through which convolution or dense layer one layer's channels reach another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from convscope.graph.graph import Graph, Node, Reference

_SAME = {"activation", "copy", "max pool", "average pool", "adaptive pool", "pad", "reduce", "part", "view", "resize"}
"""Operations behind which a channel is still that channel, as long as their number stays."""


@dataclass(frozen=True)
class Block:
    """The weights from all units of a layer to all units of another.

    Attributes:
        source, target: The layers.
        weights: (target source): the size of the kernel between two units (root of the sum of squares), with the sign of its sum; batch
            norms are folded in.
    """

    source: str
    target: str
    weights: np.ndarray


@dataclass(frozen=True)
class _Reached:
    """A value on the way back: its channels are those from `first` on of what is looked at, times `scale` (channel).

    `positions`: so many inputs of a dense layer belong to one channel, because a map was flattened before it.
    """

    node: int
    first: int
    scale: np.ndarray
    positions: int = 1


def connections(graph: Graph, nodes: Mapping[str, int]) -> list[Block]:
    """The weights between layers that are connected by one convolution or dense layer.

    Args:
        graph: The network's operations.
        nodes: {layer: its node}.

    Returns:
        A block for each pair of connected layers; through sums, joins and pooling, but through no further weights.
    """
    names: dict[int, str] = {}
    for name, node in nodes.items():
        names.setdefault(node, name)
    found: dict[tuple[str, str], np.ndarray] = {}
    for target, node in nodes.items():
        channels = _channels(graph.nodes[node])
        for made in _back(graph, node, set(names) - {node}, products=True):
            matrix = _matrix(graph.nodes[made.node])
            if matrix is None:
                continue
            kernels, read = matrix  # (out in position), the node that is read
            kernels = kernels[: channels - made.first] * made.scale[: len(kernels), None, None]
            for source in _back(graph, read, set(names), products=False):
                count = _channels(graph.nodes[source.node])
                part = _of_channels(kernels, source, count)
                if part is None:
                    continue
                signed = np.sign(part.sum(2)) * np.sqrt((part**2).sum(2)) * source.scale
                name = names[source.node]
                block = found.setdefault((name, target), np.zeros((channels, count), np.float32))
                block[made.first : made.first + len(signed)] += signed
    return [Block(source, target, weights) for (source, target), weights in found.items()]


def _channels(node: Node) -> int:
    return node.shape[1] if len(node.shape) > 1 else 1


def _back(graph: Graph, start: int, ends: set[int], *, products: bool) -> list[_Reached]:
    """What a value is made of, backward until a node of `ends`, or (`products`) until a product with weights."""
    found: list[_Reached] = []
    waiting = [_Reached(start, 0, np.ones(_channels(graph.nodes[start]), np.float32))]
    seen = 0
    while waiting and seen < 4096:
        seen += 1
        at = waiting.pop()
        node = graph.nodes[at.node]
        if at.node in ends:
            found += [] if products else [at]
            continue
        if node.role in ("convolution", "dense"):
            found += [at] if products else []
            continue
        waiting += _onward(graph, at, node)
    return found


def _onward(graph: Graph, at: _Reached, node: Node) -> list[_Reached]:
    """One step back from a node."""
    sources = list(dict.fromkeys(edge.node for edge in node.edges))
    channels = _channels(node)
    if node.role == "join":
        arguments: list[Any] = list(node.arguments)
        axis = arguments[1] if len(arguments) > 1 else 0
        if axis not in (1, 1 - len(node.shape)):
            return []
        parts: list[_Reached] = []
        first = 0
        for part in arguments[0]:
            if isinstance(part, Reference):
                count = _channels(graph.nodes[part.node])
                parts.append(replace(at, node=part.node, first=at.first + first, scale=at.scale[first : first + count]))
                first += count
            elif isinstance(part, Tensor):
                first += part.shape[1]
        return parts
    if node.role == "batch norm" and node.output == 0:
        _, gain, _, _, variance, *rest = node.arguments
        if variance is None:
            return []
        scale = (variance.double() + float(rest[-1])).rsqrt() * (1.0 if gain is None else gain.double())
        return [replace(at, node=source, scale=at.scale * scale.detach().float().cpu().numpy()) for source in sources[:1]]
    if node.role == "arithmetic":
        return [replace(at, node=source) for source in sources if graph.nodes[source].shape == node.shape]
    if node.role == "view" and len(sources) == 1:
        source = graph.nodes[sources[0]]
        inner = int(np.prod(source.shape[2:], dtype=np.int64)) if len(source.shape) == 4 else 1
        if len(node.shape) == 2 and len(source.shape) == 4 and node.shape[1] == source.shape[1] * inner:
            if inner == 1:
                return [replace(at, node=sources[0])]
            scale = at.scale.reshape(source.shape[1], inner)[:, 0]
            return [replace(at, node=sources[0], scale=scale, positions=inner)]
    if node.role in _SAME and node.output == 0 and sources and _channels(graph.nodes[sources[0]]) == channels:
        return [replace(at, node=sources[0])]
    return []


def _matrix(node: Node) -> tuple[np.ndarray, int] | None:
    """The weights of a convolution or dense layer, (out in position), and the node that it reads."""
    tensors = [value for value in node.arguments if isinstance(value, Tensor)]
    references = [value.node for value in node.arguments if isinstance(value, Reference)]
    if len(references) != 1 or not tensors:
        return None
    if node.role == "dense":
        weight = tensors[-1].detach().float().cpu().numpy().T
        return weight[:, :, None], references[0]
    weight, transposed, groups = node.arguments[1], node.arguments[6], int(node.arguments[8])
    if transposed or isinstance(weight, Reference):
        return None
    kernels = weight.detach().float().cpu().numpy().reshape(weight.shape[0], weight.shape[1], -1)
    if groups == 1:
        return kernels, references[0]
    whole = np.zeros((len(kernels), kernels.shape[1] * groups, kernels.shape[2]), np.float32)
    for group in range(groups):
        rows = slice(group * len(kernels) // groups, (group + 1) * len(kernels) // groups)
        whole[rows, group * kernels.shape[1] : (group + 1) * kernels.shape[1]] = kernels[rows]
    return whole, references[0]


def _of_channels(kernels: np.ndarray, source: _Reached, count: int) -> np.ndarray | None:
    """The columns of weights (out in position) that belong to a value's channels, (out channel position); None if they do not fit."""
    if source.positions > 1:
        columns = kernels[:, source.first : source.first + count * source.positions, 0]
        return columns.reshape(len(kernels), count, source.positions) if columns.shape[1] == count * source.positions else None
    columns = kernels[:, source.first : source.first + count]
    return columns if columns.shape[1] == count == len(source.scale) else None
