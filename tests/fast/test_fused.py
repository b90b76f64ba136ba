"""Convolutions that are one operation with their activation, and derivatives of small kernels, against torch's own in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from convscope.fast.fused import conv_clip, small
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
            value = conv_clip(values.contiguous(memory_format=torch.channels_last), kernels, bias, *options, clip=clip)
        else:
            value = torch.conv2d(values, kernels.double(), bias.double(), *options)
            value = value if clip is None else value.clamp(*clip)
        weights = draws(*value.shape, seed=5).to(value.dtype)
        return [value.detach().double(), torch.autograd.grad((value * weights).sum(), values)[0].double()]

    near = 1e-5 if kind == torch.float32 else 0.1  # rounding takes some values past a bound
    for found, exact in zip(run(images, fused=True), run(images.double(), fused=False), strict=True):
        assert found.shape == exact.shape
        assert (found - exact).norm() <= near * exact.norm()


def test_which_kernels_are_small() -> None:
    assert small(torch.zeros(8, 12, 1, 1), 1) and small(torch.zeros(12, 1, 5, 5), 12)
    assert not small(torch.zeros(8, 12, 3, 3), 1) and not small(torch.zeros(24, 1, 3, 3), 12) and not small(torch.zeros(8, 4, 1, 1), 3)
