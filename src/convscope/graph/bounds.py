"""What no picture can make a channel exceed: interval arithmetic from the box of all pictures through the network's operations.

Every value gets a lower and an upper bound for each channel, over all positions and all pictures with values in [0,1]. An operation that
is not known here has no bounds, and neither has what is computed from it: silence, never a wrong bound. Bounds widen from layer to
layer, so far from the picture they say little, except where they matter: a channel whose bound after its ReLU is 0 is dead for every
picture, trained away (gamma near 0 and beta <= 0, say) or badly biased.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convscope.graph.graph import Graph, Node, Reference

_SINGLE = 2.0**-24
_REDUCED = 2.0**-8
"""Relative rounding of one product: float32, and the coarsest format a product may be computed in (bfloat16)."""
_COLUMNS = 512
"""Outputs of a dense layer that are bounded at a time."""
_SAME = frozenset(
    "alias detach clone contiguous lift_fresh native_dropout dropout max_pool2d max_pool2d_with_indices adaptive_max_pool2d "
    "adaptive_avg_pool2d _adaptive_avg_pool2d mean amax upsample_nearest2d reflection_pad2d replication_pad2d".split()
)
"""Operations whose results are among their inputs or between them, channel by channel."""
_RISING: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": torch.nn.functional.hardsigmoid,
    "clamp_min": torch.clamp_min,
    "clamp_max": torch.clamp_max,
    "clamp": torch.clamp,
    "hardtanh": torch.nn.functional.hardtanh,
    "softplus": torch.nn.functional.softplus,
    "exp": torch.exp,
}
"""Functions that never fall: the bounds of the result are the results of the bounds."""
_EXACT = frozenset("relu clamp_min clamp_max clamp hardtanh".split())
"""Those of them that round nothing."""
_DIPPING: dict[str, tuple[Callable[..., Tensor], float]] = {
    "silu": (torch.nn.functional.silu, -0.2785),
    "gelu": (torch.nn.functional.gelu, -0.1701),
    "hardswish": (torch.nn.functional.hardswish, -0.3751),
    "mish": (torch.nn.functional.mish, -0.3089),
}
"""Functions that fall to a lowest value and rise from there: the largest result is at an end of the interval."""


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bound of each channel, float64 (c)."""

    low: Tensor
    high: Tensor

    def widened(self, by: Tensor) -> Bounds:
        """Both moved outwards."""
        return Bounds(self.low - by, self.high + by)

    def with_zero(self) -> Bounds:
        """Zero included, as padding may bring it in."""
        return Bounds(self.low.clamp(max=0), self.high.clamp(min=0))

    @property
    def magnitude(self) -> Tensor:
        """The largest magnitude, (c)."""
        return torch.maximum(self.low.abs(), self.high.abs())


def bounds_of(graph: Graph, mean: Sequence[float], std: Sequence[float], *, exact: bool) -> list[Bounds | None]:
    """Bounds of every node's value.

    Args:
        graph: The network's operations, recorded on normalized pictures.
        mean, std: The normalization.
        exact: Whether products are computed in float32; otherwise the bounds allow for bfloat16.

    Returns:
        A list as long as ``graph.nodes``; None where nothing is known.
    """
    shift, scale = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    box = Bounds((0 - shift) / scale, (1 - shift) / scale)
    found: list[Bounds | None] = [box.widened(box.magnitude * 1e-6)]
    unit = _SINGLE if exact else _REDUCED
    for node in graph.nodes[1:]:
        known = _step(node, found, graph.nodes, unit)
        found.append(known if known is not None and _usable(known, node) else None)
    return found


def _usable(known: Bounds, node: Node) -> bool:
    """Whether there is a bound for each channel, and none is NaN."""
    return len(node.shape) in (2, 4) and len(known.low) == node.shape[1] and not bool((known.low.isnan() | known.high.isnan()).any())


def _step(node: Node, found: Sequence[Bounds | None], nodes: Sequence[Node], unit: float) -> Bounds | None:
    name = node.operation.removesuffix("_")
    arguments = [found[value.node] if isinstance(value, Reference) else value for value in node.arguments]
    if node.place != 0 and name not in ("split", "split_with_sizes", "chunk", "unbind"):
        return None
    rule = _RULES.get(name)
    if rule is None and (name in _SAME or name in _RISING or name in _DIPPING):
        rule = _pointwise
    if rule is None or any(isinstance(value, Reference) and found[value.node] is None for value in _flat(node.arguments)):
        return None
    sources = [nodes[value.node] for value in _flat(node.arguments) if isinstance(value, Reference)]
    return rule(name, node, sources, arguments, found, unit)


def _flat(values: Any) -> list[Any]:
    return [item for value in values for item in (_flat(value) if isinstance(value, (list, tuple)) else [value])]


def _pointwise(name: str, node: Node, sources: Sequence[Node], arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    source = arguments[0]
    if not isinstance(source, Bounds) or len(sources) != 1 or any(isinstance(value, Tensor) for value in arguments[1:]):
        return None
    if name in _SAME:
        return source.widened(source.magnitude * 8 * unit) if _keeps_channels(name, node, sources[0], arguments) else None
    keywords = dict(node.keywords or {})
    if name in _RISING:
        low, high = (_RISING[name](values, *arguments[1:], **keywords) for values in (source.low, source.high))
        slack = 0.0 if name in _EXACT else 8 * max(unit, 1e-6)
        return Bounds(low - slack * low.abs(), high + slack * high.abs())
    function, lowest = _DIPPING[name]
    low, high = (function(values, **keywords) for values in (source.low, source.high))
    high = torch.maximum(low, high)
    return Bounds(torch.full_like(low, lowest * (1 + unit)), high + 8 * max(unit, 1e-6) * high.abs())


def _keeps_channels(name: str, node: Node, source: Node, arguments: list[Any]) -> bool:
    """Whether means and the like run over positions only."""
    if name not in ("mean", "amax"):
        return True
    axes = arguments[1] if len(arguments) > 1 else None
    reduced = {axis % len(source.shape) for axis in ([axes] if isinstance(axes, int) else axes or [])}
    return bool(reduced) and reduced <= {2, 3} and node.shape[:2] == source.shape[:2]


def _average(_name: str, _node: Node, _sources: Any, arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    source, padding = arguments[0], arguments[3] if len(arguments) > 3 else 0
    padded = source.with_zero() if any(_flat([padding])) else source
    return padded.widened(padded.magnitude * 8 * unit)


def _convolution(_name: str, _node: Node, _sources: Any, arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    source, weight, bias, _stride, padding, _dilation, transposed, _output_padding, groups = arguments[:9]
    if not isinstance(source, Bounds) or not isinstance(weight, Tensor) or transposed or weight.ndim != 4:
        return None
    weight = weight.detach().double().cpu()
    padded = source.with_zero() if any(_flat([padding])) else source
    spread = weight.shape[0] // groups
    positive, negative = weight.clamp(min=0).sum((2, 3)), weight.clamp(max=0).sum((2, 3))

    def through(up: Tensor, down: Tensor) -> Tensor:
        """For each filter, its group's channels weighted: (o i) x (g i) -> (o)."""
        ups, downs = (values.view(groups, -1).repeat_interleave(spread, 0) for values in (up, down))
        return (positive * ups + negative * downs).sum(1)

    offset = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double().cpu()
    total = through(padded.magnitude, -padded.magnitude) + offset.abs()
    made = Bounds(through(padded.low, padded.high) + offset, through(padded.high, padded.low) + offset)
    return made.widened(total * _rounding(weight[0].numel(), unit))


def _rounding(terms: int, unit: float) -> float:
    """How far a float32 sum of `terms` products, in any order, can be off, relative to the sum of their magnitudes (with a margin for
    transformed algorithms such as Winograd's)."""
    return 8 * (2 * unit + (terms + 2) * _SINGLE)


def _dense(_name: str, _node: Node, _sources: Any, arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    bias, source, weight = arguments[:3] if len(arguments) > 2 else (None, *arguments[:2])
    if not isinstance(source, Bounds) or not isinstance(weight, Tensor) or isinstance(bias, Bounds) or weight.ndim != 2:
        return None
    offset = torch.zeros(weight.shape[1], dtype=torch.float64) if bias is None else bias.detach().double().cpu()
    middle, radius = (source.low + source.high) / 2, (source.high - source.low) / 2
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in weight.detach().split(_COLUMNS, 1):  # in double precision, the weights of a large dense layer are a gigabyte
        part = part.double().cpu()
        found.append((middle @ part, radius @ part.abs(), source.magnitude @ part.abs()))
    centre, reach, total = (torch.cat(parts) for parts in zip(*found, strict=True))
    centre = centre + offset
    return Bounds(centre - reach, centre + reach).widened((total + offset.abs()) * _rounding(len(weight), unit))


def _batch_norm(name: str, _node: Node, _sources: Any, arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    """With running statistics, a scale and a shift of each channel."""
    source, weight, bias, mean, variance = arguments[:5]
    rest = arguments[5:]
    if not name.endswith("no_training"):
        if not rest or rest[0] is not False:
            return None
        rest = rest[1:]
    if mean is None or variance is None or not isinstance(source, Bounds):
        return None
    mean, variance = mean.detach().double().cpu(), variance.detach().double().cpu()
    scale = 1 / torch.sqrt(variance + float(rest[-1]))
    scale = scale if weight is None else scale * weight.detach().double().cpu()
    shift = torch.zeros_like(mean) if bias is None else bias.detach().double().cpu()
    ends = torch.stack([(source.low - mean) * scale, (source.high - mean) * scale])
    made = Bounds(ends.amin(0) + shift, ends.amax(0) + shift)
    return made.widened(((source.magnitude + mean.abs()) * scale.abs() + shift.abs() * (scale != 0)) * 16 * unit)


def _sum(name: str, node: Node, sources: Sequence[Node], arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    one, other = _operands(arguments, sources)
    if one is None or other is None:
        return None
    factor = float((node.keywords or {}).get("alpha", 1)) * (-1 if name == "sub" else 1)
    ends = torch.stack([other.low * factor, other.high * factor])
    made = Bounds(one.low + ends.amin(0), one.high + ends.amax(0))
    return made.widened((one.magnitude + other.magnitude * abs(factor)) * 4 * unit)


def _product(name: str, _node: Node, sources: Sequence[Node], arguments: list[Any], _found: Any, unit: float) -> Bounds | None:
    one, other = _operands(arguments, sources)
    if one is None or other is None:
        return None
    if name == "div":
        if bool((other.low <= 0).any()) and bool((other.high >= 0).any()):
            return None
        other = Bounds(1 / other.high, 1 / other.low)
    ends = torch.stack([a * b for a in (one.low, one.high) for b in (other.low, other.high)])
    made = Bounds(ends.amin(0), ends.amax(0))
    return made.widened(made.magnitude * 8 * unit)


def _operands(arguments: list[Any], sources: Sequence[Node]) -> tuple[Bounds | None, Bounds | None]:
    """Two operands, of which one may be a number; values of different numbers of channels or axes are not understood."""
    if len({len(source.shape) for source in sources}) > 1:
        return None, None
    width = next((len(value.low) for value in arguments[:2] if isinstance(value, Bounds)), 0)

    def read(value: Any) -> Bounds | None:
        if isinstance(value, Bounds):
            return value if len(value.low) == width else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            return Bounds(*(torch.full((width,), float(value), dtype=torch.float64) for _ in range(2)))
        return None

    return read(arguments[0]), read(arguments[1])


def _joined(
    _name: str, node: Node, sources: Sequence[Node], _arguments: list[Any], found: Sequence[Bounds | None], *_: Any
) -> Bounds | None:
    references = [value.node for value in _flat(node.arguments) if isinstance(value, Reference)]
    axis = next((value for value in node.arguments[1:] if isinstance(value, int)), 0)
    values = [found[number] for number in references]
    given = node.arguments[0]
    if axis % len(node.shape) != 1 or len(references) != len(given) or any(value is None for value in values) or not sources:
        return None
    known = [value for value in values if value is not None]
    return Bounds(torch.cat([value.low for value in known]), torch.cat([value.high for value in known]))


def _reshaped(_name: str, node: Node, sources: Sequence[Node], arguments: list[Any], *_: Any) -> Bounds | None:
    """Flattening (1 c h w) to (1 c*h*w), and what only adds or drops axes of length 1 behind the channels."""
    source, before, after = arguments[0], sources[0].shape, node.shape
    if not isinstance(source, Bounds) or before[0] != after[0]:
        return None
    if len(after) == 2 and len(before) == 4:
        each = before[2] * before[3]
        return Bounds(source.low.repeat_interleave(each), source.high.repeat_interleave(each))
    return source if before[1] == after[1] and math.prod(before[2:]) == math.prod(after[2:]) == 1 else None


def _padded(_name: str, _node: Node, _sources: Any, arguments: list[Any], *_: Any) -> Bounds | None:
    source, value = arguments[0], float(arguments[2]) if len(arguments) > 2 else 0.0
    pads = arguments[1]
    if len(pads) > 4:
        return None
    return Bounds(source.low.clamp(max=value), source.high.clamp(min=value))


_RULES: Mapping[str, Callable[..., Bounds | None]] = {
    "convolution": _convolution,
    "addmm": _dense,
    "mm": _dense,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "miopen_batch_norm": _batch_norm,
    "avg_pool2d": _average,
    "add": _sum,
    "sub": _sum,
    "mul": _product,
    "div": _product,
    "cat": _joined,
    "view": _reshaped,
    "_unsafe_view": _reshaped,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "unsqueeze": _reshaped,
    "constant_pad_nd": _padded,
}
