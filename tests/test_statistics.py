"""Rank statistics against scipy, against plain formulas, and against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from convscope.statistics import benjamini_hochberg, group_areas, holm, mean_intervals


def drawn(n: int, c: int, seed: int = 0, ties: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, c))
    return np.round(values * 2) if ties else values


@pytest.mark.parametrize("ties", [False, True])
def test_areas_and_p_are_scipys(ties: bool) -> None:
    values, groups = drawn(40, 5, ties=ties), np.random.default_rng(1).integers(0, 3, 40)
    auc, p = group_areas(values, groups, 3)
    for group, column in itertools.product(range(3), range(5)):
        inside, outside = values[groups == group, column], values[groups != group, column]
        known = scipy.stats.mannwhitneyu(inside, outside, alternative="greater", method="asymptotic")
        assert auc[group, column] == pytest.approx(known.statistic / (len(inside) * len(outside)), rel=1e-12)
        assert p[group, column] == pytest.approx(known.pvalue, rel=1e-9)


def plainly(values: np.ndarray, groups: np.ndarray, group: int) -> tuple[float, float]:
    """AUC and p of a group in one column (n): ranks by counting, the normal tail by math.erfc."""
    below, upto = (np.array([compare(values, value).sum() for value in values]) for compare in (np.less, np.less_equal))
    n, total = int((groups == group).sum()), len(values)
    pairs = n * (total - n)
    wins = ((below + upto + 1) / 2)[groups == group].sum() - n * (n + 1) / 2
    ties = sum(int(size) ** 3 - int(size) for size in np.unique(values, return_counts=True)[1])
    deviation = math.sqrt(pairs / 12 * (total + 1 - ties / (total * (total - 1))))
    return wins / pairs, 0.5 * math.erfc((wins - pairs / 2 - 0.5) / deviation / math.sqrt(2))


@pytest.mark.parametrize("ties", [False, True])
def test_areas_and_p_are_those_of_the_plain_formula(ties: bool) -> None:
    values, groups = drawn(60, 4, seed=5, ties=ties), np.random.default_rng(6).integers(0, 3, 60)
    values[:20, 3] += 4  # far in the tail
    auc, p = group_areas(values, groups, 3)
    for group, column in itertools.product(range(3), range(4)):
        known = plainly(values[:, column], groups, group)
        assert auc[group, column] == known[0]
        assert p[group, column] == pytest.approx(known[1], rel=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_a_group_of_one_is_exact(ties: bool) -> None:
    values, groups = drawn(21, 4, seed=2, ties=ties), np.array([1] * 20 + [0])
    _, p = group_areas(values, groups, 2)
    np.testing.assert_allclose(p[0], (values >= values[20]).mean(0), rtol=1e-12)


def test_a_column_that_never_varies_says_nothing() -> None:
    auc, p = group_areas(np.ones((6, 1)), np.array([0, 0, 0, 1, 1, 1]), 2)
    assert (auc == 0.5).all() and (p == 1).all()


def test_corrections_by_hand() -> None:
    p = np.array([[0.01, 0.04], [0.03, 0.005]])
    np.testing.assert_allclose(holm(p), [[0.03, 0.06], [0.06, 0.02]])  # 0.005*4, 0.01*3, 0.03*2, then never below what came before
    np.testing.assert_allclose(benjamini_hochberg(p), [[0.02, 0.04], [0.04, 0.02]])  # 0.04*4/4, 0.03*4/3, 0.01*4/2; 0.005*4 is held down
    assert (holm(np.full(3, 0.9)) == 1).all()


def test_corrections_are_those_of_the_plain_formula() -> None:
    p = np.random.default_rng(3).random((7, 30)) ** 3
    flat = np.sort(p.ravel())
    stepped = [min(1.0, min(flat[at] * (len(flat) / (at + 1)) for at in range(rank, len(flat)))) for rank in range(len(flat))]
    np.testing.assert_array_equal(np.sort(benjamini_hochberg(p).ravel()), stepped)
    stepped = [min(1.0, max(flat[at] * (len(flat) - at) for at in range(rank + 1))) for rank in range(len(flat))]
    np.testing.assert_array_equal(np.sort(holm(p).ravel()), stepped)


def test_false_discoveries_are_bounded_where_there_is_nothing_to_discover() -> None:
    found = 0
    for seed in range(200):
        _, p = group_areas(drawn(30, 8, seed=seed), np.arange(30) % 3, 3)
        found += bool((holm(p) < 0.05).any())
    assert found <= 18  # 5 % of 200, and three standard deviations


def test_intervals_of_means() -> None:
    values = np.random.default_rng(3).normal(size=(2, 40))
    values = np.concatenate([values, values[:1] - values[1:]])
    low, high = mean_intervals(values, 0.9, 4000, 0).T
    known = scipy.stats.bootstrap((values[0],), np.mean, confidence_level=0.9, n_resamples=4000, method="percentile", rng=1)
    assert low[0] == pytest.approx(known.confidence_interval.low, abs=0.02) and high[0] == pytest.approx(
        known.confidence_interval.high, abs=0.02
    )
    # paired: the difference of rows is drawn with the same images
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=4000) / 40
    np.testing.assert_allclose([low[2], high[2]], np.quantile(weights @ (values[0] - values[1]), [0.05, 0.95]), atol=1e-12)
    np.testing.assert_allclose(mean_intervals(np.ones((1, 5)), 0.95, 10, 0), 1)
