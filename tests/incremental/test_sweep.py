"""A sweep takes the method that works and is worth it, checks it, and gives every box its value."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hand_built
from convscope.incremental.planner import Batch
from convscope.incremental.rerun import Rerun
from convscope.incremental.sweep import Sweep
from convscope.scope import Inputs, Scope
from hand_built import draws

SIDE = 32
BOXES = np.array([(y, x, y + 5, x + 7) for y in range(0, 27, 6) for x in range(0, 25, 6)])


@pytest.fixture
def wide() -> Scope:
    return Scope(hand_built.small().double(), Inputs(size=SIDE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)), name="small")


def swept(scope: Scope, *, incremental: bool = True, boxes: np.ndarray = BOXES, layer: str = "output") -> Sweep:
    picture, source = (draws(1, 3, SIDE, SIDE, seed=seed, dtype=torch.float64) for seed in (0, 1))
    return Sweep(scope, picture, source, boxes, layer, incremental=incremental)


def collected(sweep: Sweep) -> Tensor:
    """Values in the order of the boxes, each found once."""
    numbers, values = zip(*sweep.values(), strict=True)
    order = np.concatenate(numbers)
    assert sorted(order.tolist()) == list(range(len(sweep.boxes)))
    return torch.cat(values)[torch.from_numpy(np.argsort(order))]


def expected(scope: Scope, boxes: np.ndarray = BOXES, layer: str = "output") -> Tensor:
    picture, source = (draws(1, 3, SIDE, SIDE, seed=seed, dtype=torch.float64) for seed in (0, 1))
    pictures = picture.repeat(len(boxes), 1, 1, 1)
    for number, (y0, x0, y1, x1) in enumerate(boxes):
        pictures[number, :, y0:y1, x0:x1] = source[0, :, y0:y1, x0:x1]
    with torch.no_grad():
        return scope.run(pictures, layer)[layer]


@pytest.mark.parametrize("layer", ["1", "4", "output"])
@pytest.mark.parametrize("incremental", [True, False])
def test_both_methods_give_every_box_its_value(wide: Scope, incremental: bool, layer: str) -> None:
    with torch.no_grad(), wide.session():
        sweep = swept(wide, incremental=incremental, layer=layer)
        assert sweep.method == ("incremental" if incremental else "full")
        torch.testing.assert_close(collected(sweep), expected(wide, layer=layer), rtol=1e-10, atol=1e-12)


def test_no_boxes(wide: Scope) -> None:
    with torch.no_grad(), wide.session():
        sweep = swept(wide, boxes=np.zeros((0, 4), int))
        assert sweep.method == "full" and not list(sweep.values()) and math.isnan(sweep.verify(np.array([], int), lambda values: values))


def test_full_inference_where_nothing_would_be_saved(wide: Scope) -> None:
    with torch.no_grad(), wide.session():
        assert swept(wide, boxes=np.array([[0, 0, SIDE, SIDE], [1, 0, SIDE, SIDE]])).method == "full"


def test_full_inference_where_the_network_cannot_be_repeated(caplog: pytest.LogCaptureFixture) -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            values = self.conv(images).mean((2, 3))
            return values if values.sum() > 0 else -values

    scope = Scope(hand_built.seeded(Decides).double(), Inputs(size=SIDE))
    with caplog.at_level(logging.INFO, "convscope"), torch.no_grad(), scope.session():
        sweep = swept(scope)
        assert sweep.method == "full" and "decides on values" in caplog.text
        torch.testing.assert_close(collected(sweep), expected(scope), rtol=1e-10, atol=1e-12)


CHECKS = np.array([3, 11, 19])


def test_verifying_says_how_far_apart_the_methods_are(wide: Scope) -> None:
    with torch.no_grad(), wide.session():
        sweep = swept(wide)
        assert 0 <= sweep.verify(CHECKS, lambda values: values[:, 0]) < 1e-12
        assert math.isnan(sweep.verify(np.array([], int), lambda values: values[:, 0]))
        assert sweep.method == "incremental"
        assert math.isnan(swept(wide, incremental=False).verify(CHECKS, lambda values: values))


def test_what_cannot_be_run_again_after_all_is_run_in_full(
    wide: Scope, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(self: Rerun, batch: Batch, source: Tensor) -> Tensor:
        raise RuntimeError("shape is\ninvalid")

    monkeypatch.setattr(Rerun, "run", failing)
    with torch.no_grad(), wide.session():
        sweep = swept(wide)
        assert math.isnan(sweep.verify(CHECKS, lambda values: values[:, 0]))
        assert sweep.method == "full" and "incremental inference fails on this network (shape is invalid)" in caplog.text
        torch.testing.assert_close(collected(sweep), expected(wide), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("wrong", [1.01, math.nan])
def test_a_wrong_incremental_result_is_found_and_not_used(
    wide: Scope, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: float
) -> None:
    run = Rerun.run

    def tampered(self: Rerun, batch: Batch, source: Tensor) -> Tensor:
        return run(self, batch, source) * wrong

    monkeypatch.setattr(Rerun, "run", tampered)
    with torch.no_grad(), wide.session():
        sweep = swept(wide)
        want = expected(wide)
        difference = sweep.verify(CHECKS, lambda values: values[:, 0])
        assert sweep.method == "full" and "incremental inference does not reproduce this network" in caplog.text
        if wrong == wrong:
            assert difference == pytest.approx(0.01 * float(want[CHECKS, 0].abs().max()), rel=1e-6)
        torch.testing.assert_close(collected(sweep), want, rtol=1e-10, atol=1e-12)
