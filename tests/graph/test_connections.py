from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convscope as cs
import hand_built
from convscope.graph.connections import Block, connections


def blocks(network: nn.Module, layers: list[str], side: int = 16) -> dict[tuple[str, str], np.ndarray]:
    scope = cs.Scope(network, cs.Inputs(size=side))
    found: list[Block] = connections(scope.graph, {name: scope.layers[name].node for name in layers})  # pyright: ignore[reportArgumentType]
    return {(block.source, block.target): block.weights for block in found}


def plain(weights: Tensor) -> np.ndarray:
    """(out in ...): root of the sum of squares over positions with the sign of the sum, one kernel at a time."""
    flat = weights.detach().double().reshape(*weights.shape[:2], -1).numpy()
    found = np.zeros(flat.shape[:2])
    for out in range(flat.shape[0]):
        for one in range(flat.shape[1]):
            kernel = flat[out, one]
            found[out, one] = np.sign(kernel.sum()) * np.sqrt((kernel**2).sum())
    return found


def test_a_chain_with_pooling_and_a_dense_layer() -> None:
    network = hand_built.small()
    found = blocks(network, ["2", "5", "output"])
    assert set(found) == {("2", "5"), ("5", "output")}
    np.testing.assert_allclose(found["2", "5"], plain(network[4].weight), rtol=1e-5)
    np.testing.assert_allclose(found["5", "output"], network[8].weight.detach().numpy(), rtol=1e-5)


def test_the_batch_norm_is_folded_in_with_its_sign() -> None:
    network = hand_built.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    )
    with torch.no_grad():
        network[3].weight[1] = -0.7
    norm = network[3]
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    wanted = plain(network[2].weight * scale[:, None, None, None])
    np.testing.assert_allclose(blocks(network, ["1", "4"])["1", "4"], wanted, rtol=1e-4)


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 3, padding=1)
        self.last = nn.Conv2d(5, 4, 1)
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(4))

    def forward(self, images: Tensor) -> Tensor:
        stem = self.relus[0](self.stem(images))
        joined = torch.cat([self.relus[1](self.left(stem)), self.relus[2](self.right(stem))], 1)
        return (self.relus[3](self.last(F.max_pool2d(joined, 2))) + F.max_pool2d(stem, 2)).mean((2, 3))


def test_joins_keep_their_parts_apart() -> None:
    network = hand_built.seeded(Joined)
    found = blocks(network, ["relus.0", "relus.1", "relus.2", "relus.3"])
    last = plain(network.last.weight)
    np.testing.assert_allclose(found["relus.1", "relus.3"], last[:, :2], rtol=1e-5)
    np.testing.assert_allclose(found["relus.2", "relus.3"], last[:, 2:], rtol=1e-5)
    np.testing.assert_allclose(found["relus.0", "relus.2"], plain(network.right.weight), rtol=1e-5)
    assert ("relus.0", "relus.3") not in found


def test_groups_and_a_flattened_map() -> None:
    network = hand_built.seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)
        )
    )
    found = blocks(network, ["1", "3", "output"])
    whole = torch.zeros(4, 4, 3, 3)
    whole[:2, :2], whole[2:, 2:] = network[2].weight.detach()[:2], network[2].weight.detach()[2:]
    np.testing.assert_allclose(found["1", "3"], plain(whole), rtol=1e-5)
    np.testing.assert_allclose(found["3", "output"], plain(network[5].weight.detach().reshape(3, 4, 196)), rtol=1e-4)


def test_a_norm_and_a_sum_behind_the_convolution() -> None:
    network = hand_built.seeded(hand_built.Residual)
    found = blocks(network, ["relu:0", "relu:2", "output"])
    scale = (network.norm.weight / torch.sqrt(network.norm.running_var + network.norm.eps)).detach()
    # the sum's other part is relu:0 itself, which is no weight
    wanted = plain(network.middle.weight) * scale[:, None].numpy()
    np.testing.assert_allclose(found["relu:0", "relu:2"], wanted, rtol=1e-4)
    np.testing.assert_allclose(found["relu:2", "output"], plain(network.last.weight), rtol=1e-5)


def test_further_weights_end_the_way() -> None:
    network = hand_built.small()
    assert set(blocks(network, ["2", "output"])) == set()
