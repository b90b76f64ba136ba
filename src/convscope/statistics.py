"""Rank statistics: how well values tell groups apart, and whether that could be chance. NumPy only, for both columns."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np


def permutation_test(values: np.ndarray, n: int, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC, p-value and family-wise corrected p-value of every column.

    Args:
        values: (n + m, c); the first `n` rows are the group claimed to be higher.
        n: Size of that group.
        permutations: Number of random re-labellings.
        seed: Their seed.

    Returns:
        Three arrays (c).
    """
    ranks = average_ranks(values)
    m = len(values) - n
    generator = np.random.default_rng(seed)

    def areas(rank_sums: np.ndarray) -> np.ndarray:
        return (rank_sums - n * (n + 1) / 2) / (n * m)

    auc = areas(ranks[:n].sum(0))
    single = np.zeros(values.shape[1])
    largest = np.zeros(values.shape[1])
    for first in range(0, permutations, 256):  # in blocks, so that memory does not grow with the number of permutations
        picked = np.zeros((min(256, permutations - first), n + m))
        for row in picked:
            row[generator.permutation(n + m)[:n]] = 1
        drawn = areas(picked @ ranks)
        single += (drawn >= auc - 1e-12).sum(0)
        largest += (drawn.max(1)[:, None] >= auc - 1e-12).sum(0)
    return auc, (1 + single) / (1 + permutations), (1 + largest) / (1 + permutations)


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1 .. n of every column of (n c), equal values sharing their mean rank."""
    below, upto = _counts(values)
    return (below + upto + 1) / 2


def group_areas(values: np.ndarray, groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Every group against the rest, for every column: the area under the ROC curve, and whether it is higher than chance.

    AUC = U / (n m) with U the Mann-Whitney statistic, ties a half. p is one-sided: exact for a group of one image (the share of
    images that are at least as high), else by the normal approximation with corrections for ties and continuity.

    Args:
        values: (n c), finite.
        groups: (n) the group of each row, 0 to count - 1, each with at least one row; at least two groups.
        count: How many groups.

    Returns:
        AUC and p, both (group c).
    """
    below, upto = _counts(values)
    total, columns = values.shape
    sizes = np.bincount(groups, minlength=count)[:, None].astype(np.float64)
    sums = np.zeros((count, columns))
    np.add.at(sums, groups, (below + upto + 1) / 2)
    wins = sums - sizes * (sizes + 1) / 2
    pairs = sizes * (total - sizes)
    # each of the t members of a tie counts t^2 - 1, so that a tie adds t^3 - t
    ties = ((upto - below).astype(np.float64) ** 2 - 1).sum(0)
    deviation = np.sqrt(pairs / 12 * (total + 1 - ties / (total * (total - 1))))
    gap = wins - pairs / 2 - 0.5
    z = np.divide(gap, deviation, out=np.full_like(gap, -np.inf), where=deviation > 0)
    p = _upper_tail(z)
    single = np.flatnonzero(sizes[:, 0] == 1)
    first = {int(group): row for row, group in reversed(list(enumerate(groups)))}
    for group in single:
        p[group] = 1 - below[first[int(group)]] / total
    return wins / pairs, p


def holm(p: np.ndarray) -> np.ndarray:
    """p-values corrected so that the chance of any false discovery among all of them is bounded (Holm 1979); any shape."""
    return _stepwise(p, lambda count: count - np.arange(count, dtype=np.float64), np.maximum.accumulate)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """p-values corrected so that the expected share of false discoveries is bounded (Benjamini and Hochberg 1995); any shape."""

    def from_above(scaled: np.ndarray) -> np.ndarray:
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _stepwise(p, lambda count: count / np.arange(1.0, count + 1), from_above)


def _stepwise(p: np.ndarray, factors: Callable[[int], np.ndarray], monotone: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    flat = np.asarray(p, np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(monotone(flat[order] * factors(len(flat))), 1)
    return corrected.reshape(np.shape(p))


def _counts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every value of (n c), how many of its column are below it, and how many are at most as high."""
    ordered = np.sort(values, axis=0)
    columns = range(values.shape[1])
    below = np.stack([np.searchsorted(ordered[:, c], values[:, c], side="left") for c in columns], 1)
    upto = np.stack([np.searchsorted(ordered[:, c], values[:, c], side="right") for c in columns], 1)
    return below, upto


def _upper_tail(z: np.ndarray) -> np.ndarray:
    """P(Z >= z) of the standard normal distribution."""
    return 0.5 * np.vectorize(math.erfc, otypes=[np.float64])(z / math.sqrt(2))
