"""Finds the activation function that follows a convolution in the graph."""

from __future__ import annotations

from convscope.graph.graph import Graph, Node


def path_to_activation(graph: Graph | None, node: int | None) -> tuple[int | None, ...]:
    """The nodes from a convolution to its activation.

    Args:
        graph: The network's operations; None: the path ends where it begins.
        node: The convolution.

    Returns:
        Nodes from the convolution on: through norm, dropout and at most one sum, to the activation, if there is one. If there is none,
        the path ends before the sum, which belongs to other values, too.
    """
    path, sum_at = [node], 0
    while graph is not None and node is not None:
        shape = graph.nodes[node].shape
        readers = [
            (index, one)
            for index, one in enumerate(graph.nodes[node + 1 :], node + 1)
            if one.shape == shape and one.output == 0 and any(edge.node == node for edge in one.edges)
        ]
        activation = next((index for index, one in readers if one.role == "activation"), None)
        if activation is not None:
            return (*path, activation)
        onward = [(index, one) for index, one in readers if one.role in ("batch norm", "norm", "copy") or (_is_sum(one) and not sum_at)]
        if not onward:
            break
        node, one = onward[0]
        sum_at = sum_at or (len(path) if _is_sum(one) else 0)
        path.append(node)
    return tuple(path[: sum_at or None])


def _is_sum(node: Node) -> bool:
    return node.operation in ("add", "add_")
