"""Rank statistics against scipy, against counting, and against simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from convscope.statistics import benjamini_hochberg, group_areas, holm


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
    np.testing.assert_allclose(benjamini_hochberg(p), scipy.stats.false_discovery_control(p.ravel()).reshape(2, 2))
    assert (holm(np.full(3, 0.9)) == 1).all()


def test_false_discoveries_are_bounded_where_there_is_nothing_to_discover() -> None:
    found = 0
    for seed in range(200):
        _, p = group_areas(drawn(30, 8, seed=seed), np.arange(30) % 3, 3)
        found += bool((holm(p) < 0.05).any())
    assert found <= 18  # 5 % of 200, and three standard deviations
