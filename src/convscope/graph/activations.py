"""From a convolution to its ReLU, along the graph of operations."""

from __future__ import annotations

from convscope.graph.graph import Graph

ACTIVATIONS = frozenset(
    "relu clamp_min clamp hardtanh relu6 leaky_relu prelu _prelu_kernel rrelu_with_noise elu celu selu gelu silu mish hardswish softplus "
    "threshold sigmoid hardsigmoid tanh".split()
)
"""Operations that count as a convolution's activation (in place or not)."""
_PASSED = frozenset(
    "_native_batch_norm_legit_no_training native_batch_norm cudnn_batch_norm native_group_norm native_layer_norm native_dropout dropout "
    "clone detach alias contiguous _to_copy".split()
)


def rectified(graph: Graph | None, node: int | None) -> tuple[int | None, ...]:
    """The values on the way from a convolution to its activation.

    Args:
        graph: The network's operations; None ends the way where it begins.
        node: The convolution.

    Returns:
        Nodes from the convolution on: through norm, dropout and one sum at most, to the activation, if it is reached. If it is not,
        a sum is left out, as it belongs to others, too.
    """
    way, sum_at = [node], 0
    while graph is not None and node is not None:
        shape = graph.nodes[node].shape
        takers = [
            (index, one.operation.removesuffix("_"))
            for index, one in enumerate(graph.nodes[node + 1 :], node + 1)
            if one.shape == shape and one.place == 0 and any(edge.node == node for edge in one.edges)
        ]
        active = [index for index, operation in takers if operation in ACTIVATIONS]
        if active:
            return (*way, active[0])
        onward = [(index, operation) for index, operation in takers if operation in _PASSED or (operation == "add" and not sum_at)]
        if not onward:
            break
        node, operation = onward[0]
        sum_at = sum_at or (len(way) if operation == "add" else 0)
        way.append(node)
    return tuple(way[: sum_at or None])
