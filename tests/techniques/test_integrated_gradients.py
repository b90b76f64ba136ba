"""Integrated gradients against a plain loop in float64, its completeness, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
import hand_built
import promises
from convscope.errors import BadInput
from convscope.scope import Inputs, Scope
from hand_built import draws

PROMISE = promises.Promise(
    lambda s: cs.integrated_gradients(s, promises.IMAGES[:2], steps=3), "(result.gap().tolist(), result.view().note)", forwards=8
)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def twin(model: nn.Module, image: Tensor, start: Tensor, target: int, steps: int) -> tuple[np.ndarray, float]:
    """The map by autograd, point by point, and the logit's rise; in float64."""
    model = copy.deepcopy(model).double().eval()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    image, start = image.double(), start.double()

    def logit(pixels: Tensor) -> Tensor:
        return model(((pixels - mean) / std)[None])[0, target]

    total = torch.zeros_like(image)
    for node, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        point = (start + (image - start) * (1 + node) / 2).requires_grad_()
        total += weight / 2 * torch.autograd.grad(logit(point), point)[0]
    return ((image - start) * total).sum(0).numpy(), float((logit(image) - logit(start)).detach())


@pytest.mark.parametrize("baseline", ["mean", "black", 0.7, (0.1, 0.2, 0.3)])
def test_against_a_plain_loop(baseline: Any) -> None:
    images = draws(2, 3, 24, 24)
    scope = Scope(hand_built.small(), Inputs(size=24, mean=MEAN, std=STD), precision="float32")
    found = cs.integrated_gradients(scope, images, baseline=baseline, steps=9)
    colour = {"mean": MEAN, "black": (0.0,) * 3, 0.7: (0.7,) * 3}.get(baseline, baseline)
    for index, image in enumerate(images):
        start = torch.tensor(colour).view(3, 1, 1).expand_as(image)
        expected, rise = twin(hand_built.small(), image, start, found.targets[index], 9)
        np.testing.assert_allclose(found.map[index], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        assert found.logit[index] - found.baseline_logit[index] == pytest.approx(rise, rel=1e-4, abs=1e-5)
        assert found.gap()[index] == pytest.approx(abs(expected.sum() - rise) / abs(rise), abs=1e-3)


def test_more_steps_close_the_gap_and_a_linear_network_has_none() -> None:
    images = draws(3, 3, 24, 24)
    scope = Scope(hand_built.small(), Inputs(size=24), precision="float32")
    assert cs.integrated_gradients(scope, images, 1, steps=200).gap().max() < 0.02
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 22 * 22, 3))
    found = cs.integrated_gradients(Scope(linear, Inputs(size=24), precision="float32"), images, 2, steps=1)
    assert found.gap().max() < 1e-4 and "0.0 % off" in found.summary()


def test_where_the_image_is_the_baseline_nothing_is_added() -> None:
    image = draws(1, 3, 24, 24)
    image[..., :12] = torch.tensor(MEAN).view(3, 1, 1)
    found = cs.integrated_gradients(Scope(hand_built.small(), Inputs(size=24, mean=MEAN, std=STD), precision="float32"), image, steps=4)
    assert not found.map[..., :12].any() and found.map[..., 12:].any() and found.figure()


def test_refusals() -> None:
    scope = Scope(hand_built.small(), Inputs(size=24))
    with pytest.raises(BadInput, match="steps must be a whole number from 1 to 1000, got 0"):
        cs.integrated_gradients(scope, draws(1, 3, 24, 24), steps=0)
    with pytest.raises(BadInput, match="fill must be gray, median, mean"):
        cs.integrated_gradients(scope, draws(1, 3, 24, 24), baseline="nothing")
    with pytest.raises(cs.ConvscopeError, match="class"):
        cs.integrated_gradients(scope, draws(1, 3, 24, 24), "heron")
