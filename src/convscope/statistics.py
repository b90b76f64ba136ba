"""P-values, AUCs and intervals of many units at once: permutation tests, corrections for multiple testing, rank statistics.

`scipy.stats` is imported inside functions, because it takes seconds to load.
"""

from __future__ import annotations

import math

import numpy as np

SIGNIFICANCE = 0.05
"""Significance level: a corrected p-value below it counts as a finding."""


def permutation_test(values: np.ndarray, n: int, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Permutation test of every column: AUC, one-sided p-value, and p-value corrected over all columns (max-T).

    Args:
        values: (n + m, c); the first `n` rows are the group that is tested to be higher.
        n: Size of that group.
        permutations: Number of random permutations.
        seed: Their seed.

    Returns:
        AUC, p and corrected p, each (c).

    Source:
        Westfall and Young 1993 (max-T). Ranks are those of `scipy.stats.rankdata`.
    """
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
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


def smallest_p(values: np.ndarray, n: int, permutations: int, seed: int) -> float:
    """Corrected p-value that a further column would have which tells the groups apart, whatever it is: AUC 1.

    No column can have a smaller one in :func:`permutation_test` with the same arguments.
    """
    perfect = (np.arange(len(values)) < n)[:, None].astype(values.dtype)
    return float(permutation_test(np.concatenate([values, perfect], 1), n, permutations, seed)[2][-1])


def rows_enough(columns: int) -> int:
    """Rows on each side with which a column that tells them apart has a corrected p-value below :data:`SIGNIFICANCE`, whatever the others.

    A column of n + m rows has AUC 1 for at most one of the (n + m choose n) labellings. So the corrected p-value is at most
    columns / ways, give or take the draw of permutations; half the significance is asked for, so that the draw does not decide.
    """
    return next(side for side in range(2, 1000) if columns / math.comb(2 * side, side) <= SIGNIFICANCE / 2)


def group_areas(values: np.ndarray, groups: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """AUC and p-value of every group against the rest, for every column (Mann-Whitney U test).

    AUC = U / (n m), ties a half. p is one-sided (the group is higher): exact for a group of one row (the share of rows that are at
    least as high), else by the normal approximation with corrections for ties and continuity.

    Args:
        values: (n c), finite.
        groups: (n) the group of each row, 0 to count - 1, each with at least one row; at least two groups.
        count: Number of groups.

    Returns:
        AUC and p, both (group c).

    Source:
        Mann and Whitney 1947. Equal to `scipy.stats.mannwhitneyu`, for all groups and columns at once.
    """
    from scipy.special import ndtr
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    total, columns = values.shape
    sizes = np.bincount(groups, minlength=count)[:, None].astype(np.float64)
    sums = np.zeros((count, columns))
    np.add.at(sums, groups, ranks)
    wins = sums - sizes * (sizes + 1) / 2
    pairs = sizes * (total - sizes)
    at_most = rankdata(values, "max", axis=0)
    # an average rank is (below + at most + 1) / 2, so that a value is one of 2 (at most - average) + 1 equal ones;
    # each of the t equal ones counts t^2 - 1, so that they add t^3 - t
    ties = ((2 * (at_most - ranks) + 1) ** 2 - 1).sum(0)
    deviation = np.sqrt(pairs / 12 * (total + 1 - ties / (total * (total - 1))))
    gap = wins - pairs / 2 - 0.5
    p = ndtr(-np.divide(gap, deviation, out=np.full_like(gap, -np.inf), where=deviation > 0))
    alone = np.flatnonzero(sizes[:, 0] == 1)
    row = np.zeros(count, np.int64)
    row[groups] = np.arange(total)
    p[alone] = 1 - (2 * ranks - at_most - 1)[row[alone]] / total  # as above: the number of values below
    return wins / pairs, p


def holm(p: np.ndarray) -> np.ndarray:
    """Holm-corrected p-values over an array of any shape: bounds the chance of any false discovery (Holm 1979)."""
    flat = np.asarray(p, np.float64).ravel()
    order = np.argsort(flat, kind="stable")
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1)), 1)
    return corrected.reshape(np.shape(p))


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg-corrected p-values over an array of any shape: bounds the share of false discoveries (1995)."""
    from scipy.stats import false_discovery_control

    return np.reshape(false_discovery_control(np.ravel(p)), np.shape(p))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927); trials > 0."""
    z = 1.959963984540054
    share = successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    reach = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_intervals(values: np.ndarray, confidence: float, draws: int, seed: int) -> np.ndarray:
    """Percentile bootstrap intervals of row means, paired: every draw takes the same columns in all rows. (row 2): low, high.

    Args:
        values: (row n), n >= 1.
        confidence: In (0, 1).
        draws: Number of bootstrap draws.
        seed: Their seed.

    Source:
        Efron 1979.
    """
    count = values.shape[1]
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    block = max(2**22 // count, 1)  # in blocks, so that memory does not grow with the number of draws
    for first in range(0, draws, block):
        weights = generator.multinomial(count, np.full(count, 1 / count), size=min(block, draws - first))
        found.append(weights @ values.T / count)
    return np.quantile(np.concatenate(found), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0).T
