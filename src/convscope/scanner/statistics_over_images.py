"""Mergeable statistics of a layer's channels over images: merging those of two sets of images gives those of their union.

Counts, votes, histograms and top images merge exactly, in any order and grouping. Means and squares do so up to float64 rounding, so
shards are always merged in order and the same scan gives the same bytes. Statistics of no images change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Mean and sum of squared deviations over images of each channel, float64 (c)."""

    images: int
    mean: np.ndarray
    squares: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """The moments of values (n c)."""
        wide = values.astype(np.float64)
        if not len(wide):
            return Moments(0, np.zeros(wide.shape[1]), np.zeros(wide.shape[1]))
        mean = wide.mean(0)
        return Moments(len(wide), mean, np.square(wide - mean).sum(0))

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples together (Chan, Golub and LeVeque 1979)."""
        if not self.images or not other.images:
            return other if not self.images else self
        images = self.images + other.images
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.images / images)
        return Moments(images, mean, self.squares + other.squares + gap * gap * (self.images * other.images / images))

    @property
    def sd(self) -> np.ndarray:
        """Population standard deviation, (c)."""
        return np.sqrt(self.squares / max(1, self.images))


@dataclass(frozen=True)
class TopImages:
    """The images with the largest values of each channel: larger value first, then smaller image number. Arrays (k c), k <= `count`.

    Attributes:
        value: float32.
        image: Image numbers, int64.
        position: y * w + x of the value in the map, int32.
    """

    value: np.ndarray
    image: np.ndarray
    position: np.ndarray

    @staticmethod
    def of(value: np.ndarray, image: np.ndarray, position: np.ndarray, count: int) -> TopImages:
        """The `count` largest of values (n c), from images (n) or (n c)."""
        if image.ndim == 1:
            image = np.broadcast_to(image[:, None], value.shape)
        keys = _order(value, image)
        if len(keys) > count:  # keys are unique within a channel, so the choice does not depend on numpy's partitioning
            kept = np.argpartition(keys, count - 1, axis=0)[:count]
            keys, value, image, position = (np.take_along_axis(array, kept, 0) for array in (keys, value, image, position))
        order = np.argsort(keys, axis=0)
        value, image, position = (np.take_along_axis(array, order, 0) for array in (value, image, position))
        return TopImages(value, image, position)

    def merge(self, other: TopImages, count: int) -> TopImages:
        """The `count` largest of both sets."""
        value, image, position = (np.concatenate(pair) for pair in zip(self.arrays(), other.arrays(), strict=True))
        return TopImages.of(value, image, position, count)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, image, position."""
        return self.value, self.image, self.position


def _order(value: np.ndarray, image: np.ndarray) -> np.ndarray:
    """int64 keys that sort by descending value, then by ascending image number (below 2^32)."""
    bits = (np.asarray(value, np.float32) + np.float32(0)).view(np.int32)  # + 0 makes -0 and 0 equal
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return -((rising.astype(np.int64) << 32) - image)


@dataclass(frozen=True)
class GroupStatistics:
    """Statistics of a layer's channels over a group of images: all of them, or those with one label.

    Attributes:
        mean, peak: Moments of the map's mean and of its maximum.
        votes: Number of images that vote for the channel, int64 (c).
        top: The images with the largest maximum.
    """

    mean: Moments
    peak: Moments
    votes: np.ndarray
    top: TopImages

    @property
    def images(self) -> int:
        """Number of images."""
        return self.mean.images

    def merge(self, other: GroupStatistics, count: int) -> GroupStatistics:
        """The statistics of both groups together, with the `count` top images."""
        mean, peak = self.mean.merge(other.mean), self.peak.merge(other.peak)
        return GroupStatistics(mean, peak, self.votes + other.votes, self.top.merge(other.top, count))


@dataclass
class LayerStatistics:
    """Statistics of one layer over a set of images: a shard, or several merged.

    Attributes:
        groups: {label: statistics of its images}; None: of all images.
        positive: Number of positions > 0, int64 (c).
        histogram: Histograms of sampled activations, int64 (c bins); see `convscope.scanner.histograms`.
    """

    groups: dict[str | None, GroupStatistics]
    positive: np.ndarray
    histogram: np.ndarray = field(repr=False)

    def merge(self, other: LayerStatistics, count: int) -> LayerStatistics:
        """The statistics of both sets together, with the `count` top images."""
        groups = dict(self.groups)
        for label, group in other.groups.items():
            groups[label] = groups[label].merge(group, count) if label in groups else group
        return LayerStatistics(groups, self.positive + other.positive, self.histogram + other.histogram)


def group_statistics(
    maximum: np.ndarray,
    mean: np.ndarray,
    position: np.ndarray,
    votes: np.ndarray,
    images: np.ndarray,
    labels: Sequence[str | None],
    count: int,
) -> dict[str | None, GroupStatistics]:
    """The statistics of a shard for all its images (None), then for each label.

    Args:
        maximum, mean, position, votes: (n c); see :class:`~convscope.scanner.measure.ChannelStatistics` and
            :func:`~convscope.survey.votes.votes_for`.
        images: Image numbers, (n).
        labels: Labels of the images, (n); None: no label.
        count: Number of top images.
    """

    def group(rows: np.ndarray | slice) -> GroupStatistics:
        return GroupStatistics(
            Moments.of(mean[rows]),
            Moments.of(maximum[rows]),
            votes[rows].sum(0, dtype=np.int64),
            TopImages.of(maximum[rows], images[rows], position[rows], count),
        )

    members: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        if label is not None:
            members.setdefault(label, []).append(row)
    return {None: group(slice(None))} | {label: group(np.array(members[label])) for label in sorted(members)}
