"""Result of `style_similarity`: how alike the styles of images are, by three statistics of their feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.names import place_of
from convscope.render.panels import Group, Heat, Image, Panel, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.style_transfer import STATISTICS
from convscope.results.table import Rows

_MOST_TILES, _TILE, _ACROSS = 48, 96, 12


@dataclass(frozen=True, eq=False)
class StyleSimilarity(ImageResult):
    """How alike the styles of images are, by three statistics.

    Attributes:
        similarity: 1 - distance, (statistic n other), in [0,1]; 1 is the same style. The distance is the mean over the layers.
        layer_distance: ||d_a - d_b|| / (||d_a|| + ||d_b||) of the statistics d at each layer, (statistic layer n other).
        auc: Probability that a pair of one group is more alike than a pair of different groups, ties counting half, (statistic); NaN where
            no groups are given.
        layer_auc: The same, layer by layer, (statistic layer).
        images: The images, small, for showing, (n c h w).
        statistics: Names along the statistic axis: "sums", "gram", "mean-std".
        layers: The layers' names.
        names: Names of the images.
        groups: The group of each image, where given.
    """

    tabled: ClassVar[Rows] = Rows("statistic n other", statistic="statistic:statistics", image="n:names", other="other:names")

    similarity: Array = axes("statistic n other", "heat", unit="similarity")
    layer_distance: Array = axes("statistic layer n other", unit="normalized distance")
    auc: Array = axes("statistic")
    layer_auc: Array = axes("statistic layer")
    images: Array = axes("n c h w", "image")
    statistics: tuple[str, ...] = STATISTICS
    layers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def nearest(self, statistic: str = "sums", among: Sequence[int] | None = None) -> np.ndarray:
        """The other image whose style is nearest to each image's, (n); out of `among` if given; ties by number."""
        alike = self.similarity[place_of(statistic, self.statistics, "statistic")].copy()
        np.fill_diagonal(alike, -1)
        if among is not None:
            alike[:, np.setdiff1d(np.arange(alike.shape[1]), among)] = -1
        return alike.argmax(1)

    def summary(self) -> str:
        """Each image's nearest by each statistic, and how well the groups are told apart."""
        nearest = {statistic: self.nearest(statistic) for statistic in self.statistics}
        lines = [
            f"{name}: nearest {', '.join(f'{self.names[found[row]]} ({statistic})' for statistic, found in nearest.items())}"
            for row, name in enumerate(self.names)
        ]
        if self.groups:
            lines.append("same group told from different ones, AUC: " + ", ".join(map("{} {:.3f}".format, self.statistics, self.auc)))
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The images in their order, a matrix image x image for each statistic, and the AUC of the groups by layer."""
        count = len(self.names)
        panels: list[Panel] = [_tiles(self), _matrices(self)]
        if count <= _MOST_TILES:
            panels.append(_nearest(self))
        if self.groups:
            panels.append(_groups(self))
        note = words.note(
            "Similarity: 1 - the mean over the layers of ||a - b|| / (||a|| + ||b||) of each statistic per position; 1 is the same style.",
            channels.note(self, self.images.shape[1]),
            f"Shown: the first {_MOST_TILES} of {count} images; the matrices hold all." if count > _MOST_TILES else "",
        )
        subtitle = words.subtitle(self, f"layers {', '.join(self.layers)}")
        return View("Style similarity", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def _tiles(result: StyleSimilarity) -> Group:
    count = len(result.names)
    groups = result.groups or ("",) * count
    tiles = tuple(
        Image(channels.shown(result, result.images[index]), f"{index} {result.names[index]}", str(groups[index]))
        for index in range(min(count, _MOST_TILES))
    )
    return Group(tiles, min(count, _ACROSS), side=_TILE)


def _matrices(result: StyleSimilarity) -> Group:
    low = float(result.similarity.min())
    names = tuple(f"{index} {name}" for index, name in enumerate(result.names))
    matrices: list[Panel] = []
    for row, (statistic, values) in enumerate(zip(result.statistics, result.similarity, strict=True)):
        title = f"{statistic}, AUC of the groups {number(result.auc[row])}" if result.groups else statistic
        matrices.append(Heat(values, title, unit="similarity", limits=(low, 1.0), rows=names, x_label="image"))
    return Group(tuple(matrices), 1)


def _nearest(result: StyleSimilarity) -> Table:
    nearest = [result.nearest(statistic) for statistic in result.statistics]
    rows: list[tuple[str, ...]] = []
    for row, name in enumerate(result.names):
        best = [int(found[row]) for found in nearest]
        values = [number(result.similarity[statistic, row, other]) for statistic, other in enumerate(best)]
        rows.append((f"{row} {name}", *(f"{other} {result.names[other]} ({value})" for other, value in zip(best, values, strict=True))))
    return Table(("image", *(f"nearest by {name}" for name in result.statistics)), tuple(rows))


def _groups(result: StyleSimilarity) -> Table:
    rows = [
        (name, number(result.auc[row]), *(number(value) for value in result.layer_auc[row])) for row, name in enumerate(result.statistics)
    ]
    return Table(("AUC of same-group pairs", "all layers", *result.layers), tuple(rows))
