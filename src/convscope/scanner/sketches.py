"""Quantile sketches of many channels at once: DDSketch's buckets, counted side by side, handed over to the library for its own format.

A bucket holds values within a relative width, so a quantile read from it is within `ACCURACY` of the sampled value. Counts add up:
merging is exact, associative and commutative, which the resumable scan depends on. The mapping is the library's linearly interpolated
one at 32 buckets per octave, because there the bucket is a shift of the float's bits. (The library's own constant comes out as
32 - 1e-13, so that a value exactly between two buckets may fall to the other one, which is as near.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from ddsketch.mapping import LinearlyInterpolatedMapping
from ddsketch.pb import proto
from torch import Tensor

PER_OCTAVE = 32
OCTAVES = 20
"""Buckets reach from 2^-20 to 2^20 in magnitude: what is smaller counts as zero, what is larger as 2^20."""
EDGE = PER_OCTAVE * OCTAVES
SIDE = 2 * EDGE
"""Buckets on each side of zero."""
MAPPING: Any = LinearlyInterpolatedMapping.from_gamma_offset(math.exp(1 / PER_OCTAVE), 0.0)
ACCURACY: float = MAPPING.relative_accuracy
QUANTILES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99, "q995": 0.995}
_MESSAGES: Any = proto.pb  # pyright: ignore[reportPrivateImportUsage] (the generated module for this version of protobuf)
_SHIFT = 23 - int(math.log2(PER_OCTAVE))


def buckets(values: Tensor) -> Tensor:
    """The bucket of each float32 value: 0 for zero, 1 .. SIDE for positive ones by size, the negative of that for negative ones; int32."""
    bits = values.contiguous().view(torch.int32)
    key = (((bits & 0x7FFFFFFF) + ((1 << _SHIFT) - 1)) >> _SHIFT) - 127 * PER_OCTAVE
    place = (key + EDGE).clamp_(0, SIDE)
    sign = bits >> 31  # -1 or 0: the two's complement by hand, because torch's comparisons are slow
    return (place ^ sign) - sign


class Counter:
    """Counts buckets of samples, channel by channel, on the device where the samples are.

    Args:
        channels: Number of channels of each layer.
        signed: For each layer, whether its values can be below zero; where not, half of the buckets are saved.
        device: Where to count.
    """

    def __init__(self, channels: Sequence[int], signed: Sequence[bool], device: torch.device) -> None:
        self.widths = [SIDE * (2 if both else 1) + 1 for both in signed]
        self.lowest = [-SIDE if both else 0 for both in signed]
        self.channels = list(channels)
        self.counts = [
            torch.zeros(count * width, dtype=torch.int32, device=device) for count, width in zip(channels, self.widths, strict=True)
        ]
        self.bases = [
            (torch.arange(count, device=device) * width - low).int()
            for count, width, low in zip(channels, self.widths, self.lowest, strict=True)
        ]
        self.one = torch.ones(1, dtype=torch.int32, device=device)

    def add(self, samples: Sequence[Tensor]) -> None:
        """Counts samples (n s c), an entry for each layer."""
        for counts, base, low, values in zip(self.counts, self.bases, self.lowest, samples, strict=True):
            place = (buckets(values).clamp_(min=low) + base).view(-1).long()
            counts.scatter_add_(0, place, self.one.expand(len(place)))

    def taken(self, layer: int) -> np.ndarray:
        """The counts of a layer, (c, 2 SIDE + 1); column SIDE counts zeros."""
        counts = self.counts[layer].view(self.channels[layer], self.widths[layer]).cpu().numpy()
        return np.pad(counts, ((0, 0), (SIDE + self.lowest[layer], 0)))


def quantiles(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The quantiles of every channel, {name: (c)}, as the library reads them; NaN where nothing was counted."""
    channels, width = counts.shape
    reached = counts.cumsum()  # through all channels: what was reached within one is what is above its base
    base = np.arange(channels) * width
    before = np.concatenate([[0], reached[base[1:] - 1]])
    total = reached[base + width - 1] - before
    found: dict[str, np.ndarray] = {}
    for name, share in QUANTILES.items():
        rank = np.floor(share * np.maximum(total - 1, 0)).astype(np.int64)
        # the library counts ranks of negative values from zero outwards, so that a rank between two values falls to the other side
        place = np.searchsorted(reached, before + rank, side="right") - base
        found[name] = np.where(total > 0, _values()[np.minimum(place, 2 * SIDE)], np.nan).astype(np.float32)
    return found


def serialized(counts: np.ndarray) -> list[bytes]:
    """A DDSketch in the library's protobuf format for each row of counts (c, 2 SIDE + 1); `DDSketchProto.from_proto` reads it."""
    mapping = proto.KeyMappingProto.to_proto(MAPPING)
    sides = _stores(counts[:, SIDE + 1 :]), _stores(counts[:, SIDE - 1 :: -1])
    sketches = (
        _MESSAGES.DDSketch(mapping=mapping, positiveValues=above, negativeValues=below, zeroCount=zero)
        for above, below, zero in zip(*sides, counts[:, SIDE].tolist(), strict=True)
    )
    return [sketch.SerializeToString(deterministic=True) for sketch in sketches]


def sketch_of(data: bytes) -> Any:
    """The library's sketch from its serialized form: ``.get_quantile_value(q)``, ``.merge(other)``."""
    message = _MESSAGES.DDSketch()
    message.ParseFromString(data)
    return proto.DDSketchProto.from_proto(message)


def _stores(counts: np.ndarray) -> Iterator[Any]:
    """A row of counts each, from its first used bucket to its last."""
    used = counts != 0
    first = used.argmax(1)
    last = np.where(used.any(1), SIDE - used[:, ::-1].argmax(1), first)
    for row, start, stop in zip(counts, first.tolist(), last.tolist(), strict=True):
        offset = start + 1 if stop > start else 1
        yield _MESSAGES.Store(contiguousBinCounts=row[start:stop].astype(float).tolist(), contiguousBinIndexOffset=offset - EDGE)


@cache
def _values() -> np.ndarray:
    """The value of each bucket, in order."""
    above = np.array([MAPPING.value(place - EDGE) for place in range(1, SIDE + 1)])
    return np.concatenate([-above[::-1], [0.0], above])
