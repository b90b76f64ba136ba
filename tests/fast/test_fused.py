"""Convolutions that are one operation with their activation, and derivatives of small kernels, against torch's own in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from convscope.fast.fused import FusedConvolution
from hand_built import draws

CASES = {
    "pointwise": (12, 8, 1, 1, 0, 1),
    "pointwise, every second": (12, 8, 1, 2, 0, 1),
    "pointwise, padded": (12, 8, 1, 1, 1, 1),
    "depthwise": (12, 12, 3, 1, 1, 12),
    "depthwise, wide": (12, 12, 5, 1, 2, 12),
    "depthwise, even": (12, 12, 4, 1, 1, 12),
    "depthwise, unpadded": (12, 12, 3, 1, 0, 12),
    "depthwise, padded beyond": (12, 12, 3, 1, 4, 12),
    "depthwise, every second": (12, 12, 3, 2, 1, 12),
    "depthwise, multiplied": (12, 24, 3, 1, 1, 12),
    "grouped": (12, 12, 3, 1, 1, 4),
    "one channel": (1, 1, 3, 1, 1, 1),
}
"""{name: (channels in, out, side of the kernel, stride, padding, groups)}"""


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("clip", [None, (0, math.inf), (0, 0.4)], ids=["linear", "ReLU", "clipped"])
@pytest.mark.parametrize("case", CASES)
def test_value_and_derivative(case: str, clip: tuple[float, float] | None, kind: torch.dtype) -> None:
    if kind == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 on this processor")
    inside, outside, side, stride, padding, groups = CASES[case]
    images = (draws(2, inside, 11, 13) - 0.5).to(kind)
    kernels, bias = ((draws(*shape) - 0.5).to(kind) for shape in ((outside, inside // groups, side, side), (outside,)))
    options = (stride, stride), (padding, padding), (1, 1), groups

    def run(values: Tensor, *, fused: bool) -> list[Tensor]:
        values = values.detach().requires_grad_()
        if fused:
            convolution = FusedConvolution(kernels, bias, *options, clip=clip)
            value = convolution(values.contiguous(memory_format=torch.channels_last))
        else:
            value = torch.conv2d(values, kernels.double(), bias.double(), *options)
            value = value if clip is None else value.clamp(*clip)
        weights = draws(*value.shape, seed=5).to(value.dtype)
        return [value.detach().double(), torch.autograd.grad((value * weights).sum(), values)[0].double()]

    near = 1e-5 if kind == torch.float32 else 0.1  # rounding takes some values past a bound
    for found, exact in zip(run(images, fused=True), run(images.double(), fused=False), strict=True):
        assert found.shape == exact.shape
        assert (found - exact).norm() <= near * exact.norm()


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_order_in_memory_stays(order: torch.memory_format) -> None:
    images = draws(2, 6, 11, 8).contiguous(memory_format=order).requires_grad_()
    for kernels, groups in ((draws(8, 6, 1, 1), 1), (draws(6, 1, 3, 3), 6)):
        value = FusedConvolution(kernels, None, (1, 1), (0, 0), (1, 1), groups)(images)
        assert value.is_contiguous(memory_format=order)


def test_changed_kernels_are_noticed() -> None:
    kernels, bias, images = draws(6, 1, 3, 3), draws(6), draws(2, 6, 9, 9).requires_grad_()
    convolution = FusedConvolution(kernels, bias, (2, 2), (1, 1), (1, 1), 6)
    before = convolution(images)
    (slope,) = torch.autograd.grad(before.sum(), images)
    kernels.mul_(2)
    bias.mul_(2)
    after = convolution(images)
    (steeper,) = torch.autograd.grad(after.sum(), images)
    torch.testing.assert_close(after, 2 * before)
    torch.testing.assert_close(steeper, 2 * slope)


def test_second_derivatives_are_refused() -> None:
    convolution, images = (
        FusedConvolution(draws(8, 6, 1, 1), None, (1, 1), (0, 0), (1, 1), 1, clip=(0, 6)),
        draws(2, 6, 5, 5).requires_grad_(),
    )
    (slope,) = torch.autograd.grad(convolution(images).square().sum(), images, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_one_convolution_for_maps_of_any_size() -> None:
    kernels = draws(6, 1, 3, 3) - 0.5
    convolution = FusedConvolution(kernels, None, (2, 2), (1, 1), (1, 1), 6)
    for side in (9, 12, 7, 9, 8, 16, 9):
        values, plain = ((draws(2, 6, side, side) - 0.5).to(kind).requires_grad_() for kind in (torch.float32, torch.float64))
        exact = torch.conv2d(plain, kernels.double(), None, 2, 1, 1, 6)
        found = convolution(values)
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
        slopes = [torch.autograd.grad(one.square().sum(), given)[0].double() for one, given in ((found, values), (exact, plain))]
        torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)


def test_which_convolutions_are_faster() -> None:
    def made(*shape: int, groups: int = 1, clip: tuple[float, float] | None = None) -> FusedConvolution | None:
        return FusedConvolution.of(torch.zeros(*shape), None, (1, 1), (0, 0), (1, 1), groups, clip=clip)

    assert made(8, 12, 1, 1) and made(12, 1, 5, 5, groups=12) and made(8, 12, 3, 3, clip=(0, 6))
    assert not made(8, 12, 3, 3) and not made(24, 1, 3, 3, groups=12) and not made(8, 4, 1, 1, groups=3)
