"""Interval arithmetic of single tensor operations: bounds of each channel of the output from bounds of each channel of the inputs.

Every rule allows for the rounding of the network's own arithmetic, so that bounds hold for what it really computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SINGLE = 2.0**-24
REDUCED = 2.0**-8
"""Relative rounding of one product: float32, and the coarsest format a product may be computed in (bfloat16)."""
_COLUMNS = 512
"""Outputs of a dense layer that are bounded at a time."""


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bound of each channel, float64 (c)."""

    low: Tensor
    high: Tensor

    def widened(self, by: Tensor) -> Bounds:
        """Both moved outwards."""
        return Bounds(self.low - by, self.high + by)

    def with_zero(self) -> Bounds:
        """Zero included, for zero padding."""
        return Bounds(self.low.clamp(max=0), self.high.clamp(min=0))

    @property
    def magnitude(self) -> Tensor:
        """The largest magnitude, (c)."""
        return torch.maximum(self.low.abs(), self.high.abs())


@dataclass(frozen=True)
class BoundedCall:
    """One call of an operation, with bounds in place of the values that depend on the image.

    Attributes:
        name: ATen name, without the underscore of in-place forms.
        arguments, keywords: Its arguments.
        inputs: Shapes of the values that depend on the image, in order.
        shape: Of the output.
        rounding: Relative rounding of one product.
    """

    name: str
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    inputs: Sequence[tuple[int, ...]]
    shape: tuple[int, ...]
    rounding: float

    @property
    def source(self) -> Bounds | None:
        """Bounds of the only value that depends on the image; None where there are several, or tensors of weights."""
        first, *others = self.arguments
        alone = len(self.inputs) == 1 and not any(isinstance(value, (Tensor, Bounds)) for value in others)
        return first if alone and isinstance(first, Bounds) else None


Rule = Callable[[BoundedCall], Bounds | None]


def flat(values: Any) -> list[Any]:
    """Nested lists and tuples as one list."""
    return [item for value in values for item in (flat(value) if isinstance(value, (list, tuple)) else [value])]


def within(call: BoundedCall) -> Bounds | None:
    """Results are among the inputs or between them, channel by channel."""
    return None if call.source is None else call.source.widened(call.source.magnitude * 8 * call.rounding)


def within_positions(call: BoundedCall) -> Bounds | None:
    """Means and maxima over positions only."""
    axes = call.arguments[1] if len(call.arguments) > 1 else None
    reduced = {axis % len(call.inputs[0]) for axis in ([axes] if isinstance(axes, int) else axes or [])}
    return within(call) if reduced and reduced <= {2, 3} and call.shape[:2] == call.inputs[0][:2] else None


def dropout(call: BoundedCall) -> Bounds | None:
    """Switched off, it passes values on."""
    return within(call) if call.arguments[2] is False else None


def clipping(call: BoundedCall) -> Bounds | None:
    """Functions that never fall and round nothing: ReLU, clamp."""
    return _rising(call, 0.0)


def rising(call: BoundedCall) -> Bounds | None:
    """Functions that never fall: the bounds of the result are the results of the bounds."""
    return _rising(call, 8 * max(call.rounding, 1e-6))


def leaky(call: BoundedCall) -> Bounds | None:
    """Rising if no parameter (slope, alpha, scale) is negative."""
    return rising(call) if all(value >= 0 for value in (*call.arguments[1:], *call.keywords.values())) else None


def _rising(call: BoundedCall, slack: float) -> Bounds | None:
    if call.source is None:
        return None
    low, high = _applied(call, call.source)
    return Bounds(low - slack * low.abs(), high + slack * high.abs())


def falling_then_rising(lowest: float) -> Rule:
    """Functions that fall to a lowest value and rise from there (GELU, SiLU): the largest result is at an end of the interval."""

    def rule(call: BoundedCall) -> Bounds | None:
        if call.source is None:
            return None
        low, high = _applied(call, call.source)
        high = torch.maximum(low, high)
        return Bounds(torch.full_like(low, lowest * (1 + call.rounding)), high + 8 * max(call.rounding, 1e-6) * high.abs())

    return rule


def _applied(call: BoundedCall, source: Bounds) -> tuple[Tensor, Tensor]:
    """The operation's own results at both bounds."""
    function = getattr(torch.ops.aten, call.name)
    low, high = (function(values, *call.arguments[1:], **call.keywords) for values in (source.low, source.high))
    return low, high


def average_pool(call: BoundedCall) -> Bounds | None:
    padding = call.arguments[3] if len(call.arguments) > 3 else 0
    if call.source is None:
        return None
    padded = call.source.with_zero() if any(flat([padding])) else call.source
    return padded.widened(padded.magnitude * 8 * call.rounding)


def convolution(call: BoundedCall) -> Bounds | None:
    source, weight, bias, _stride, padding, _dilation, transposed, _output_padding, groups = call.arguments[:9]
    if not isinstance(source, Bounds) or not isinstance(weight, Tensor) or transposed or weight.ndim != 4:
        return None
    weight = weight.detach().double().cpu()
    padded = source.with_zero() if any(flat([padding])) else source
    repeats = weight.shape[0] // groups
    positive, negative = weight.clamp(min=0).sum((2, 3)), weight.clamp(max=0).sum((2, 3))

    def weighted(up: Tensor, down: Tensor) -> Tensor:
        """Channels of each filter's group: `up` times its positive weights plus `down` times its negative ones, (filter)."""
        ups, downs = (values.view(groups, -1).repeat_interleave(repeats, 0) for values in (up, down))
        return (positive * ups + negative * downs).sum(1)

    offset = torch.zeros(len(weight), dtype=torch.float64, device="cpu") if bias is None else bias.detach().double().cpu()
    total = weighted(padded.magnitude, -padded.magnitude) + offset.abs()
    made = Bounds(weighted(padded.low, padded.high) + offset, weighted(padded.high, padded.low) + offset)
    return made.widened(total * _sum_rounding(weight[0].numel(), call.rounding))


def _sum_rounding(terms: int, unit: float) -> float:
    """Rounding of a float32 sum of `terms` products, in any order, relative to the sum of their magnitudes (with a margin for
    transformed algorithms such as Winograd's)."""
    return 8 * (2 * unit + (terms + 2) * SINGLE)


def dense(call: BoundedCall) -> Bounds | None:
    bias, source, weight = call.arguments[:3] if len(call.arguments) > 2 else (None, *call.arguments[:2])
    if not isinstance(source, Bounds) or not isinstance(weight, Tensor) or isinstance(bias, Bounds) or weight.ndim != 2:
        return None
    offset = torch.zeros(weight.shape[1], dtype=torch.float64, device="cpu") if bias is None else bias.detach().double().cpu()
    middle, radius = (source.low + source.high) / 2, (source.high - source.low) / 2
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in weight.detach().split(_COLUMNS, 1):  # in double precision, the weights of a large dense layer are a gigabyte
        part = part.double().cpu()
        found.append((middle @ part, radius @ part.abs(), source.magnitude @ part.abs()))
    center, reach, total = (torch.cat(parts) for parts in zip(*found, strict=True))
    center = center + offset
    return Bounds(center - reach, center + reach).widened((total + offset.abs()) * _sum_rounding(len(weight), call.rounding))


def batch_norm(call: BoundedCall) -> Bounds | None:
    """With running statistics, a scale and a shift of each channel."""
    return None if len(call.arguments) < 6 or call.arguments[5] is not False else fixed_batch_norm(call)


def fixed_batch_norm(call: BoundedCall) -> Bounds | None:
    """With running statistics always; the last argument is epsilon."""
    source, weight, bias, mean, variance = call.arguments[:5]
    if mean is None or variance is None or not isinstance(source, Bounds):
        return None
    mean, variance = mean.detach().double().cpu(), variance.detach().double().cpu()
    scale = 1 / torch.sqrt(variance + float(call.arguments[-1]))
    scale = scale if weight is None else scale * weight.detach().double().cpu()
    shift = torch.zeros_like(mean) if bias is None else bias.detach().double().cpu()
    ends = torch.stack([(source.low - mean) * scale, (source.high - mean) * scale])
    made = Bounds(ends.amin(0) + shift, ends.amax(0) + shift)
    return made.widened(((source.magnitude + mean.abs()) * scale.abs() + shift.abs() * (scale != 0)) * 16 * call.rounding)


def addition(call: BoundedCall) -> Bounds | None:
    return _sum(call, float(call.keywords.get("alpha", 1)))


def subtraction(call: BoundedCall) -> Bounds | None:
    return _sum(call, -float(call.keywords.get("alpha", 1)))


def _sum(call: BoundedCall, factor: float) -> Bounds | None:
    one, other = _operands(call)
    if one is None or other is None:
        return None
    ends = torch.stack([other.low * factor, other.high * factor])
    made = Bounds(one.low + ends.amin(0), one.high + ends.amax(0))
    return made.widened((one.magnitude + other.magnitude * abs(factor)) * 4 * call.rounding)


def multiplication(call: BoundedCall) -> Bounds | None:
    return _product(call, *_operands(call))


def division(call: BoundedCall) -> Bounds | None:
    one, other = _operands(call)
    if other is None or (bool((other.low <= 0).any()) and bool((other.high >= 0).any())):
        return None
    return _product(call, one, Bounds(1 / other.high, 1 / other.low))


def _product(call: BoundedCall, one: Bounds | None, other: Bounds | None) -> Bounds | None:
    if one is None or other is None:
        return None
    ends = torch.stack([a * b for a in (one.low, one.high) for b in (other.low, other.high)])
    made = Bounds(ends.amin(0), ends.amax(0))
    return made.widened(made.magnitude * 8 * call.rounding)


def _operands(call: BoundedCall) -> tuple[Bounds | None, Bounds | None]:
    """Two operands, one of which may be a number; None if they differ in number of channels or axes."""
    if len({len(shape) for shape in call.inputs}) > 1:
        return None, None
    width = next((len(value.low) for value in call.arguments[:2] if isinstance(value, Bounds)), 0)

    def read(value: Any) -> Bounds | None:
        if isinstance(value, Bounds):
            return value if len(value.low) == width else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            return Bounds(*(torch.full((width,), float(value), dtype=torch.float64, device="cpu") for _ in range(2)))
        return None

    return read(call.arguments[0]), read(call.arguments[1])


def concatenation(call: BoundedCall) -> Bounds | None:
    """Along the channels."""
    axis = next((value for value in call.arguments[1:] if isinstance(value, int)), 0)
    parts = call.arguments[0]
    if axis % len(call.shape) != 1 or not all(isinstance(part, Bounds) for part in parts):
        return None
    return Bounds(torch.cat([part.low for part in parts]), torch.cat([part.high for part in parts]))


def reshaping(call: BoundedCall) -> Bounds | None:
    """Flattening (1 c h w) to (1 c*h*w), and what only adds or drops axes of length 1 behind the channels."""
    source, before, after = call.arguments[0], call.inputs[0], call.shape
    if not isinstance(source, Bounds) or before[0] != after[0]:
        return None
    if len(after) == 2 and len(before) == 4:
        each = before[2] * before[3]
        return Bounds(source.low.repeat_interleave(each), source.high.repeat_interleave(each))
    return source if before[1] == after[1] and math.prod(before[2:]) == math.prod(after[2:]) == 1 else None


def padding(call: BoundedCall) -> Bounds | None:
    """With a constant, along positions."""
    source, pads, value = call.arguments[0], call.arguments[1], float(call.arguments[2]) if len(call.arguments) > 2 else 0.0
    if len(pads) > 4 or not isinstance(source, Bounds):
        return None
    return Bounds(source.low.clamp(max=value), source.high.clamp(min=value))
