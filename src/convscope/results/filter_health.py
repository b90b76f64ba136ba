"""Result of `filter_health`: dead, constant, saturated and duplicate units of each layer, and how often units are zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.names import place_of
from convscope.render.panels import Bars, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows
from convscope.text import percent

_MOST_LAYERS, _MOST_PLOTS, _LISTED = 60, 4, 10
_FINDINGS = ("dead", "structural", "constant", "saturated", "duplicate")
_RECTIFIED_ONLY = ("dead", "structural")
"""Findings that make sense only behind a ReLU."""


@dataclass(frozen=True, eq=False)
class FilterHealth(Result):
    """A row for each unit of each layer. Flags are 0 or 1.

    Attributes:
        units: The unit's number in its layer, (unit).
        layer_index: Its layer as an index into `layers`, (unit).
        maximum: Largest activation over images and positions, (unit).
        apoz: Average percentage of zeros: share of activations that are not above zero, in [0,1], (unit).
        bound: Upper bound of its activation for any input, (unit); NaN if not known.
        dead: Never above zero on this data (only behind a ReLU), (unit). Zero: less than a billionth of the layer's largest.
        structural: Cannot be above that on any data, (unit).
        constant: The same mean and maximum on every image, but not dead, (unit).
        saturated: At least 5 % of the activations are within 2 % of the largest, and it is not constant, (unit).
        twin: The lowest unit of the layer that it duplicates, -1 for none, (unit).
        likeness: Correlation with that unit over images, the lower one of means and of maxima, (unit); NaN for none.
        layers: The layers' names.
        rectified: Whether each layer's values are those after its ReLU.
        images: How many images were seen.
        paired: Whether duplicates were looked for (not in a survey of summaries, nor among fewer than 3 images).
    """

    tabled: ClassVar[Rows] = Rows("unit", unit="unit:units")

    units: Array = axes("unit")
    layer_index: Array = axes("unit")
    maximum: Array = axes("unit", unit="activation")
    apoz: Array = axes("unit", "series", unit="share of positions")
    bound: Array = axes("unit", unit="activation")
    dead: Array = axes("unit")
    structural: Array = axes("unit")
    constant: Array = axes("unit")
    saturated: Array = axes("unit")
    twin: Array = axes("unit")
    likeness: Array = axes("unit")
    layers: tuple[str, ...] = ()
    rectified: tuple[bool, ...] = ()
    images: int = 0
    paired: bool = True

    @property
    def alive_below(self) -> float:
        """A unit that is dead on all n images is alive on fewer than this share of such images, with 95 % confidence: 3 / n."""
        return min(3 / max(self.images, 1), 1.0)

    def of(self, layer: str) -> dict[str, list[int]]:
        """{finding: units} of one layer: dead, structural, constant, saturated, duplicate."""
        return {name: self.units[rows].tolist() for name, rows in _rows(self, place_of(layer, self.layers, "layer")).items()}

    def summary(self) -> str:
        """A line for each layer with a finding, and what "dead" means on so many images."""
        lines: list[str] = []
        for index, layer in enumerate(self.layers):
            found = [f"{len(units)} {name}" for name, units in self.of(layer).items() if units]
            if found:
                lines.append(f"{layer} ({int((self.layer_index == index).sum())} units): {', '.join(found)}")
        dead = int(self.dead.sum())
        clean = len(self.layers) - len(lines)
        if clean:
            lines.append(f"{clean} of {len(self.layers)} layers have nothing to report")
        rare = f"with 95 % confidence, active on fewer than {percent(self.alive_below, least=0)} of such"
        lines.append(f"{dead} of {len(self.dead)} units dead on {self.images} images: {rare}")
        if not self.paired:
            lines.append("duplicates were not looked for: that takes the activations on each of at least 3 images, which this survey lacks")
        return "\n".join(lines)

    def view(self) -> View:
        """A table of all layers, the units concerned, and for few layers the share of zeros of every unit."""
        panels: list[Panel] = [_counts(self)]
        concerned = _concerned(self)
        if concerned.rows:
            panels.append(concerned)
        if len(self.layers) <= _MOST_PLOTS:
            panels += [_zeros(self, index) for index in range(len(self.layers))]
        note = words.note(
            f"Dead: never above zero on these {self.images} images, so active on fewer than {percent(self.alive_below, least=0)} of such",
            "images (95 %, rule of three). Structural: cannot be above zero on any image. Constant: the same on every image. Saturated: at",
            "least 5 % of all activations within 2 % of the largest. Duplicate: means and maxima over images correlate with those of an",
            "earlier unit. Zeros: average percentage of zeros.",
            "" if self.paired else "Duplicates were not looked for: this survey lacks the activations on each image.",
        )
        count = f"{len(self.units)} units of {words.plural(len(self.layers), 'layer')}"
        return View("Filter health", tuple(panels), subtitle=words.subtitle(self, count), note=note)


def _rows(result: FilterHealth, index: int) -> dict[str, np.ndarray]:
    """{finding: rows of the units of one layer that have it}."""
    flags = (result.dead > 0, result.structural > 0, result.constant > 0, result.saturated > 0, result.twin >= 0)
    own = result.layer_index == index
    return {name: np.flatnonzero(flag & own) for name, flag in zip(_FINDINGS, flags, strict=True)}


def _counts(result: FilterHealth) -> Table:
    rows: list[tuple[str, ...]] = []
    for index, layer in list(enumerate(result.layers))[:_MOST_LAYERS]:
        own, rectified, found = result.layer_index == index, result.rectified[index], _rows(result, index)
        counts = ["n/a" if name in _RECTIFIED_ONLY and not rectified else str(len(units) or "-") for name, units in found.items()]
        zeros = f"{100 * np.median(result.apoz[own]):.0f} %" if rectified else "n/a"
        rows.append((layer, str(int(own.sum())), *counts, zeros))
    return Table(("layer", "units", *_FINDINGS, "zeros, median"), tuple(rows), words.first(_MOST_LAYERS, len(result.layers), "layers"))


def _concerned(result: FilterHealth) -> Table:
    lines: list[tuple[str, ...]] = []
    for index, layer in enumerate(result.layers):
        for name, rows in _rows(result, index).items():
            if not len(rows):
                continue
            found = zip(result.units[rows], result.twin[rows], result.likeness[rows], strict=True)
            listed = [f"{unit} = {twin} (r {number(r)})" if name == "duplicate" else str(unit) for unit, twin, r in found]
            lines.append((layer, name, ", ".join(listed[:_LISTED]) + (f", ... ({len(listed)})" if len(listed) > _LISTED else "")))
    return Table(("layer", "finding", "units"), tuple(lines[:_MOST_LAYERS]), "which units")


def _zeros(result: FilterHealth, index: int) -> Bars:
    own = result.layer_index == index
    dead = tuple((int(unit), str(unit)) for unit in np.flatnonzero(result.dead[own])[:_LISTED])
    return Bars(100 * result.apoz[own], f"{result.layers[index]}: share of zeros", "unit", "% of positions", dead)
