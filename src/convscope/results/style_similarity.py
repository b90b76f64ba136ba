"""Style similarity: a matrix per statistic, and how well given groups are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Heat, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

STATISTICS = ("sums", "gram", "mean-std")


@dataclass(frozen=True, eq=False)
class StyleSimilarity(ImageResult):
    """How alike the styles of images are, by three statistics.

    Attributes:
        similarity: 1 - distance, (statistic n other), in [0,1]; 1 is the same style. The distance is the mean over the layers.
        layer_distance: ||d_a - d_b|| / (||d_a|| + ||d_b||) of the statistics d at each layer, (statistic layer n other).
        auc: Probability that a pair of one group is more alike than a pair of different groups, ties counting half, (statistic); NaN where
            no groups are given.
        layer_auc: The same, layer by layer, (statistic layer).
        pictures: The images, small, for showing, (n rgb h w).
        statistics: Names along the statistic axis: "sums", "gram", "mean-std".
        layers: The layers' names.
        names: Names of the images.
        groups: The group of each image, where given.
    """

    similarity: Array = axes("statistic n other", "heat", unit="similarity")
    layer_distance: Array = axes("statistic layer n other", unit="normalized distance")
    auc: Array = axes("statistic")
    layer_auc: Array = axes("statistic layer")
    pictures: Array = axes("n rgb h w", "image")
    statistics: tuple[str, ...] = STATISTICS
    layers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def nearest(self, statistic: str = "sums", among: Sequence[int] | None = None) -> np.ndarray:
        """The image whose style is nearest to each image's, (n): another one, out of `among` if given; ties by number."""
        alike = self.similarity[self.statistics.index(statistic)].copy()
        np.fill_diagonal(alike, -1)
        if among is not None:
            alike[:, np.setdiff1d(np.arange(alike.shape[1]), among)] = -1
        return alike.argmax(1)

    def summary(self) -> str:
        """Each image's nearest, and how well the groups are told apart."""
        lines = [f"{name}: nearest {', '.join(self._nearest_names(row))}" for row, name in enumerate(self.names)]
        if self.groups:
            lines.append("same group told from different ones, AUC: " + ", ".join(map("{} {:.3f}".format, self.statistics, self.auc)))
        return self.with_skipped("\n".join(lines), "\n")

    def _nearest_names(self, row: int) -> list[str]:
        return [f"{self.names[self.nearest(name)[row]]} ({name})" for name in self.statistics]

    def view(self) -> View:
        """The images in their order, a matrix image x image for each statistic, and the AUC of the groups by layer."""
        count = len(self.names)
        groups = self.groups or ("",) * count
        tiles = tuple(
            Image(self.pictures[place], f"{place} {self.names[place]}", str(groups[place])) for place in range(min(count, _MOST_TILES))
        )
        low = float(self.similarity.min())
        names = tuple(f"{place} {name}" for place, name in enumerate(self.names))
        matrices = tuple(
            Heat(values, _title(self, row), unit="similarity", limits=(low, 1.0), rows=names, x_label="image")
            for row, values in enumerate(self.similarity)
        )
        panels: tuple[Panel, ...] = (Group(tiles, min(count, _WIDE), side=_TILE), Group(matrices, 1))
        panels = (*panels, _nearest(self)) if count <= _MOST_TILES else panels
        if self.groups:
            panels = (*panels, _groups(self))
        parts = words.provenance(self), f"layers {', '.join(self.layers)}"
        note = (
            "Similarity: 1 - the mean over the layers of ||a - b|| / (||a|| + ||b||) of each statistic per position; 1 is the same style."
        )
        if count > _MOST_TILES:
            note += f" Shown: the first {_MOST_TILES} of {count} images; the matrices hold all."
        return View("Style similarity", panels, subtitle=" · ".join(part for part in parts if part), note=self.with_skipped(note))


_MOST_TILES, _TILE, _WIDE = 48, 96, 12


def _title(result: StyleSimilarity, row: int) -> str:
    auc = f", AUC of the groups {number(result.auc[row])}" if result.groups else ""
    return f"{result.statistics[row]}{auc}"


def _nearest(result: StyleSimilarity) -> Table:
    rows: list[tuple[str, ...]] = []
    for place, name in enumerate(result.names):
        found: list[str] = []
        for values in result.similarity:
            others = np.where(np.arange(len(values)) == place, -1.0, values[place])
            best = int(others.argmax())
            found.append(f"{best} {result.names[best]} ({number(others[best])})")
        rows.append((f"{place} {name}", *found))
    return Table(("image", *(f"nearest by {name}" for name in result.statistics)), tuple(rows))


def _groups(result: StyleSimilarity) -> Table:
    rows = [
        (name, number(result.auc[row]), *(number(value) for value in result.layer_auc[row])) for row, name in enumerate(result.statistics)
    ]
    return Table(("AUC of same-group pairs", "all layers", *result.layers), tuple(rows))
