"""Fused convolution + ReLU or ReLU6 on a CPU (oneDNN): the result is written to memory once. Faster derivatives of small kernels.

For optimization only: NaN becomes zero, which would hide an overflowing network in measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Numbers = Sequence[int]
Clip = tuple[float, float]


def can_fuse(values: Tensor, kernels: Tensor, stride: Any, padding: Any, dilation: Any) -> bool:
    """Whether :func:`conv_clip` can take these: on a CPU, frozen kernels, a number format and a build of torch that support it."""
    numbers = all(isinstance(one, Sequence) and not isinstance(one, str) for one in (stride, padding, dilation))
    if not numbers or values.ndim != 4 or values.device.type != "cpu" or kernels.requires_grad or not values.numel():
        return False
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    kind = _kind(values)
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def small(kernels: Tensor, groups: int) -> bool:
    """Whether these are pointwise (1x1) or depthwise kernels, whose derivative is faster here."""
    return (groups == 1 and kernels.shape[2:] == (1, 1)) or _depthwise(kernels, groups)


def conv_clip(
    values: Tensor,
    kernels: Tensor,
    bias: Tensor | None,
    stride: Numbers,
    padding: Numbers,
    dilation: Numbers,
    groups: int,
    *,
    clip: Clip | None,
) -> Tensor:
    """A convolution clipped to a range, (n k h' w') of values (n c h w), differentiable with respect to the values.

    Its other arguments are those of :func:`torch.conv2d`; it runs in autocast's number format.

    Args:
        clip: The bounds: (0, inf) is a ReLU, (0, 6) a ReLU6; None: not clipped.
    """
    kind = _kind(values)
    cast = values.to(kind), kernels.to(kind), None if bias is None else bias.to(kind)
    return _ConvClip.apply(*cast, tuple(stride), tuple(padding), tuple(dilation), groups, clip)


def _kind(values: Tensor) -> torch.dtype:
    """The number format that a convolution of the values runs in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else values.dtype


def _pointwise(*given: Any) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(*given)


class _ConvClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, kernels: Tensor, bias: Tensor | None, *plan: Any) -> Tensor:
        stride, padding, dilation, groups, clip = ctx.plan = plan
        then = ("none", []) if clip is None else ("relu", []) if clip == (0, math.inf) else ("hardtanh", list(clip))
        result = _pointwise(values, kernels, bias, padding, stride, dilation, groups, *then, "")
        ctx.save_for_backward(values, kernels, *([] if clip is None else [result]))
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, kernels, *result = ctx.saved_tensors
        stride, padding, dilation, groups, clip = ctx.plan
        passed = grads[0]
        if clip is not None:
            clipping = torch.ops.aten.threshold_backward if math.isinf(clip[1]) else torch.ops.aten.hardtanh_backward
            passed = clipping(passed, result[0], *(clip[:1] if math.isinf(clip[1]) else clip))
        if {*stride, *dilation} == {1} and (turned := _turned(kernels, padding, groups)) is not None:  # forward is faster than backward
            return _pointwise(passed, turned[0], None, turned[1], stride, dilation, groups, "none", [], ""), *[None] * 7
        kind = values.dtype
        if _depthwise(kernels, groups):  # of which there is no fast derivative in bfloat16
            passed, values, kernels = passed.float(), values.float(), kernels.float()
        arguments = passed, values, kernels, None, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        return torch.ops.aten.convolution_backward(*arguments)[0].to(kind), *[None] * 7


def _depthwise(kernels: Tensor, groups: int) -> bool:
    return groups > 1 and groups == len(kernels) and kernels.shape[1] == 1


def _turned(kernels: Tensor, padding: Numbers, groups: int) -> tuple[Tensor, Numbers] | None:
    """Kernels and padding of the convolution that is the derivative of a small one of stride 1; None if there is none."""
    if groups == 1 and kernels.shape[2:] == (1, 1):
        back = kernels.transpose(0, 1)
    elif _depthwise(kernels, groups):
        back = kernels.flip(2, 3)
    else:
        return None
    around = [side - 1 - width for side, width in zip(kernels.shape[2:], padding, strict=True)]
    return None if min(around) < 0 else (back.contiguous(memory_format=torch.channels_last), around)
