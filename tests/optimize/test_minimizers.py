"""Minimizers on functions with known minima."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.optimize.minimizers import MINIMIZERS, Minimizer, _Curvatures, adam, clipped_sgd, find_minimizer, lbfgs
from hand_built import draws

Function = Callable[[Tensor], tuple[float, Tensor]]


def drive(minimizer: Minimizer, function: Function) -> tuple[Tensor, list[tuple[Tensor, float]]]:
    """Lets a minimizer run; its result and every place it asked for with the loss there."""
    asked: list[tuple[Tensor, float]] = []
    point = next(minimizer)
    while True:
        loss, gradient = function(point)
        asked.append((point, loss))
        try:
            point = minimizer.send((loss, gradient))
        except StopIteration as done:
            return done.value, asked


def quadratic(point: Tensor) -> tuple[float, Tensor]:
    """Condition number 100, minimum at 1."""
    scales = torch.logspace(0, 2, point.numel(), dtype=point.dtype).view_as(point)
    return float((scales * (point - 1).square()).sum() / 2), scales * (point - 1)


def rosenbrock(point: Tensor) -> tuple[float, Tensor]:
    free = point.clone().requires_grad_()
    loss = (100 * (free[1:] - free[:-1] ** 2).square() + (1 - free[:-1]).square()).sum()
    return loss.item(), torch.autograd.grad(loss, free)[0]


@pytest.mark.parametrize(("function", "size", "evaluations"), [(quadratic, (4, 5), 80), (rosenbrock, (10,), 150)])
@pytest.mark.parametrize(
    ("numbers", "halves"), [({}, False), ({"first": 0.1, "longest": 2.0}, False), ({}, True)], ids=["plain", "long steps", "groups"]
)
def test_lbfgs_finds_minima(function: Function, size: tuple[int, ...], evaluations: int, numbers: dict[str, float], halves: bool) -> None:
    count = math.prod(size)
    groups = torch.arange(count).view(size) // (count // 2) if halves else None
    found, asked = drive(lbfgs(torch.zeros(size, dtype=torch.float64), evaluations, **numbers, groups=groups), function)
    assert float((found - 1).abs().max()) < 1e-4
    assert len(asked) <= evaluations


@pytest.mark.parametrize("numbers", [{}, {"first": 0.1, "longest": 2.0}], ids=["plain", "long steps"])
def test_lbfgs_is_about_as_good_as_scipys(numbers: dict[str, float]) -> None:
    from scipy.optimize import minimize

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = rosenbrock(torch.tensor(x))
        return loss, gradient.numpy()

    theirs = minimize(function, np.zeros(30), jac=True, method="L-BFGS-B", options={"maxcor": 10, "ftol": 1e-12, "gtol": 1e-8})
    _, asked = drive(lbfgs(torch.zeros(30, dtype=torch.float64), 400, **numbers), rosenbrock)
    ours = next(place for place, (_, loss) in enumerate(asked) if loss <= max(theirs.fun, 1e-10))
    assert ours <= 1.5 * theirs.nfev


def test_long_steps_reach_a_flat_valleys_floor_sooner() -> None:
    """On a sum of fourth powers a quasi-Newton step goes a third of the way, so that the slopes call for longer ones."""

    def flat(point: Tensor) -> tuple[float, Tensor]:
        return float(point.pow(4).sum()), 4 * point.pow(3)

    needed: list[int] = []
    for longest in (1.0, 2.0):
        _, asked = drive(lbfgs(draws(20, dtype=torch.float64) + 1, 60, longest=longest), flat)
        needed.append(next(turn for turn, (_, loss) in enumerate(asked) if loss < 1e-6))
    assert needed[1] <= 0.75 * needed[0], needed


def test_each_group_has_a_curvature_of_its_own() -> None:
    """Four groups of numbers, the curvatures of each from 1 to 3 times 1, 10, 100 and 1000; pairs of numbers share a group."""
    groups = torch.arange(4).repeat(25)
    scales = (10.0 ** groups.double() * (1 + 2 * draws(100, dtype=torch.float64)))[:, None].expand(-1, 2)
    aim = draws(100, 2, dtype=torch.float64) - 0.5

    def uneven(point: Tensor) -> tuple[float, Tensor]:
        return float((scales * (point - aim).square()).sum() / 2), scales * (point - aim)

    needed: list[int] = []
    for given in (None, groups):
        _, asked = drive(lbfgs(torch.ones(100, 2, dtype=torch.float64), 300, groups=given), uneven)
        needed.append(next(turn for turn, (_, loss) in enumerate(asked) if loss < 1e-6))
    assert needed[1] <= 0.5 * needed[0], needed


def test_curvatures_by_hand() -> None:
    groups, estimate = torch.tensor([0, 2, 0, 2, 2]), _Curvatures(torch.tensor([0, 2, 0, 2, 2]))
    gradient, first, change, second, later = (draws(5, 2, seed=seed, dtype=torch.float64) + 0.1 for seed in range(5))

    def sizes(values: Tensor) -> list[float]:
        return [math.sqrt(float(values[groups == group].square().mean())) if group != 1 else math.nan for group in range(3)]

    def agrees(expected: list[float]) -> None:
        found = estimate.inverse(gradient)
        np.testing.assert_allclose(found.numpy(), [[expected[int(group)]] for group in groups], rtol=1e-12)

    agrees([size**-0.75 for size in sizes(gradient)])
    estimate.learn(first, change)
    agrees([one / other for one, other in zip(sizes(first), sizes(change), strict=True)])
    before = [one / other for one, other in zip(sizes(first), sizes(change), strict=True)]
    estimate.learn(second, later)
    agrees([math.sqrt(old * one / other) for old, one, other in zip(before, sizes(second), sizes(later), strict=True)])
    estimate.learn(second, 0 * later)
    assert bool(torch.isfinite(estimate.inverse(gradient)).all())


def test_lbfgs_never_ends_higher_and_asks_no_more_than_it_may() -> None:
    def bumpy(point: Tensor) -> tuple[float, Tensor]:
        return float((point.square() / 10 + 1 - torch.cos(3 * point)).sum()), point / 5 + 3 * torch.sin(3 * point)

    for evaluations in (1, 2, 3, 7, 40):
        start = 4 * draws(6, dtype=torch.float64) - 2
        found, asked = drive(lbfgs(start, evaluations), bumpy)
        assert bumpy(found)[0] <= asked[0][1]
        assert len(asked) <= evaluations
    assert len(drive(lbfgs(start, 1), bumpy)[1]) == 1


def test_lbfgs_survives_a_wall() -> None:
    def wall(point: Tensor) -> tuple[float, Tensor]:
        """Not a number beyond 2, with the minimum at 1."""
        loss = float((point - 1).square().sum())
        return (math.nan if float(point.max()) > 2 else loss), 2 * (point - 1)

    found, _ = drive(lbfgs(torch.full((3,), -30.0, dtype=torch.float64), 60), wall)
    assert float((found - 1).abs().max()) < 1e-5


def test_lbfgs_stops_where_nothing_is_to_be_gained() -> None:
    start = torch.ones(4, dtype=torch.float64)
    found, asked = drive(lbfgs(start, 50), quadratic)
    assert torch.equal(found, start) and len(asked) == 1


def test_adam_is_torchs() -> None:
    start = draws(3, 2, dtype=torch.float64)
    found, asked = drive(adam(start, 20, learning_rate=0.1), quadratic)
    theirs = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.1)
    for point, _ in asked:
        torch.testing.assert_close(point, theirs.detach())
        theirs.grad = quadratic(theirs.detach())[1]
        optimizer.step()
    torch.testing.assert_close(found, theirs.detach())


def test_the_papers_descent() -> None:
    """MXNet's SGD: momentum on rate * (clipped gradient + weight decay), the rate times 0.9 after every 10 updates."""
    start = 30 * draws(4, dtype=torch.float64) - 15
    found, asked = drive(clipped_sgd(start, 25, still=0.0), quadratic)
    point, speed = start.numpy().copy(), np.zeros(4)
    for turn, (seen, _) in enumerate(asked):
        np.testing.assert_allclose(seen, point, rtol=1e-12)
        gradient = np.clip(quadratic(torch.tensor(point))[1].numpy(), -10, 10)
        speed = 0.9 * speed - 0.1 * 0.9 ** (turn // 10) * (gradient + 5e-4 * point)
        point = point + speed
    np.testing.assert_allclose(found, point, rtol=1e-12)
    assert len(asked) == 25


def test_the_papers_stop_rule() -> None:
    _, asked = drive(clipped_sgd(torch.full((4,), 100.0), 1000), lambda point: (0.0, torch.zeros_like(point)))
    assert len(asked) == 1  # weight decay alone moves the numbers by less than 0.5 %
    _, asked = drive(clipped_sgd(torch.full((4,), 1.0), 9), lambda point: (0.0, torch.ones_like(point)))
    assert len(asked) == 9


def test_minimizers_do_not_touch_their_start() -> None:
    for name in MINIMIZERS:
        start = draws(5)
        before = start.clone()
        drive(find_minimizer(name, 5)(start), lambda point: (float(point.sum()), torch.ones_like(point)))
        assert torch.equal(start, before)


@pytest.mark.parametrize(
    ("name", "evaluations", "words"), [("newton", 5, "lbfgs, adam, paper"), ("lbfgs", 0, "at least 1"), ("adam", 2.5, "whole number")]
)
def test_wrong_questions(name: str, evaluations: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        find_minimizer(name, evaluations)  # type: ignore[arg-type]
