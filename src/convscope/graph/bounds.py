"""Upper and lower bounds of every channel for any image in [0,1] (interval arithmetic). Unknown operations have no bound.

Bounds hold over all positions and all images; what is computed from a value without bounds has none either. They widen from layer to
layer, so deep in a network they say little, with one exception: a channel whose upper bound after its ReLU is 0 is dead for every image
(a batch norm's gamma near 0 with beta <= 0, say, or a very negative bias).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from convscope.graph.bound_rules import REDUCED, SINGLE, BoundedCall, Bounds, flat
from convscope.graph.graph import Graph, Node, Reference
from convscope.graph.operations import known

__all__ = ["Bounds", "bounds_of"]


def bounds_of(graph: Graph, mean: Sequence[float], std: Sequence[float], *, exact: bool) -> list[Bounds | None]:
    """Bounds of every node's value.

    Args:
        graph: The network's operations, recorded on normalized images.
        mean, std: The normalization.
        exact: Whether products are computed in float32; otherwise the bounds allow for bfloat16.

    Returns:
        A list as long as ``graph.nodes``; None where nothing is known.
    """
    shift, scale = (torch.tensor(values, dtype=torch.float64, device="cpu") for values in (mean, std))
    box = Bounds((0 - shift) / scale, (1 - shift) / scale)
    found: list[Bounds | None] = [box.widened(box.magnitude * 1e-6)]
    for node in graph.nodes[1:]:
        made = _bounded(node, found, graph.nodes, SINGLE if exact else REDUCED)
        found.append(made if made is not None and _usable(made, node) else None)
    return found


def _bounded(node: Node, found: Sequence[Bounds | None], nodes: Sequence[Node], rounding: float) -> Bounds | None:
    rule = known(node.operation).bound
    references = [value.node for value in flat(node.arguments) if isinstance(value, Reference)]
    if rule is None or node.output or any(found[number] is None for number in references):
        return None
    arguments, inputs = _filled(node.arguments, found), [nodes[number].shape for number in references]
    return rule(BoundedCall(node.operation.removesuffix("_"), arguments, dict(node.keywords or {}), inputs, node.shape, rounding))


def _filled(value: Any, found: Sequence[Bounds | None]) -> Any:
    """A recorded argument with bounds in place of references."""
    if isinstance(value, (list, tuple)):
        return [_filled(item, found) for item in value]
    return found[value.node] if isinstance(value, Reference) else value


def _usable(made: Bounds, node: Node) -> bool:
    """Whether there is a bound for each channel, and none is NaN."""
    return len(node.shape) in (2, 4) and len(made.low) == node.shape[1] and not bool((made.low.isnan() | made.high.isnan()).any())
