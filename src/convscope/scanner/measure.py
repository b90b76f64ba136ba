"""The forward pass of a scan over one batch: per-image statistics of every channel, reduced while each map is still in the CPU cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convscope.scope import Scope
from convscope.scope.layers import Layer

SAMPLES = 16
"""Positions of each map that are sampled for the histograms."""
_CHUNK = 2**18
"""Values reduced at a time on a CPU: 1 MB, so that maximum, sum and count read memory once (measured: half the time of three passes)."""
_PLASTIC = 1.32471795724474602596
"""Root of x^3 = x + 1; steps of its inverse powers fill the unit square most evenly (the R2 sequence)."""


class ChannelStatistics(NamedTuple):
    """Per-image statistics of a layer's channels over the positions of their maps.

    Attributes:
        maximum: Over positions, float32 (n c).
        mean: Over positions, float32 (n c).
        position: y * w + x of the maximum; of equals the first in reading order, int32 (n c).
        positive: Number of positions > 0, int32 (n c).
        samples: Values at sampled positions, the same for all channels, float32 (n s c).
    """

    maximum: Tensor
    mean: Tensor
    position: Tensor
    positive: Tensor
    samples: Tensor


@dataclass(frozen=True)
class Measured:
    """The :class:`ChannelStatistics` of all layers as arrays, channels concatenated over layers; `samples` has an entry per layer."""

    maximum: np.ndarray
    mean: np.ndarray
    position: np.ndarray
    positive: np.ndarray
    samples: list[Tensor]


def measure(scope: Scope, images: Tensor, layers: Sequence[str], numbers: Sequence[int]) -> Measured:
    """One forward pass of a batch; each layer's map is reduced as soon as it is computed.

    Args:
        scope: The network, fastest within a session.
        images: (n c h w) in [0,1].
        layers: Layer names.
        numbers: Image numbers, (n); they alone decide which positions are sampled.

    Returns:
        Statistics in the order of `layers`; `samples` stay on the scope's device.
    """
    found = scope.observe(images, layers, lambda layer, value: reduce_maps(as_maps(layer, value), numbers))
    parts = [found[name] for name in layers]
    maximum, mean, position, positive = (torch.cat([part[field] for part in parts], 1).cpu().numpy() for field in range(4))
    return Measured(maximum, mean, position, positive, [part.samples for part in parts])


def as_maps(layer: Layer, value: Tensor) -> Tensor:
    """A layer's value as maps (n h w c): a vector has one position, a sequence is one column."""
    value = layer.channels_first(value)
    if value.ndim == 4:
        return value.permute(0, 2, 3, 1)
    return value.flatten(2)[..., None].permute(0, 2, 3, 1) if value.ndim > 2 else value[:, None, None]


def reduce_maps(maps: Tensor, numbers: Sequence[int]) -> ChannelStatistics:
    """The statistics of maps (n h w c), in one pass over memory.

    Rows are reduced over x first. The position of the maximum is then searched in the first row that holds it.
    """
    n, h, w, c = maps.shape
    rows = maps.contiguous().view(n * h, w, c)
    high, total, above = _of_rows(rows)
    high, total, above = (values.view(n, h, c) for values in (high, total, above))
    maximum = high.amax(1)
    y = _first(high, maximum)
    row = rows.view(n, h, w, c).gather(1, y[:, None, None].expand(n, 1, w, c))[:, 0]
    positions = (y * w + _first(row, maximum)).int()
    mean = (total.sum(1, dtype=torch.float64) / (h * w)).float()
    chosen = sample_positions(tuple(numbers), h, w) + torch.arange(n, dtype=torch.int64, device="cpu")[:, None] * (h * w)
    samples = rows.view(n * h * w, c)[chosen.to(maps.device)].float()
    return ChannelStatistics(maximum.float(), mean, positions, above.sum(1, dtype=torch.int32), samples)


def _of_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum, sum and number of values > 0 of (r w c) over w.

    A float is > 0 if its bits are an integer > 0; clamping integers is several times as fast as comparing floats.
    """
    r, w, c = rows.shape
    step = max(1, _CHUNK // (w * c)) if rows.device.type == "cpu" else r
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    high = torch.empty(r, c, dtype=rows.dtype, device=rows.device)
    total = torch.empty(r, c, dtype=torch.float32, device=rows.device)
    above = torch.empty(r, c, dtype=torch.int32, device=rows.device)
    ones = torch.empty(min(step, r), w, c, dtype=integer, device=rows.device)
    for start in range(0, r, step):
        part = rows[start : start + step]
        out = slice(start, start + len(part))
        torch.amax(part, 1, out=high[out])
        torch.sum(part, 1, dtype=torch.float32, out=total[out])
        torch.sum(torch.clamp(part.view(integer), 0, 1, out=ones[: len(part)]), 1, dtype=torch.int32, out=above[out])
    return high, total, above


def _first(values: Tensor, maximum: Tensor) -> Tensor:
    """The first index along axis 1 of (n k c) that holds the maximum (n c): argmax, but many times as fast on this layout.

    The sign of the difference is 0 at the maximum and -1 elsewhere; of weights k, k - 1, ... 1 there, the largest is the first.
    """
    k = values.shape[1]
    countdown = torch.arange(k, 0, -1, dtype=torch.float32, device=values.device)[None, :, None]
    there = (values - maximum[:, None]).float().sign_().add_(1).mul_(countdown).amax(1)
    return (k - there.long()).clamp_(0, k - 1)  # in range also for values that are not finite


@lru_cache(64)  # many layers have the same map size
def sample_positions(numbers: tuple[int, ...], h: int, w: int) -> Tensor:
    """The positions y * w + x at which maps of (h, w) are sampled, (n s), with s = 16, or 1 for a single position.

    Image i takes points 16 i .. 16 i + 15 of the R2 sequence, which are spread evenly within a map and, over images, over all positions.
    Nothing is random: an image has the same samples in any batch, shard or process.
    """
    if h * w == 1:
        return torch.zeros(len(numbers), 1, dtype=torch.int64, device="cpu")
    points = np.asarray(numbers, np.float64)[:, None] * SAMPLES + np.arange(SAMPLES)
    y, x = (np.floor(size * np.modf(0.5 + points / _PLASTIC**power)[0]) for size, power in ((h, 1), (w, 2)))
    return torch.from_numpy((y * w + x).astype(np.int64))


def map_size(layer: Layer) -> tuple[int, int]:
    """(height, width) of a layer's map, as :func:`as_maps` lays it out."""
    spatial = layer.spatial
    return (spatial[0], spatial[1]) if len(spatial) == 2 else (math.prod(spatial), 1)
