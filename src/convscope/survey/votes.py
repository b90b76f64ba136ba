"""Which channels of a layer an image votes for."""

from __future__ import annotations

import numpy as np


def votes_for(mean: np.ndarray, count: int) -> np.ndarray:
    """The channels that each image votes for: the `count` of largest mean, ties to the lower channel; bool (n c)."""
    if count >= mean.shape[1]:
        return np.ones(mean.shape, bool)
    least = np.partition(mean, -count, axis=1)[:, -count, None]
    above, equal = mean > least, mean == least
    return above | equal & (equal.cumsum(1) <= count - above.sum(1, keepdims=True))
