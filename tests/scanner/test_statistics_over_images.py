"""Mergeable statistics: any split, merged, equals the statistics of everything at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from convscope.scanner.statistics_over_images import GroupStatistics, LayerStatistics, Moments, TopImages, group_statistics

N, C, K = 57, 6, 5


def draws(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Maxima with many ties, means, positions, votes, image numbers with gaps, labels."""
    generator = np.random.default_rng(seed)
    maximum = generator.integers(-3, 4, (N, C)).astype(np.float32) / 2
    mean = (generator.normal(size=(N, C)) * 10 ** generator.uniform(-3, 3, C) + 100).astype(np.float32)
    labels = np.array([None, "ant", "bee"], object)[generator.integers(0, 3, N)]
    return (
        maximum,
        mean,
        generator.integers(0, 99, (N, C)).astype(np.int32),
        generator.random((N, C)) < 0.3,
        np.arange(N) * 3 + 2**31,
        labels,
    )


def part(rows: slice, seed: int = 0) -> LayerStatistics:
    maximum, mean, position, votes, images, labels = (array[rows] for array in draws(seed))
    groups = group_statistics(maximum, mean, position, votes, images, list(labels), K)
    histogram = np.zeros((C, 9), np.int64)
    np.add.at(histogram, (np.arange(C)[None], images[:, None] % 7 + np.arange(C)[None] % 2), 1)
    return LayerStatistics(groups, votes.sum(0), histogram)


def splits(seed: int) -> list[slice]:
    cuts = [0, *sorted(np.random.default_rng(seed).integers(0, N, 4).tolist()), N]
    return [slice(a, b) for a, b in pairwise(cuts)]


def fold(parts: list[LayerStatistics]) -> LayerStatistics:
    whole = parts[0]
    for one in parts[1:]:
        whole = whole.merge(one, K)
    return whole


def exact(group: GroupStatistics) -> list[np.ndarray]:
    return [np.array(group.images), group.votes, *group.top.arrays()]


def close(group: GroupStatistics) -> list[np.ndarray]:
    return [group.mean.mean, group.mean.squares, group.peak.mean, group.peak.squares]


@pytest.mark.parametrize("seed", range(8))
def test_any_split_in_any_grouping_equals_the_whole(seed: int) -> None:
    whole, parts = part(slice(None)), [part(rows) for rows in splits(seed)]
    right = parts[-1]
    for one in reversed(parts[:-1]):
        right = one.merge(right, K)
    shuffled = fold([parts[index] for index in np.random.default_rng(seed).permutation(len(parts))])
    for merged in (fold(parts), right, shuffled):
        assert np.array_equal(merged.positive, whole.positive) and np.array_equal(merged.histogram, whole.histogram)
        assert merged.groups.keys() == whole.groups.keys()
        for label, group in whole.groups.items():
            for one, other in zip(exact(merged.groups[label]), exact(group), strict=True):
                assert np.array_equal(one, other)
            for one, other in zip(close(merged.groups[label]), close(group), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_a_part_without_images_changes_nothing() -> None:
    whole, nothing = part(slice(None)), part(slice(0, 0))
    for merged in (whole.merge(nothing, K), nothing.merge(whole, K)):
        for label, group in whole.groups.items():
            for one, other in zip(
                [*exact(merged.groups[label]), *close(merged.groups[label])], [*exact(group), *close(group)], strict=True
            ):
                assert np.array_equal(one, other)


def test_moments_are_those_of_numpy() -> None:
    values = draws()[1]
    moments = Moments.of(values[:20]).merge(Moments.of(values[20:21])).merge(Moments.of(values[21:]))
    np.testing.assert_allclose(moments.mean, values.astype(float).mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.sd, values.astype(float).std(0), rtol=1e-9)


@pytest.mark.parametrize("count", [1, 5, N, N + 9])
def test_top_is_a_global_sort(count: int) -> None:
    maximum, _, position, _, images, _ = draws()
    maximum[3, 0], maximum[4, 0] = -0.0, 0.0  # equal, so the smaller image is first
    found = TopImages.of(maximum, images, position, count)
    for channel in range(C):
        order = sorted(range(N), key=lambda row: (-maximum[row, channel], images[row]))[:count]
        assert found.image[:, channel].tolist() == images[order].tolist()
        assert found.value[:, channel].tolist() == maximum[order, channel].tolist()
        assert found.position[:, channel].tolist() == position[order, channel].tolist()


def test_extreme_values_keep_their_order() -> None:
    values = np.array([[-np.float32(3e38)], [np.float32(3e38)], [np.float32(1e-45)], [np.float32(-1e-45)], [np.float32(0)]], np.float32)
    assert TopImages.of(values, np.arange(5), np.zeros((5, 1), np.int32), 5).image[:, 0].tolist() == [1, 2, 4, 3, 0]
