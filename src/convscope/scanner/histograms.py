"""Histograms of activations with logarithmic bins, one for each channel, and the quantiles read from them.

The bins are those of DDSketch (Masson, Rim and Lee 2019) with linear interpolation between powers of two, 32 bins per octave: a bin is
then a shift of the float's bits. Merging adds counts, so it is exact, associative and commutative, as a resumable scan needs.

Bin 0 holds zero and magnitudes up to 2^-20. Bin b = 1 .. 1280 holds values in (edge(b - 1), edge(b)], with
edge(b) = 2^(b // 32 - 20) * (1 + (b % 32) / 32); the last one also holds all larger values. Bin -b holds the same for negative values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

PER_OCTAVE = 32
OCTAVES = 20
"""Bins reach from 2^-20 to 2^20 in magnitude."""
ONE = PER_OCTAVE * OCTAVES
"""The bin whose upper edge is 1."""
SIDE = 2 * ONE
"""Number of bins on each side of zero."""
ACCURACY = math.tanh(1 / (2 * PER_OCTAVE))
"""Relative error of a quantile: a bin stands for the value `edge(b) * (1 - ACCURACY)`."""
QUANTILES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99, "q995": 0.995}
_SHIFT = 23 - int(math.log2(PER_OCTAVE))


def bins_of(values: Tensor) -> Tensor:
    """The bin of each float32 value, -SIDE to SIDE; int32."""
    bits = values.contiguous().view(torch.int32)
    key = (((bits & 0x7FFFFFFF) + ((1 << _SHIFT) - 1)) >> _SHIFT) - 127 * PER_OCTAVE
    magnitude = (key + ONE).clamp_(0, SIDE)
    sign = bits >> 31  # -1 or 0: two's complement by hand, because torch's comparisons are slow
    return (magnitude ^ sign) - sign


class HistogramCounter:
    """Counts samples into the histograms of all channels, on the device of the samples.

    Args:
        channels: Number of channels of each layer.
        signed: For each layer, whether its values can be negative; if not, the negative bins are not allocated.
        device: The device.
    """

    def __init__(self, channels: Sequence[int], signed: Sequence[bool], device: torch.device) -> None:
        self.widths = [SIDE * (2 if both else 1) + 1 for both in signed]
        self.lowest = [-SIDE if both else 0 for both in signed]
        self.channels = list(channels)
        self.counts = [
            torch.zeros(count * width, dtype=torch.int32, device=device) for count, width in zip(channels, self.widths, strict=True)
        ]
        self.bases = [
            (torch.arange(count, dtype=torch.int64, device=device) * width - low).int()
            for count, width, low in zip(channels, self.widths, self.lowest, strict=True)
        ]
        self.one = torch.ones(1, dtype=torch.int32, device=device)

    def add(self, samples: Sequence[Tensor]) -> None:
        """Counts samples (n s c), an entry for each layer."""
        for counts, base, low, values in zip(self.counts, self.bases, self.lowest, samples, strict=True):
            index = (bins_of(values).clamp_(min=low) + base).view(-1).long()
            counts.scatter_add_(0, index, self.one.expand(len(index)))

    def layer_counts(self, layer: int) -> np.ndarray:
        """The histograms of a layer, (c, 2 SIDE + 1); column SIDE is bin 0."""
        counts = self.counts[layer].view(self.channels[layer], self.widths[layer]).cpu().numpy()
        return np.pad(counts, ((0, 0), (SIDE + self.lowest[layer], 0)))


def quantiles(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The quantiles of every channel, {name: (c)} float32: the value of the bin at rank floor(q (n - 1)); NaN for an empty histogram.

    Args:
        counts: Histograms, (c, 2 SIDE + 1).
    """
    channels, width = counts.shape
    reached = counts.cumsum()  # over all channels; a channel's own count is what is above `before`
    first = np.arange(channels) * width
    before = np.concatenate([[0], reached[first[1:] - 1]])
    total = reached[first + width - 1] - before
    found: dict[str, np.ndarray] = {}
    for name, share in QUANTILES.items():
        rank = np.floor(share * np.maximum(total - 1, 0)).astype(np.int64)
        index = np.searchsorted(reached, before + rank, side="right") - first
        found[name] = np.where(total > 0, _values()[np.minimum(index, 2 * SIDE)], np.nan).astype(np.float32)
    return found


def to_lists(counts: np.ndarray) -> dict[str, pa.Array]:
    """Histograms (c, 2 SIDE + 1) as the columns `bins` and `counts`: lists of the bins that are not empty, ascending, and their counts."""
    channel, index = np.nonzero(counts)
    offsets = np.searchsorted(channel, np.arange(len(counts) + 1)).astype(np.int32)
    return {
        "bins": pa.ListArray.from_arrays(offsets, (index - SIDE).astype(np.int32)),
        "counts": pa.ListArray.from_arrays(offsets, counts[channel, index].astype(np.int64)),
    }


@cache
def _values() -> np.ndarray:
    """The value that each bin stands for, -SIDE to SIDE."""
    b = np.arange(1, SIDE + 1)
    positive = np.ldexp(1 + b % PER_OCTAVE / PER_OCTAVE, b // PER_OCTAVE - OCTAVES) * (1 - ACCURACY)
    return np.concatenate([-positive[::-1], [0.0], positive])
