"""Mergeable statistics of a layer's channels over images. The law: merging two parts gives what one look at all their images gives.

Counts, votes, sketches and the top images merge exactly, in any order and grouping; means and squares do up to rounding of float64, so
parts are always merged in the order of their shards, and the same scan gives the same bytes. `NOTHING`-like parts (no image) change
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Mean and sum of squared deviations of images' values, channel by channel, float64 (c)."""

    images: int
    mean: np.ndarray
    squares: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> Moments:
        """Of values (n c)."""
        wide = values.astype(np.float64)
        if not len(wide):
            return Moments(0, np.zeros(wide.shape[1]), np.zeros(wide.shape[1]))
        mean = wide.mean(0)
        return Moments(len(wide), mean, np.square(wide - mean).sum(0))

    def merge(self, other: Moments) -> Moments:
        """Chan, Golub and LeVeque's update of two samples' moments."""
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
class Top:
    """The images of largest values for every channel: larger value first, then smaller image. Arrays (k c), k <= the number asked for.

    Attributes:
        value: float32.
        image: Image numbers, int64.
        position: y * w + x of the value in the map, int32.
    """

    value: np.ndarray
    image: np.ndarray
    position: np.ndarray

    @staticmethod
    def of(value: np.ndarray, image: np.ndarray, position: np.ndarray, count: int) -> Top:
        """The `count` largest of (n c) values, of images (n) or (n c)."""
        if image.ndim == 1:
            image = np.broadcast_to(image[:, None], value.shape)
        keys = _order(value, image)
        if len(keys) > count:  # keys are unique within a channel, so what is left does not depend on how numpy partitions
            kept = np.argpartition(keys, count - 1, axis=0)[:count]
            keys, value, image, position = (np.take_along_axis(array, kept, 0) for array in (keys, value, image, position))
        order = np.argsort(keys, axis=0)
        value, image, position = (np.take_along_axis(array, order, 0) for array in (value, image, position))
        return Top(value, image, position)

    def merge(self, other: Top, count: int) -> Top:
        """The `count` largest of both."""
        value, image, position = (np.concatenate(pair) for pair in zip(self.arrays(), other.arrays(), strict=True))
        return Top.of(value, image, position, count)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value, image, position."""
        return self.value, self.image, self.position


def _order(value: np.ndarray, image: np.ndarray) -> np.ndarray:
    """int64 keys that sort by falling value, then by rising image (below 2^32)."""
    bits = (np.asarray(value, np.float32) + np.float32(0)).view(np.int32)  # + 0 makes -0 and 0 equal
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return -((rising.astype(np.int64) << 32) - image)


@dataclass(frozen=True)
class Group:
    """A layer's channels over a group of images: all of them, or those of a label.

    Attributes:
        mean, peak: Moments of the mean and of the maximum over the map.
        votes: Images that have the channel among their strongest, int64 (c).
        top: The images of largest maximum.
    """

    mean: Moments
    peak: Moments
    votes: np.ndarray
    top: Top

    @property
    def images(self) -> int:
        """Number of images."""
        return self.mean.images

    def merge(self, other: Group, count: int) -> Group:
        """Both together, keeping the `count` top images."""
        return Group(self.mean.merge(other.mean), self.peak.merge(other.peak), self.votes + other.votes, self.top.merge(other.top, count))


@dataclass
class Part:
    """A layer's statistics over some images.

    Attributes:
        groups: {label, None for all images: its group}.
        positive: Number of positions > 0, int64 (c).
        sketch: Counts of the quantile sketches' buckets, (c buckets).
    """

    groups: dict[str | None, Group]
    positive: np.ndarray
    sketch: np.ndarray = field(repr=False)

    def merge(self, other: Part, count: int) -> Part:
        """Both together, keeping the `count` top images."""
        groups = dict(self.groups)
        for label, group in other.groups.items():
            groups[label] = groups[label].merge(group, count) if label in groups else group
        return Part(groups, self.positive + other.positive, self.sketch + other.sketch)


def grouped(
    maximum: np.ndarray,
    mean: np.ndarray,
    position: np.ndarray,
    votes: np.ndarray,
    images: np.ndarray,
    labels: Sequence[str | None],
    count: int,
) -> dict[str | None, Group]:
    """The groups of a shard: all its images, then those of each label.

    Args:
        maximum, mean, position, votes: (n c); see :class:`~convscope.scanner.measure.MapStatistics` and
            :func:`~convscope.scanner.measure.strongest`.
        images: Image numbers, (n).
        labels: Labels, (n); None: no label.
        count: Top images to keep.
    """

    def group(rows: np.ndarray | slice) -> Group:
        return Group(
            Moments.of(mean[rows]),
            Moments.of(maximum[rows]),
            votes[rows].sum(0, dtype=np.int64),
            Top.of(maximum[rows], images[rows], position[rows], count),
        )

    members: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        if label is not None:
            members.setdefault(label, []).append(row)
    return {None: group(slice(None))} | {label: group(np.array(members[label])) for label in sorted(members)}
