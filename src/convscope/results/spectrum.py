"""Result of `spectrum`: the mean or maximum activation of every unit of a layer on each image, the highest units named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from convscope.names import place_of
from convscope.render.panels import Bars, Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_SPIKES, _MOST_PLOTS = 8, 8
_TILES, _ACROSS, _SIDE = 6, 3, 104
_IN_SUMMARY = 5
_EVEN = 1.05
"""A map whose maximum is at most so many times its mean has nearly one value."""
_VIOLET = 3
"""The class colour that is `colors.ASKED`."""


@dataclass(frozen=True, eq=False)
class Spectrum(ImageResult):
    """A spectrum per image.

    Attributes:
        values: Mean (or maximum) over positions of every unit, (n c).
        maxima: Maximum over positions, (n c).
        active: Share of positions above zero, (n c): a high maximum with a small share is a local feature that the mean dilutes.
        pictures: Feature visualizations of the units named in the figure, where given, (picture rgb h w) in [0,1].
        layer: The layer's name.
        names: Names of the images.
        unit_names: Names of the units (class names on the output layer); empty where there are none.
        reduce: What `values` holds: "mean" or "max".
        marked: The units that were asked about.
        pictured: The units of `pictures`.
        stuck: Those of them whose picture means nothing, see :class:`~convscope.FeatureVisualization`.
        lacking: Named units that have no picture in the folder that was given.
    """

    tabled: ClassVar[Rows] = Rows("n c", image="n:names", unit="c", unit_name="c:unit_names")

    values: Array = axes("n c", "series", unit="activation")
    maxima: Array = axes("n c", unit="activation")
    active: Array = axes("n c")
    pictures: Array = axes("picture rgb h w", "image")
    layer: str = ""
    names: tuple[str, ...] = ()
    unit_names: tuple[str, ...] = ()
    reduce: str = "mean"
    marked: tuple[int, ...] = ()
    pictured: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()
    lacking: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """The mean spectrum over the images, (c)."""
        return self.values.mean(0)

    def spikes(self, k: int = 10, image: int | None = None) -> list[tuple[int, float]]:
        """The k highest units of an image's spectrum (of the mean spectrum, if None): (unit, value), highest first, ties by number."""
        row = self.mean if image is None else self.values[image]
        return [(int(unit), float(row[unit])) for unit in np.argsort(-row, kind="stable")[:k]]

    def rank(self, unit: int) -> np.ndarray:
        """Rank of a unit in each image's spectrum, 1 = highest, (n); equal values share the better rank."""
        place = place_of(unit, range(self.values.shape[1]), "unit")
        return 1 + (self.values > self.values[:, place : place + 1]).sum(1)

    def even(self) -> tuple[int, ...]:
        """Of the highest units of each image, those whose map there is nearly constant: its maximum is hardly above its mean."""
        if self.reduce != "mean" or np.array_equal(self.values, self.maxima):  # a vector has no positions
            return ()
        high = [unit for image in range(len(self.names)) for unit, _ in self.spikes(_IN_SUMMARY, image)]
        flat = self.maxima <= _EVEN * self.values
        return tuple(unit for unit in dict.fromkeys(high) if flat[:, unit].all() and self.values[:, unit].min() > 0)

    def named(self) -> tuple[int, ...]:
        """The units that the figure has room to show a picture of: those asked about, then the highest of each row, each once."""
        rows = [_of(self.values, image) for image in self._rows()]
        return tuple(dict.fromkeys([*self.marked, *(unit for row in rows for unit in _outstanding(row)[:_TILES])]))

    def _rows(self) -> list[int | None]:
        """The rows with a plot of their own; None is the mean of all."""
        count = len(self.names)
        return [None] * (count > 1) + (list(range(count)) if count <= _MOST_PLOTS else [])

    def summary(self) -> str:
        """The five highest units of each image, and where the units asked about stand."""
        lines: list[str] = []
        for image, name in enumerate(self.names):
            named = [f"{words.unit_name(unit, self.unit_names)} ({value:.3g})" for unit, value in self.spikes(_IN_SUMMARY, image)]
            lines.append(f"{name}: {', '.join(named)}")
            for unit in self.marked:
                at = f"number {self.rank(unit)[image]} of {self.values.shape[1]} ({self.values[image, unit]:.3g})"
                lines.append(f"  unit {words.unit_name(unit, self.unit_names)}: {at}")
        if even := self.even():
            lines.append(
                f"the same value at every position: {words.listed(even, 8)}; such units often fire for any image, whatever it shows"
            )
        return self.with_skipped("\n".join([*lines, *filter(None, [_lacking(self)])]), "\n")

    def view(self) -> View:
        """The mean spectrum, then one row per image, or a matrix image x unit where there are many."""
        count, units = self.values.shape
        rows: list[Panel] = []
        for image in self._rows():
            rows += _row(self, image, f"mean of {count} images" if image is None else self.names[image])
        panels: list[Panel] = [Group(tuple(rows), 2)]
        if count > _MOST_PLOTS:
            panels.append(words.matrix(self.values, list(self.names), title="every image", unit=_y_label(self)))
        made: Mapping[str, Any] = self.manifest.get("made", {})
        note = words.note(
            f"Named are the units with at least a quarter of the highest value, {_SPIKES} at most.",
            "Violet: the units asked about." if self.marked else "",
            "Images at the right: feature visualizations of the named units." if self.pictured else "",
            f"Made for this figure ({words.recipe(made)}, seed {made['seed']}): {words.listed(made['units'], 24)}." if made else "",
            _lacking(self),
        )
        subtitle = words.subtitle(self, f"{units} units", words.plural(count, "image"))
        return View("Activation spectrum", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def _lacking(result: Spectrum) -> str:
    """Which named units have no picture."""
    if not result.lacking:
        return ""
    what = "none of the named units" if not result.pictured else "no picture of some named units"
    made = "make_pictures, on the command line --make-pictures, optimizes them here"
    return f"The folder of pictures has {what}: {words.listed(result.lacking, 12)} ({made})."


def _outstanding(values: np.ndarray) -> list[int]:
    """The units that are named in a plot of (c,) values, highest first: above the mean and at least a quarter of the highest."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:_SPIKES]
    least = max(float(np.nanmean(values)), float(np.nanmax(values)) / 4)
    return [int(unit) for unit in order if values[unit] >= least]


def _y_label(result: Spectrum) -> str:
    return f"{result.reduce} activation"


def _row(result: Spectrum, image: int | None, title: str) -> list[Panel]:
    """The spectrum of one image (of the mean, if None) as bars, and its named units as a table and their visualizations."""
    values = _of(result.values, image)
    chosen = list(dict.fromkeys([*result.marked, *_outstanding(values)]))
    named = {unit: words.unit_name(unit, result.unit_names) for unit in chosen}
    ranks = {unit: 1 + int((values > values[unit]).sum()) for unit in chosen}
    bars = Bars(values, title, "unit", _y_label(result), tuple(named.items()), marked=result.marked)
    pictures = dict(zip(result.pictured, result.pictures, strict=True))
    places = [unit for unit in chosen if unit in pictures][: _TILES + len(result.marked)]
    tiles = tuple(
        Image(
            pictures[unit],
            named[unit],
            f"{number(values[unit])}, rank {ranks[unit]}",
            "stuck" if unit in result.stuck else None,
            frame=_VIOLET if unit in result.marked else None,
        )
        for unit in places
    )
    maxima, active = _of(result.maxima, image), _of(result.active, image)
    rows = [
        (named[unit], str(ranks[unit]), number(values[unit]), number(maxima[unit]), f"{100 * active[unit]:.0f} %")
        for unit in sorted(chosen, key=lambda unit: ranks[unit])
    ]
    table = Table(("unit", "rank", result.reduce, "max", "active"), tuple(rows), "named units" if rows else "no unit stands out")
    return [bars, Group((table, Group(tiles, _ACROSS + (len(tiles) > _TILES), side=_SIDE)), 2) if tiles else table]


def _of(values: np.ndarray, image: int | None) -> np.ndarray:
    """One row of (n c), or the mean of all rows."""
    return values.mean(axis=0) if image is None else values[image]
