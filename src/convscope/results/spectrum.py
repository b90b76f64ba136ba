"""Channel spectra: a bar per channel, the highest ones named, with what those channels look for beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Bars, Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes


@dataclass(frozen=True, eq=False)
class Spectrum(ImageResult):
    """A spectrum per image.

    Attributes:
        values: Mean (or maximum) over positions of every unit, (n c).
        maxima: Maximum over positions, (n c).
        active: Share of positions above zero, (n c): a high maximum with a small share is a local feature that the mean dilutes.
        pictures: What the highest units look for, where pictures of them were given, (picture rgb h w) in [0,1].
        layer: The layer's name.
        names: Names of the images.
        labels: Names of the units (class names on the output layer); empty where there are none.
        reduce: What `values` holds: "mean" or "max".
        pictured: The units of `pictures`.
    """

    values: Array = axes("n c", "series", unit="activation")
    maxima: Array = axes("n c", unit="activation")
    active: Array = axes("n c")
    pictures: Array = axes("picture rgb h w", "image")
    layer: str = ""
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
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

    def summary(self) -> str:
        """The five highest units of each image."""
        lines: list[str] = []
        for image, name in enumerate(self.names):
            named = [f"{unit}{f' {self.labels[unit]}' if self.labels else ''} ({value:.3g})" for unit, value in self.spikes(5, image)]
            lines.append(f"{name}: {', '.join(named)}")
        return self.with_skipped("\n".join(lines), "\n")

    def rank(self, unit: int) -> np.ndarray:
        """Place of a unit in each image's spectrum, 1 = highest, (n); equal values share the better place."""
        return 1 + (self.values > self.values[:, unit : unit + 1]).sum(1)

    def view(self) -> View:
        """The mean spectrum, then one row per image, or a matrix image x channel where there are many."""
        count, channels = self.values.shape
        parts = words.provenance(self), f"{channels} channels", f"{count} image{'s' if count != 1 else ''}"
        panels: list[Panel] = []
        if count > 1:
            panels.extend(_row(self, self.values.mean(axis=0), None, f"mean of {count} images"))
        note = f"Named are the channels with at least a quarter of the highest value, {_SPIKES} at most. "
        if count <= _MOST_PLOTS:
            for row in range(count):
                panels.extend(_row(self, self.values[row], row, self.names[row]))
        shown: tuple[Panel, ...] = (Group(tuple(panels), 2),)
        if count > _MOST_PLOTS:
            shown = (*shown, words.matrix(self.values, list(self.names), title="every image", unit=_y_label(self)))
        if self.pictured:
            note += "Pictures: what the named channels look for (feature visualization)."
        return View("Channel spectrum", shown, subtitle=" · ".join(part for part in parts if part), note=self.with_skipped(note.strip()))


_SPIKES, _MOST_PLOTS, _TILES = 8, 8, 6


def spikes(values: np.ndarray, count: int) -> list[int]:
    """The channels with the highest values (c,), highest first: above the mean and at least a quarter of the highest."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:count]
    least = max(float(np.nanmean(values)), float(np.nanmax(values)) / 4)
    return [int(index) for index in order if values[index] >= least]


def _y_label(result: Spectrum) -> str:
    return f"{result.reduce} activation"


def _row(result: Spectrum, values: np.ndarray, row: int | None, title: str) -> list[Panel]:
    chosen = spikes(values, _SPIKES)
    named = tuple((unit, words.unit_name(unit, result.labels)) for unit in chosen)
    bars = Bars(values, title, "channel", _y_label(result), named)
    pictures = dict(zip(result.pictured, result.pictures, strict=True))
    tiles = tuple(
        Image(pictures[unit], words.unit_name(unit, result.labels), number(values[unit])) for unit in chosen[:_TILES] if unit in pictures
    )
    table = _table(result, values, row, chosen)
    return [bars, Group((table, Group(tiles, 3, side=104)), 2) if tiles else table]


def _table(result: Spectrum, values: np.ndarray, row: int | None, chosen: list[int]) -> Table:
    """The highest channels: value, maximum over positions, share of active positions (of one image, or the mean over images)."""
    maxima = result.maxima.mean(axis=0) if row is None else result.maxima[row]
    active = result.active.mean(axis=0) if row is None else result.active[row]
    rows = [
        (words.unit_name(unit, result.labels), number(values[unit]), number(maxima[unit]), f"{100 * active[unit]:.0f} %") for unit in chosen
    ]
    return Table(("channel", result.reduce, "max", "active"), tuple(rows), "highest channels" if rows else "no channel stands out")
