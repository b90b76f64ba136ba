"""Convolution + ReLU or ReLU6 in one operation on a CPU (oneDNN): results are written to memory once. Faster derivatives of small kernels.

For optimization only: NaN becomes zero, which would hide an overflowing network in measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Numbers = Sequence[int]
Clip = tuple[float, float]
Border = tuple[int, int, int, int]
"""Zeros around a map, as :func:`torch.nn.functional.pad` takes them: left, right, above, below."""

_NO_BORDER: Border = (0, 0, 0, 0)
_KEPT = 4
"""So many preparations are kept: two sizes of maps, forward and back."""
_T = TypeVar("_T")


class FusedConvolution:
    """A convolution clipped to a range, differentiable with respect to its values; it runs in autocast's number format.

    Its kernels are brought into oneDNN's order once for each size of map, not at each call.

    Args:
        kernels, bias, stride, padding, dilation, groups: As :func:`torch.conv2d` takes them.
        clip: The bounds: (0, inf) is a ReLU, (0, 6) a ReLU6; None: not clipped.
    """

    def __init__(
        self,
        kernels: Tensor,
        bias: Tensor | None,
        stride: Numbers,
        padding: Numbers,
        dilation: Numbers,
        groups: int,
        *,
        clip: Clip | None = None,
    ) -> None:
        self.kernels, self.bias, self.clip = kernels, bias, clip
        self.stride, self.padding, self.dilation, self.groups = tuple(stride), tuple(padding), tuple(dilation), groups
        self.is_pointwise = groups == 1 and kernels.shape[2:] == (1, 1)
        self.is_depthwise = groups > 1 and groups == len(kernels) and kernels.shape[1] == 1
        self._prepared: dict[Any, Any] = {}

    @classmethod
    def of(
        cls, kernels: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int, *, clip: Clip | None
    ) -> FusedConvolution | None:
        """The convolution with these arguments, or None where this is not faster or not supported by the device or this build of torch.

        It is faster where there is something to clip, and for pointwise (1x1) and depthwise kernels, whose derivative is faster here.
        """
        numbers = all(isinstance(one, Sequence) and not isinstance(one, str) for one in (stride, padding, dilation))
        if not numbers or kernels.device.type != "cpu" or kernels.requires_grad:
            return None
        if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
            return None
        found = cls(kernels, bias, stride, padding, dilation, groups, clip=clip)
        return found if clip or found.is_pointwise or found.is_depthwise else None

    def takes(self, values: Tensor) -> bool:
        """Whether it can be used for these: maps, in a number format that the processor supports."""
        kind = _kind(values)
        known = kind == torch.float32 or (kind == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return known and values.ndim == 4 and values.numel() > 0 and values.device.type == "cpu"

    def spares(self, border: Border) -> bool:
        """Whether a border of zeros around the values can be left to it: to a depthwise one, where it is narrower than the kernels."""
        widest = zip(self._around(border), self.kernels.shape[2:], strict=True)
        return self.is_depthwise and set(self.dilation) == {1} and all(max(axis) < taps for axis, taps in widest)

    def __call__(self, values: Tensor, border: Border | None = None) -> Tensor:
        """(n k h' w') of values (n c h w), as if these had a border of zeros, see :meth:`spares`."""
        return _Fused.apply(values.to(_kind(values)), self, border or _NO_BORDER)

    def forward(self, values: Tensor, border: Border) -> Tensor:
        """The value, without its derivative."""
        packed, bias, padding = self._ready(("forward", values.dtype, values.shape, border), lambda: self._forward(values, border))
        clip = self.clip
        then = ("none", []) if clip is None else ("relu", []) if clip == (0, math.inf) else ("hardtanh", list(clip))
        return torch.ops.mkldnn._convolution_pointwise(values, packed, bias, padding, self.stride, self.dilation, self.groups, *then, "")

    def backward(self, gradient: Tensor, values: Tensor, border: Border) -> Tensor:
        """The gradient with respect to the values, from that with respect to the convolution before clipping."""
        turned = self._ready(("back", values.dtype, values.shape, border), lambda: self._turned(gradient, values, border))
        if turned is not None:  # a convolution again: forward is faster than backward
            packed, padding, spread = turned
            if spread is not None:
                held, rows, columns = spread
                held[:, :, rows, columns] = gradient
                gradient = held
            return torch.ops.mkldnn._convolution_pointwise(gradient, packed, None, padding, (1, 1), (1, 1), self.groups, "none", [], "")
        kind = torch.float32 if self.is_depthwise else values.dtype  # of depthwise ones there is no fast derivative in bfloat16
        given = gradient.to(kind), values.to(kind), self.kernels.to(kind)
        plan = None, self.stride, self.padding, self.dilation, False, (0, 0), self.groups, (True, False, False)
        return torch.ops.aten.convolution_backward(*given, *plan)[0].to(values.dtype)

    def _ready(self, key: Any, prepare: Callable[[], _T]) -> _T:
        if key not in self._prepared:
            if len(self._prepared) >= _KEPT:
                self._prepared.clear()
            self._prepared[key] = prepare()
        return self._prepared[key]

    def _around(self, border: Border) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros before and after a map, along each axis."""
        (high, wide), (left, right, above, below) = self.padding, border
        return (high + above, high + below), (wide + left, wide + right)

    def _forward(self, values: Tensor, border: Border) -> tuple[Tensor, Tensor | None, Numbers]:
        """Kernels, bias and padding: as many zeros before a map as after it. Where there are fewer before, kernels begin with zeros."""
        around = self._around(border)
        wider = [n for before, after in reversed(around) for n in (max(0, after - before), max(0, before - after))]
        kernels = self.kernels.to(values.dtype)
        kernels, padding = F.pad(kernels, wider) if any(wider) else kernels, [max(axis) for axis in around]
        bias = None if self.bias is None else self.bias.to(values.dtype)
        return _packed(kernels, padding, self.stride, self.dilation, self.groups, values.shape), bias, padding

    def _turned(self, gradient: Tensor, values: Tensor, border: Border) -> Any:
        """The convolution that is the derivative: kernels, padding, and for strides a map of zeros and where in it gradients belong.

        None if there is none. Along each axis, value y has a part in gradient i through tap y + before - stride*i.
        """
        if set(self.dilation) != {1} or not (self.is_depthwise or (self.is_pointwise and set(self.stride) == {1})):
            return None
        padding: list[int] = []
        sides: list[int] = []
        places: list[slice] = []
        lengths = zip(self._around(border), self.kernels.shape[2:], self.stride, gradient.shape[2:], values.shape[2:], strict=True)
        for (before, _), taps, stride, count, length in lengths:
            reach = stride * (count - 1) + 1
            zeros = min(taps - 1 - before, length + before - reach)  # as many after the gradients as before them; others are held
            if zeros < 0:
                return None
            first = taps - 1 - before - zeros
            padding.append(zeros)
            sides.append(length + taps - 1 - 2 * zeros)
            places.append(slice(first, first + reach, stride))
        kernels = self.kernels.transpose(0, 1) if self.groups == 1 else self.kernels.flip(2, 3)
        shape = (*gradient.shape[:2], *sides)
        kernels = kernels.to(values.dtype).contiguous(memory_format=torch.channels_last)
        packed = _packed(kernels, padding, (1, 1), (1, 1), self.groups, shape)
        if sides == [*gradient.shape[2:]]:
            return packed, padding, None
        held = torch.zeros(shape, dtype=gradient.dtype).contiguous(memory_format=torch.channels_last)
        return packed, padding, (held, *places)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, convolution: FusedConvolution, border: Border) -> Tensor:
        result = convolution.forward(values, border)
        ctx.convolution, ctx.border = convolution, border
        ctx.save_for_backward(values, *([] if convolution.clip is None else [result]))
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (values, *result), passed, clip = ctx.saved_tensors, grads[0], ctx.convolution.clip
        if clip is not None:
            clipping = torch.ops.aten.threshold_backward if math.isinf(clip[1]) else torch.ops.aten.hardtanh_backward
            passed = clipping(passed, result[0], *(clip[:1] if math.isinf(clip[1]) else clip))
        return ctx.convolution.backward(passed, values, ctx.border), None, None


def _kind(values: Tensor) -> torch.dtype:
    """The number format that a convolution of the values runs in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else values.dtype


def _packed(kernels: Tensor, padding: Numbers, stride: Numbers, dilation: Numbers, groups: int, shape: Sequence[int]) -> Tensor:
    """Kernels in the order in which oneDNN wants them for maps of that shape."""
    return torch.ops.mkldnn._reorder_convolution_weight(kernels, padding, stride, dilation, groups, list(shape))
