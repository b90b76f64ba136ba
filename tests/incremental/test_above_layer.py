"""The part above a layer run again on other values of it, against the network itself with a hook that writes the value."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hand_built
from convscope.errors import NotReached
from convscope.incremental.above_layer import AboveLayer
from convscope.scope import Inputs, Scope
from hand_built import draws


class Branches(nn.Module):
    """Two branches that meet, one of them around the layer; an identity that shares its tensor with the sum beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.right, self.same = nn.Conv2d(4, 4, 1), nn.Identity()
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem = F.relu(self.stem(images), inplace=True)
        left = self.norm(self.left(stem)).relu_()
        left += self.same(stem)
        return self.head(torch.cat([left, torch.sigmoid(self.right(stem)) * stem], 1).mean((2, 3)))


class Deciding(nn.Module):
    """A network that looks at a value, so that its record may not hold for another image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        pooled = F.relu(self.conv(images)).mean((2, 3))
        return self.head(pooled if float(pooled.sum()) > -1 else -pooled)


def real(name: str) -> Callable[[], nn.Module]:
    return lambda: hand_built.torchvision_network(name)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, tuple[str, ...], str]] = {
    "plain": (hand_built.small, 24, ("0", "1", "2", "2@input", "3", "5", "7"), "cached"),
    "residual": (lambda: hand_built.seeded(hand_built.Residual), 16, ("stem", "relu:0", "relu:1", "norm", "relu:2"), "cached"),
    "branches": (lambda: hand_built.seeded(Branches), 16, ("stem", "left", "norm", "right"), "cached"),
    "identity": (lambda: hand_built.seeded(Branches), 16, ("same",), "full"),  # its tensor is read around it
    "deciding": (lambda: hand_built.seeded(Deciding), 16, ("conv",), "full"),
    "resnet18": (real("resnet18"), 64, ("conv1", "layer1.0.conv1", "layer2.0", "layer3.1.bn1", "layer4"), "cached"),
    "squeezenet1_0": (real("squeezenet1_0"), 64, ("features.3.squeeze", "features.7", "features.12"), "cached"),
    "mobilenet_v3_small": (real("mobilenet_v3_small"), 64, ("features.1.block.1.fc1", "features.4.block.0", "features.8"), "cached"),
    "shufflenet_v2_x0_5": (real("shufflenet_v2_x0_5"), 64, ("stage2.0.branch1", "stage3.1.branch2.0", "stage4"), "cached"),
}
"""Network, image side, layers, and how they are run again. Tried beside these: densenet121 (features.denseblock2, one denselayer) and
googlenet (inception4a.branch2, inception5b), both equal."""


def by_hook(scope: Scope, layer: str, images: Tensor, value: Tensor) -> Tensor:
    """The slow twin: the whole network, with the layer's value written by a hook."""
    known, calls = scope.layers[layer], [0]

    def write(*given: object) -> Tensor | tuple[Tensor] | None:
        calls[0] += 1
        if calls[0] != known.call + 1:
            return None
        return (value.clone(),) if known.of_input else value.clone()

    register = known.module.register_forward_pre_hook if known.of_input else known.module.register_forward_hook
    handle = register(write)
    try:
        with torch.no_grad(), scope.session():
            return scope.model(scope.inputs.normalize(images))
    finally:
        handle.remove()


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_to_the_network_with_a_hook(name: str) -> None:
    build, side, layers, method = NETWORKS[name]
    scope = Scope(build().double(), Inputs(size=side, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))
    images = draws(3, 3, side, side, dtype=torch.float64)
    for layer in layers:
        above = AboveLayer(scope, layer, (side, side))
        with scope.session(), torch.no_grad():
            cached = above.begin(images)
            assert torch.allclose(cached.value, scope.run(images, layer)[layer], rtol=1e-10, atol=1e-12)
            for seed in range(2):  # twice: what is cached must not have been written to
                value = cached.value * draws(*cached.value.shape, seed=seed, dtype=torch.float64)
                want = by_hook(scope, layer, images, value)
                got = above.finish(cached, value)
                assert torch.allclose(got, want, rtol=1e-9, atol=1e-11 * float(want.abs().max())), layer
                assert not torch.allclose(got, cached.output, rtol=1e-6), layer
        assert above.method == ("full" if layer.endswith("@input") else method), layer


def test_nothing_below_the_layer_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = Scope(hand_built.torchvision_network("resnet18"), Inputs(size=64))
    images = draws(2, 3, 64, 64)
    above = AboveLayer(scope, "layer3", (64, 64))
    with scope.session(), torch.no_grad():
        cached = above.begin(images)
        counted: list[tuple[int, ...]] = []
        convolved = F.conv2d

        def counting(source: Tensor, weight: Tensor, *rest: object) -> Tensor:
            counted.append(tuple(weight.shape))
            return convolved(source, weight, *rest)

        monkeypatch.setattr(F, "conv2d", counting)
        forwards = scope.forwards
        above.finish(cached, cached.value.clone())
    own = [tuple(module.weight.shape) for module in scope.model.layer4.modules() if isinstance(module, nn.Conv2d)]
    assert sorted(counted) == sorted(own) and scope.forwards == forwards


def test_images_of_another_size() -> None:
    scope = Scope(hand_built.small().double(), Inputs(size=24))
    images = draws(2, 3, 20, 33, dtype=torch.float64)
    above = AboveLayer(scope, "5", (20, 33))
    with scope.session(), torch.no_grad():
        cached = above.begin(images)
        value = cached.value * 0.5
        assert torch.allclose(above.finish(cached, value.clone()), by_hook(scope, "5", images, value), rtol=1e-12)
    assert above.method == "cached"


def test_a_layer_without_influence_is_refused() -> None:
    scope = Scope(hand_built.Heads(lambda main, other: (main, other)), Inputs(size=16))
    with pytest.raises(NotReached, match="layer main has no influence on conv"):
        AboveLayer(scope, "main", (16, 16), last="conv")
