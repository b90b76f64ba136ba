"""Bounds that hold for every picture: never wrong, exact where the answer is known, silent where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
import hand_built

SIDE = 24
INPUTS = cs.Inputs(SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def pictures(count: int = 12) -> torch.Tensor:
    """Noise, flat colours and checkerboards at the corners of the box."""
    noise = hand_built.draws(count, 3, SIDE, SIDE)
    corners = (hand_built.draws(count, 3, 1, 1, seed=1) > 0.5).float().expand(-1, -1, SIDE, SIDE)
    checks = (hand_built.draws(count, 3, SIDE, SIDE, seed=2) > 0.5).float()
    return torch.cat([noise, corners, checks])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "small": hand_built.small,
    "residual": lambda: hand_built.seeded(hand_built.Residual),
    "functional": lambda: hand_built.seeded(hand_built.Functional),
    "padded average": lambda: hand_built.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.SiLU())
    ),
    "gates": lambda: hand_built.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.ConstantPad2d(2, 3.0), nn.Conv2d(4, 6, 2), nn.GELU(), nn.Sigmoid())
    ),
    "slopes": lambda: hand_built.seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 2), nn.ELU(0.7), nn.Conv2d(4, 4, 1), nn.SELU(), nn.CELU(2)
        )
    ),
    "upsampled": lambda: hand_built.seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU())
    ),
    "reflection": lambda: hand_built.seeded(lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 4, 5), nn.ReLU6(), nn.Mish())),
} | {
    name: (lambda name=name: hand_built.torchvision_network(name))
    for name in ("squeezenet1_0", "resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "convnext_tiny")
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_picture_leaves_the_bounds(name: str) -> None:
    side = 64 if name in ("densenet121", "shufflenet_v2_x0_5", "convnext_tiny", "resnet18", "squeezenet1_0", "mobilenet_v3_small") else SIDE
    scope = cs.Scope(NETWORKS[name](), cs.Inputs(side, INPUTS.mean, INPUTS.std), precision="float32")
    layers = [layer for layer in scope.layers if len(scope.layers[layer].shape) in (1, 3)]
    images = nn.functional.interpolate(pictures(3), side)
    values, known = scope.activations(images, layers), 0
    for layer, bounds in scope.bounds(layers).items():
        if bounds is not None:
            known += 1
            maps = scope.layers[layer].channels_first(values[layer]).flatten(2) if values[layer].ndim > 2 else values[layer][..., None]
            assert (maps.amax((0, 2)).double() <= bounds.high).all(), layer
            assert (maps.amin((0, 2)).double() >= bounds.low).all(), layer
    assert known >= (1 if name in ("convnext_tiny", "shufflenet_v2_x0_5") else 0.9 * len(layers))


def test_a_single_convolution_has_exactly_the_bounds_of_its_best_picture() -> None:
    scope = cs.Scope(hand_built.linear_conv(), INPUTS, precision="float32")
    bounds = scope.bounds(["0"])["0"]
    assert bounds is not None
    weights = scope.model[0].weight.detach().double()
    shift, scale = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (INPUTS.mean, INPUTS.std))
    for filter_, (kernel, bias) in enumerate(zip(weights, scope.model[0].bias.detach().double(), strict=True)):
        best = (kernel > 0).double()  # the picture in [0,1] that the filter likes most
        assert bounds.high[filter_].item() == pytest.approx(((best - shift) / scale * kernel).sum().item() + bias.item(), rel=1e-4)
        assert bounds.low[filter_].item() == pytest.approx(((1 - best - shift) / scale * kernel).sum().item() + bias.item(), rel=1e-4)


def test_structurally_dead_channels_have_the_bound_zero_and_no_others() -> None:
    model = hand_built.small()
    with torch.no_grad():
        model[1].weight[0], model[1].bias[0] = 0, -1  # collapsed batch norm
        model[1].weight[1], model[1].bias[1] = 0, 0
        model[1].weight[2], model[1].bias[2] = 0, 0.5  # constant, alive
        model[4].bias[3] = -1e6
    bounds = cs.Scope(model, INPUTS, precision="float32").bounds(["2", "5"])
    assert bounds["2"] is not None and bounds["5"] is not None
    assert bounds["2"].high[:2].tolist() == [0, 0]
    assert bounds["2"].high[2].item() == pytest.approx(0.5, rel=1e-5) and bounds["2"].low[2].item() == pytest.approx(0.5, rel=1e-5)
    assert (bounds["2"].high[3:] > 0).all()
    assert np.flatnonzero(bounds["5"].high.numpy() == 0).tolist() == [3]


def test_what_is_not_known_has_no_bound_and_neither_has_what_follows() -> None:
    class Strange(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values.cumsum(2)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Strange(), nn.Conv2d(4, 2, 1), nn.Sigmoid())
    bounds = cs.Scope(model, INPUTS).bounds(["0", "1", "2"])
    assert bounds["0"] is not None and bounds["1"] is None and bounds["2"] is None


def test_batch_statistics_have_no_bound() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU())
    assert cs.Scope(model, INPUTS).bounds(["1", "2"]) == {"1": None, "2": None}


def test_falling_slopes_and_dropout_that_stays_on_have_no_bound() -> None:
    class Dropping(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return torch.native_dropout(values, 0.5, self.training or True)[0]

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(-0.5), Dropping())
    assert cs.Scope(model, INPUTS).bounds(["1"]) == {"1": None}
    assert cs.Scope(nn.Sequential(model[0], model[2]), INPUTS).bounds(["1"]) == {"1": None}


def test_bfloat16_is_allowed_for() -> None:
    exact, coarse = (cs.Scope(hand_built.small(), INPUTS, precision=precision).bounds(["5"])["5"] for precision in ("float32", "bfloat16"))
    assert exact is not None and coarse is not None
    assert (coarse.high >= exact.high).all() and (coarse.high > exact.high).any()


def test_observed_values_are_those_of_activations_and_the_pass_ends_at_the_deepest() -> None:
    model = hand_built.seeded(hand_built.Residual)  # sums in place: values must be seen before they are overwritten
    scope = cs.Scope(model, INPUTS, precision="float32")
    assert scope.layers
    before, images = scope.forwards, hand_built.draws(2, 3, SIDE, SIDE)
    layers = ["relu:0", "norm", "relu:2"]
    seen = scope.observe(images, layers, lambda layer, value: (layer.name, value.clone()))
    assert scope.forwards == before + 1 and list(seen) == layers
    for name, value in scope.activations(images, layers).items():
        assert seen[name][0] == name and not seen[name][1].requires_grad
        torch.testing.assert_close(seen[name][1], value, rtol=1e-5, atol=1e-6)
