"""Kernels and biases of a recorded graph's convolutions with the batch norm after them multiplied in; the network itself is not changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from convscope.graph.geometry import SAME
from convscope.graph.graph import Graph, Reference

Folded = tuple[Tensor, Tensor]
"""Kernels and biases of a convolution with the batch norm after it multiplied in."""


def folded_convolutions(graph: Graph, readers: Mapping[int, Sequence[int]], wanted: Collection[int]) -> dict[int, Folded]:
    """Convolutions with the batch norm after them folded in, where nothing else reads the value between the two: {batch norm: ...}.

    Args:
        graph: The network's operations.
        readers: The nodes that read each node.
        wanted: Nodes whose own value is needed: these convolutions are not folded.
    """
    found: dict[int, Folded] = {}
    for index, everyone in readers.items():
        by = [reader for reader in everyone if graph.nodes[reader].output == 0 or reader in readers]  # not statistics that nobody reads
        node, norm = graph.nodes[index], graph.nodes[by[0] if by else index]
        if node.role != "convolution" or node.arguments[6] or len(by) != 1 or index in wanted:
            continue
        if norm.role != "batch norm" or norm.output != 0 or any(edge.y != SAME for edge in norm.edges):
            continue
        _, gain, shift, mean, variance, *rest = norm.arguments
        weight, bias = node.arguments[1], node.arguments[2]
        if mean is None or variance is None or isinstance(weight, Reference):
            continue
        scale = (variance.double() + float(rest[-1])).rsqrt() * (1.0 if gain is None else gain.double())
        offset = ((0.0 if bias is None else bias.double()) - mean.double()) * scale + (0.0 if shift is None else shift.double())
        found[by[0]] = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), offset.to(weight.dtype)
    return found
