"""Class profiles: how well units tell each label's images from all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.render.panels import Bars, Group, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes

CHANCE = 0.05
"""Corrected p below this counts as a response."""


@dataclass(frozen=True, eq=False)
class ClassProfile(Result):
    """Every unit against every label.

    Attributes:
        auc: Probability that the unit is higher on an image of the label than on another image, ties half, (unit label).
        p: One-sided p-value of that, (unit label).
        p_corrected: The same corrected over all units and labels here, (unit label).
        effect: (mean over the label's images - mean over the others) / standard deviation of the others, (unit label); 0 where a unit
            never varies.
        counts: Images of each label, (label).
        layer: The layer's name.
        units: The units' numbers.
        labels: Class names of the units on "output", else "".
        classes: The labels of the images.
        reduce: What was compared: "mean" or "max" over positions.
        correction: "holm" (no false discovery at all) or "bh" (a bounded share of them).
    """

    auc: Array = axes("unit label", "values")
    p: Array = axes("unit label")
    p_corrected: Array = axes("unit label")
    effect: Array = axes("unit label")
    counts: Array = axes("label")
    layer: str = ""
    units: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    reduce: str = "mean"
    correction: str = "holm"

    def responds(self, unit: int) -> tuple[str, ...]:
        """The labels that a unit responds to beyond chance, best first."""
        row = self.units.index(unit)
        return tuple(
            self.classes[place] for place in self._ranked(self.auc[row], self.effect[row]) if self.p_corrected[row, place] < CHANCE
        )

    def best(self, label: str, count: int = 5) -> tuple[int, ...]:
        """The units that tell a label best from the rest; of equal AUC, those with the larger effect."""
        column = self.classes.index(label)
        return tuple(self.units[place] for place in self._ranked(self.auc[:, column], self.effect[:, column])[:count])

    @staticmethod
    def _ranked(auc: np.ndarray, effect: np.ndarray) -> np.ndarray:
        return np.lexsort((np.arange(len(auc)), -effect, -auc))

    def summary(self) -> str:
        """Each unit's best labels; with many units, each label's best units."""
        if len(self.units) <= 12:
            return "\n".join(self._line(row) for row in range(len(self.units)))
        lines: list[str] = []
        for column, label in list(enumerate(self.classes))[:12]:
            rows = self._ranked(self.auc[:, column], self.effect[:, column])[:4]
            named = ", ".join(f"{self._name(row)} (AUC {self.auc[row, column]:.3f})" for row in rows)
            images = f"{self.counts[column]} image{'s' if self.counts[column] != 1 else ''}"
            lines.append(f"{label} ({images}): best units {named}")
        more = len(self.classes) - len(lines)
        responding = int((self.p_corrected < CHANCE).any(1).sum())
        lines += [f"... and {more} more labels"] * (more > 0)
        lines.append(f"{responding} of {len(self.units)} units respond to a label beyond chance")
        if not responding and self.counts.min() == 1:
            lines.append("(a label with one image cannot: its p is at least one over the number of images, before it is corrected)")
        return "\n".join(lines)

    def _name(self, row: int) -> str:
        return f"{self.units[row]} {self.labels[row]}".strip()

    def _line(self, row: int) -> str:
        order = self._ranked(self.auc[row], self.effect[row])[:4]
        named = ", ".join(f"{self.classes[at]} (AUC {self.auc[row, at]:.3f}, p {self.p_corrected[row, at]:.2g})" for at in order)
        return f"unit {self._name(row)}: {named}"

    def view(self) -> View:
        """Bars for each of a few units; for many, a matrix and tables of the best labels and units."""
        panels: list[Panel] = []
        if len(self.units) <= _MOST_PLOTS:
            for row in range(len(self.units)):
                panels.append(Group((_bars(self, row), _table(self, row)), 2))
        else:
            whole = tuple(self.units) == tuple(range(len(self.units)))
            style: dict[str, Any] = {"unit": "AUC", "x_label": "unit" if whole else "units, as asked for", "limits": (0.5, 1.0)}
            panels.append(words.matrix(self.auc.T, list(map(str, self.classes)), title="AUC of every unit for every label", **style))
            panels.append(Group((_best_units(self), _best_labels(self)), 2))
        bounded = "any false discovery" if self.correction == "holm" else "the share of false discoveries"
        note = (
            f"AUC: probability that an image of the label excites the unit more than another image ({self.reduce} over positions); 0.5 is "
        )
        note += f"chance. p: Mann-Whitney, one-sided, corrected for {bounded} among all {self.auc.size} pairs of unit and label. "
        note += f"Orange: p below {_CHANCE:g}."
        parts = words.provenance(self), f"{int(self.counts.sum())} images of {len(self.classes)} labels"
        return View("Class profile", tuple(panels), subtitle=" · ".join(part for part in parts if part), note=note)


_MOST_PLOTS, _NAMED, _ROWS, _CHANCE = 6, 8, 30, 0.05


def _name(result: ClassProfile, row: int) -> str:
    return f"{result.units[row]} {result.labels[row]}".strip()


def _order(auc: np.ndarray, effect: np.ndarray) -> np.ndarray:
    return np.lexsort((np.arange(len(auc)), -effect, -auc))


def _bars(result: ClassProfile, row: int) -> Bars:
    order = _order(result.auc[row], result.effect[row])
    sure = tuple((int(place), str(result.classes[place])) for place in order if result.p_corrected[row, place] < _CHANCE)
    names = tuple(map(str, result.classes)) if len(result.classes) <= 12 else ()
    return Bars(result.auc[row], f"unit {_name(result, row)}", "label", "AUC", sure[:_NAMED], names, baseline=0.5)


def _table(result: ClassProfile, row: int) -> Table:
    order = _order(result.auc[row], result.effect[row])[:_NAMED]
    numbers = (result.auc[row], result.effect[row], result.p_corrected[row])
    cells = tuple((str(result.classes[at]), *(number(each[at]) for each in numbers)) for at in order)
    return Table(("label", "AUC", "effect", "p corrected"), cells, "best labels")


def _best_units(result: ClassProfile) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in list(enumerate(result.classes))[:_ROWS]:
        order = _order(result.auc[:, column], result.effect[:, column])[:3]
        rows.append((str(label), ", ".join(f"{_name(result, row)} ({result.auc[row, column]:.2f})" for row in order)))
    return Table(("label", "units (AUC)"), tuple(rows), _first("best units of each label", len(result.classes)))


def _best_labels(result: ClassProfile) -> Table:
    rows: list[tuple[str, ...]] = []
    best = [int(_order(auc, effect)[0]) for auc, effect in zip(result.auc, result.effect, strict=True)]
    height, gap = (values[np.arange(len(best)), best] for values in (result.auc, result.effect))
    for row in _order(height, gap)[:_ROWS].tolist():
        at = best[row]
        p = number(result.p_corrected[row, at])
        rows.append((_name(result, row), str(result.classes[at]), number(result.auc[row, at]), p))
    return Table(("unit", "label", "AUC", "p corrected"), tuple(rows), _first("best label of each unit", len(result.units)))


def _first(title: str, count: int) -> str:
    return f"{title} (first {_ROWS} of {count})" if count > _ROWS else title
