"""Convolution + ReLU or ReLU6 in one operation on a CPU (oneDNN): results are written to memory once. Faster derivatives of small kernels.

For optimization only: NaN becomes zero, which would hide an overflowing network in measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Numbers = Sequence[int]
Clip = tuple[float, float]

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

    def __call__(self, values: Tensor) -> Tensor:
        """(n k h' w') of values (n c h w), in memory in the order of these."""
        return _Fused.apply(values.to(_kind(values)), self)

    def forward(self, values: Tensor) -> Tensor:
        """The value, without its derivative."""
        kind, clip, bias = values.dtype, self.clip, self.bias
        plan = self.padding, self.stride, self.dilation, self.groups
        packed = self._ready(("forward", kind, values.shape), lambda: _packed(self.kernels.to(kind), *plan, values.shape))
        then = ("none", []) if clip is None else ("relu", []) if clip == (0, math.inf) else ("hardtanh", list(clip))
        bias = None if bias is None else bias.to(kind)
        result = torch.ops.mkldnn._convolution_pointwise(values, packed, bias, *plan, *then, "")
        return result.contiguous() if values.is_contiguous() else result

    def backward(self, gradient: Tensor, values: Tensor) -> Tensor:
        """The gradient with respect to the values, from that with respect to the convolution before clipping."""
        turned = self._ready(("back", values.dtype, values.shape), lambda: self._turned(gradient, values))
        if turned is not None:  # a convolution again: forward is faster than backward
            packed, padding, spread = turned
            if spread is not None:
                sides, rows, columns = spread
                apart = torch.zeros(sides, dtype=gradient.dtype, device=gradient.device).contiguous(memory_format=torch.channels_last)
                apart[:, :, rows, columns] = gradient
                gradient = apart
            return torch.ops.mkldnn._convolution_pointwise(gradient, packed, None, padding, (1, 1), (1, 1), self.groups, "none", [], "")
        kind = torch.float32 if self.is_depthwise else values.dtype  # of depthwise ones there is no fast derivative in bfloat16
        given = gradient.to(kind), values.to(kind), self.kernels.to(kind)
        plan = None, self.stride, self.padding, self.dilation, False, (0, 0), self.groups, (True, False, False)
        return torch.ops.aten.convolution_backward(*given, *plan)[0].to(values.dtype)

    def _ready(self, what: tuple[Any, ...], prepare: Callable[[], _T]) -> _T:
        key = (*what, self.kernels._version)
        found = self._prepared.get(key)
        if found is None:
            if len(self._prepared) >= _KEPT:
                self._prepared.clear()
            found = self._prepared[key] = (prepare(),)
        return found[0]

    def _turned(self, gradient: Tensor, values: Tensor) -> Any:
        """The convolution that is the derivative: kernels, padding, and for strides the shape of a map and where in it gradients belong.

        None if there is none. Along each axis, value y has a part in gradient i through tap y + before - stride*i; elsewhere are zeros.
        """
        if set(self.dilation) != {1} or not (self.is_depthwise or (self.is_pointwise and set(self.stride) == {1})):
            return None
        padding: list[int] = []
        sides: list[int] = []
        places: list[slice] = []
        lengths = zip(self.padding, self.kernels.shape[2:], self.stride, gradient.shape[2:], values.shape[2:], strict=True)
        for before, taps, stride, count, length in lengths:
            reach = stride * (count - 1) + 1
            zeros = min(taps - 1 - before, length + before - reach)  # as many after the gradients as before them; others are in the map
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
        return packed, padding, (shape, *places)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, convolution: FusedConvolution) -> Tensor:
        result = convolution.forward(values)
        ctx.convolution = convolution
        ctx.save_for_backward(values, *([] if convolution.clip is None else [result]))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] (torch's decorator hides a name)
        (values, *result), passed, clip = ctx.saved_tensors, grads[0], ctx.convolution.clip
        if clip is not None:
            clipping = torch.ops.aten.threshold_backward if math.isinf(clip[1]) else torch.ops.aten.hardtanh_backward
            passed = clipping(passed, result[0], *(clip[:1] if math.isinf(clip[1]) else clip))
        return ctx.convolution.backward(passed, values), None


def _kind(values: Tensor) -> torch.dtype:
    """The number format that a convolution of the values runs in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else values.dtype


def _packed(kernels: Tensor, padding: Numbers, stride: Numbers, dilation: Numbers, groups: int, shape: Sequence[int]) -> Tensor:
    """Kernels in the order in which oneDNN wants them for maps of that shape."""
    return torch.ops.mkldnn._reorder_convolution_weight(kernels, padding, stride, dilation, groups, list(shape))
