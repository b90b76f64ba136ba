"""Activation spectra: the mean or maximum activation of every unit of a layer on each image, the highest units named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Bars, Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

_SPIKES, _MOST_PLOTS = 8, 8
_TILES, _ACROSS, _SIDE = 6, 3, 104
_IN_SUMMARY = 5


@dataclass(frozen=True, eq=False)
class Spectrum(ImageResult):
    """A spectrum per image.

    Attributes:
        values: Mean (or maximum) over positions of every unit, (n c).
        maxima: Maximum over positions, (n c).
        active: Share of positions above zero, (n c): a high maximum with a small share is a local feature that the mean dilutes.
        pictures: Feature visualizations of the highest units, where given, (picture rgb h w) in [0,1].
        layer: The layer's name.
        names: Names of the images.
        unit_names: Names of the units (class names on the output layer); empty where there are none.
        reduce: What `values` holds: "mean" or "max".
        pictured: The units of `pictures`.
    """

    values: Array = axes("n c", "series", unit="activation")
    maxima: Array = axes("n c", unit="activation")
    active: Array = axes("n c")
    pictures: Array = axes("picture rgb h w", "image")
    layer: str = ""
    names: tuple[str, ...] = ()
    unit_names: tuple[str, ...] = ()
    reduce: str = "mean"
    pictured: tuple[int, ...] = ()

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
        return 1 + (self.values > self.values[:, unit : unit + 1]).sum(1)

    def summary(self) -> str:
        """The five highest units of each image."""
        lines: list[str] = []
        for image, name in enumerate(self.names):
            named = [f"{words.unit_name(unit, self.unit_names)} ({value:.3g})" for unit, value in self.spikes(_IN_SUMMARY, image)]
            lines.append(f"{name}: {', '.join(named)}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """The mean spectrum, then one row per image, or a matrix image x unit where there are many."""
        count, units = self.values.shape
        rows: list[Panel] = []
        if count > 1:
            rows += _row(self, None, f"mean of {count} images")
        if count <= _MOST_PLOTS:
            for image, name in enumerate(self.names):
                rows += _row(self, image, name)
        panels: list[Panel] = [Group(tuple(rows), 2)]
        if count > _MOST_PLOTS:
            panels.append(words.matrix(self.values, list(self.names), title="every image", unit=_y_label(self)))
        note = words.note(
            f"Named are the units with at least a quarter of the highest value, {_SPIKES} at most.",
            "Images at the right: feature visualizations of the named units." if self.pictured else "",
        )
        subtitle = words.subtitle(self, f"{units} units", words.plural(count, "image"))
        return View("Activation spectrum", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def _outstanding(values: np.ndarray) -> list[int]:
    """The units that are named in a plot of (c,) values, highest first: above the mean and at least a quarter of the highest."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:_SPIKES]
    least = max(float(np.nanmean(values)), float(np.nanmax(values)) / 4)
    return [int(unit) for unit in order if values[unit] >= least]


def _y_label(result: Spectrum) -> str:
    return f"{result.reduce} activation"


def _row(result: Spectrum, image: int | None, title: str) -> list[Panel]:
    """The spectrum of one image (of the mean, if None) as bars, and its highest units as a table and their visualizations."""
    values = _of(result.values, image)
    chosen = _outstanding(values)
    named = {unit: words.unit_name(unit, result.unit_names) for unit in chosen}
    bars = Bars(values, title, "unit", _y_label(result), tuple(named.items()))
    pictures = dict(zip(result.pictured, result.pictures, strict=True))
    tiles = tuple(Image(pictures[unit], named[unit], number(values[unit])) for unit in chosen[:_TILES] if unit in pictures)
    maxima, active = _of(result.maxima, image), _of(result.active, image)
    rows = [(named[unit], number(values[unit]), number(maxima[unit]), f"{100 * active[unit]:.0f} %") for unit in chosen]
    table = Table(("unit", result.reduce, "max", "active"), tuple(rows), "highest units" if rows else "no unit stands out")
    return [bars, Group((table, Group(tiles, _ACROSS, side=_SIDE)), 2) if tiles else table]


def _of(values: np.ndarray, image: int | None) -> np.ndarray:
    """One row of (n c), or the mean of all rows."""
    return values.mean(axis=0) if image is None else values[image]
