"""Fused convolution + ReLU on a CPU (oneDNN): the result is written to memory once.

For optimization only: NaN becomes zero, which would hide an overflowing network in measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Numbers = Sequence[int]


def can_fuse(values: Tensor, kernels: Tensor, stride: Any, padding: Any, dilation: Any) -> bool:
    """Whether :func:`conv_relu` can take these: on a CPU, frozen kernels, a number format and a build of torch that support it."""
    numbers = all(isinstance(one, Sequence) and not isinstance(one, str) for one in (stride, padding, dilation))
    if not numbers or values.ndim != 4 or values.device.type != "cpu" or kernels.requires_grad or not values.numel():
        return False
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    kind = _kind(values)
    return kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def conv_relu(
    values: Tensor, kernels: Tensor, bias: Tensor | None, stride: Numbers, padding: Numbers, dilation: Numbers, groups: int
) -> Tensor:
    """max(0, convolution), (n k h' w') of values (n c h w), differentiable with respect to the values; in autocast's number format.

    Its arguments are those of :func:`torch.conv2d`.
    """
    kind = _kind(values)
    cast = values.to(kind), kernels.to(kind), None if bias is None else bias.to(kind)
    return _ConvRelu.apply(*cast, tuple(stride), tuple(padding), tuple(dilation), groups)


def _kind(values: Tensor) -> torch.dtype:
    """The number format that a convolution of the values runs in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else values.dtype


class _ConvRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, kernels: Tensor, bias: Tensor | None, *plan: Any) -> Tensor:
        stride, padding, dilation, groups = ctx.plan = plan
        operation = torch.ops.mkldnn._convolution_pointwise
        result = operation(values, kernels, bias, padding, stride, dilation, groups, "relu", [], "")
        ctx.save_for_backward(values, kernels, result)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, kernels, result = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.plan
        passed = torch.ops.aten.threshold_backward(grads[0], result, 0)
        arguments = passed, values, kernels, None, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        return torch.ops.aten.convolution_backward(*arguments)[0], *[None] * 6
