"""Convolutions with a quarter of the multiplications against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.fast import winograd
from convscope.fast.winograd import Winograd
from convscope.optimize.objectives import unit
from convscope.scope import Inputs, Scope
from hand_built import draws, seeded

Shape = tuple[int, int]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rows", [1, 1000], ids=["row by row", "all at once"])
@pytest.mark.parametrize(
    ("size", "padding"),
    [((24, 24), (1, 1)), ((25, 31), (1, 1)), ((9, 40), (0, 0)), ((23, 5), (2, 2)), ((11, 13), (0, 2)), ((3, 3), (0, 0)), ((1, 1), (1, 1))],
)
def test_values_and_derivatives_are_torchs(size: Shape, padding: Shape, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_FEWEST_TILES", 0)
    monkeypatch.setattr(winograd, "_CACHED", 0)
    monkeypatch.setattr(winograd, "_ROWS", rows)
    kernels, bias = normal(6, 4, 3, 3, seed=1), normal(6, seed=2)
    values = normal(2, 4, *size, seed=3).requires_grad_()
    plain, ours = F.conv2d(values, kernels, bias, 1, padding), Winograd(kernels, bias, padding)(values)
    seed = normal(*plain.shape, seed=4)
    (expected,), (found,) = torch.autograd.grad(plain, values, seed), torch.autograd.grad(ours, values, seed)
    torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_the_way_back_can_be_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_FEWEST_TILES", 0)
    values = normal(1, 2, 5, 6).requires_grad_()
    convolution = Winograd(normal(3, 2, 3, 3, seed=1), None, (1, 1))
    assert torch.autograd.gradcheck(convolution, (values,)) and torch.autograd.gradgradcheck(convolution, (values,))


def test_rounding_and_batch_mates() -> None:
    """float32: a few units in the last place of the root mean square, and the same bits in any batch."""
    kernels, bias = normal(128, 128, 3, 3, seed=1).float() / 34, normal(128, seed=2).float()
    values = normal(3, 128, 28, 30, seed=3).float().contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = Winograd(kernels, bias, (1, 1))(values)
    exact = F.conv2d(values.double(), kernels.double(), bias.double(), 1, 1)
    assert ours.dtype == torch.float32
    assert float(((ours - exact).norm() / exact.norm()).detach()) < 5e-6
    seed = normal(*ours.shape, seed=4).float()
    (slope,) = torch.autograd.grad(ours, values, seed)
    for one in range(3):
        alone = values[one : one + 1].detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        value = Winograd(kernels, bias, (1, 1))(alone)
        assert torch.equal(value[0], ours[one])
        assert torch.equal(torch.autograd.grad(value, alone, seed[one : one + 1])[0][0], slope[one])


@pytest.mark.parametrize(
    ("kernels", "stride", "padding", "dilation", "groups"),
    [
        (draws(128, 128, 3, 3), [1, 1], [1, 1], [1, 1], 1),
        (draws(256, 128, 3, 3), [1, 1], [1, 1], [1, 1], 2),
        (draws(256, 128, 3, 3), [2, 2], [1, 1], [1, 1], 1),
        (draws(256, 128, 3, 3), [1, 1], [2, 2], [2, 2], 1),
        (draws(256, 128, 3, 3), [1, 1], [3, 3], [1, 1], 1),
        (draws(256, 128, 3, 3), [1, 1], "same", [1, 1], 1),
        (draws(256, 128, 1, 3), [1, 1], [0, 1], [1, 1], 1),
        (draws(256, 128, 3, 3).requires_grad_(), [1, 1], [1, 1], [1, 1], 1),
        (draws(256, 128, 3, 3).bfloat16(), [1, 1], [1, 1], [1, 1], 1),
    ],
    ids=["few channels", "grouped", "strided", "dilated", "far padding", "padding by name", "1x3", "trained", "bfloat16"],
)
def test_other_convolutions_are_left_to_torch(
    kernels: Tensor, stride: list[int], padding: list[int] | str, dilation: list[int], groups: int
) -> None:
    assert Winograd.of(kernels, None, stride, padding, dilation, groups) is None


def wide() -> nn.Module:
    """Two wide convolutions, the second at half the size."""
    first, second = nn.Conv2d(3, 128, 3, padding=1), nn.Conv2d(128, 256, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(128), nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(256, 128, 3), nn.ReLU())


@pytest.mark.parametrize(("side", "precision", "runs"), [(56, "float32", 4), (32, "float32", 2), (16, "float32", 0), (56, "bfloat16", 0)])
def test_it_is_for_large_maps_in_float32_lean_sessions(side: int, precision: str, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scope, pictures = Scope(seeded(wide), Inputs(side)), draws(1, 3, side, side)
    last = list(scope.layers)[-2]
    calls: list[Winograd] = []
    run = Winograd.run
    monkeypatch.setattr(Winograd, "run", lambda convolution, values: (calls.append(convolution), run(convolution, values))[1])
    slopes: list[Tensor] = []
    for lean in (False, True):
        free = pictures.clone().requires_grad_()
        with scope.session(precision, lean=lean):
            value = scope.run(free, last)[last]
            scope.run(pictures, last)  # nothing leads back: left as it is
        slopes.append(torch.autograd.grad(value.square().mean(), free)[0])
        assert len(calls) == (runs if lean else 0)
    near = 1e-4 if precision == "float32" else 0.1
    assert float((slopes[1] - slopes[0]).norm() / slopes[0].norm()) < near


def test_a_visualization_is_the_same_but_for_rounding() -> None:
    scope, pictures = Scope(seeded(wide).double(), Inputs(56)), draws(2, 3, 56, 56).double()
    slopes: list[Tensor] = []
    for lean in (False, True):
        free = pictures.clone().requires_grad_()
        with scope.session(lean=lean):
            slopes.append(torch.autograd.grad(unit("6", [3, 100])(scope, free).sum(), free)[0])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-9, atol=1e-12 * float(slopes[0].abs().max()))
