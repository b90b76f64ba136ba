"""Result of `class_profile`: how well each unit separates the images of each label from all others (AUC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from convscope.names import place_of
from convscope.render.panels import Bars, Group, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows
from convscope.statistics import SIGNIFICANCE

_MOST_PLOTS, _NAMED, _ROWS, _BEST, _NAMED_BARS = 6, 8, 30, 3, 12
_MOST_LINES, _BEST_IN_SUMMARY = 12, 4


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
        unit_names: Class names of the units on "output", else "".
        labels: The labels of the images.
        reduce: What was compared: "mean" or "max" over positions.
        correction: "holm" (no false discovery at all) or "bh" (a bounded share of them).
    """

    tabled: ClassVar[Rows] = Rows("unit label", unit="unit:units", unit_name="unit:unit_names", label="label:labels")

    auc: Array = axes("unit label", "values")
    p: Array = axes("unit label")
    p_corrected: Array = axes("unit label")
    effect: Array = axes("unit label")
    counts: Array = axes("label")
    layer: str = ""
    units: tuple[int, ...] = ()
    unit_names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    reduce: str = "mean"
    correction: str = "holm"

    def responds(self, unit: int) -> tuple[str, ...]:
        """The labels that a unit responds to significantly (corrected p below 0.05), best first."""
        return tuple(self.labels[column] for column in _responses(self, place_of(unit, self.units, "unit")))

    def best(self, label: str, count: int = 5) -> tuple[int, ...]:
        """The units that separate a label best from the rest; of equal AUC, those with the larger effect."""
        return tuple(self.units[row] for row in _best_units(self, place_of(label, self.labels, "label"))[:count])

    def summary(self) -> str:
        """Each unit's best labels; with many units, each label's best units."""
        if len(self.units) <= _MOST_LINES:
            return "\n".join(self._line(row) for row in range(len(self.units)))
        lines: list[str] = []
        for column, label in list(enumerate(self.labels))[:_MOST_LINES]:
            best = _best_units(self, column)[:_BEST_IN_SUMMARY]
            named = ", ".join(f"{_name(self, row)} (AUC {self.auc[row, column]:.3f})" for row in best)
            lines.append(f"{label} ({words.plural(int(self.counts[column]), 'image')}): best units {named}")
        more = len(self.labels) - len(lines)
        responding = int((self.p_corrected < SIGNIFICANCE).any(1).sum())
        lines += [f"... and {more} more labels"] * (more > 0)
        lines.append(f"{responding} of {len(self.units)} units respond to a label significantly (corrected p below {SIGNIFICANCE:g})")
        if not responding and self.counts.min() == 1:
            lines.append("(a label with one image cannot: its p is at least one over the number of images, before it is corrected)")
        return "\n".join(lines)

    def _line(self, row: int) -> str:
        best = _best_labels(self, row)[:_BEST_IN_SUMMARY]
        named = ", ".join(f"{self.labels[at]} (AUC {self.auc[row, at]:.3f}, p {self.p_corrected[row, at]:.2g})" for at in best)
        return f"unit {_name(self, row)}: {named}"

    def view(self) -> View:
        """Bars for each of a few units; for many, a matrix and tables of the best labels and units."""
        panels: list[Panel] = []
        if len(self.units) <= _MOST_PLOTS:
            panels += [Group((_bars(self, row), _table(self, row)), 2) for row in range(len(self.units))]
        else:
            whole = self.units == tuple(range(len(self.units)))
            style: dict[str, Any] = {"unit": "AUC", "x_label": "unit" if whole else "units, as asked for", "limits": (0.5, 1.0)}
            panels.append(words.matrix(self.auc.T, list(map(str, self.labels)), title="AUC of every unit for every label", **style))
            panels.append(Group((_units_table(self), _labels_table(self)), 2))
        bounded = "any false discovery" if self.correction == "holm" else "the share of false discoveries"
        note = words.note(
            f"AUC: probability that the unit is higher on an image of the label than on another image ({self.reduce} over positions); 0.5",
            f"is chance. p: Mann-Whitney, one-sided, corrected for {bounded} among all {self.auc.size} pairs of unit and label.",
            f"Orange bars: p below {SIGNIFICANCE:g}." if len(self.units) <= _MOST_PLOTS else "",
        )
        subtitle = words.subtitle(self, f"{int(self.counts.sum())} images of {len(self.labels)} labels")
        return View("Class profile", tuple(panels), subtitle=subtitle, note=note)


def _ranked(auc: np.ndarray, effect: np.ndarray) -> list[int]:
    """Indices from the highest AUC to the lowest, ties by effect, then by index."""
    return np.lexsort((np.arange(len(auc)), -effect, -auc)).tolist()


def _best_labels(result: ClassProfile, row: int) -> list[int]:
    return _ranked(result.auc[row], result.effect[row])


def _best_units(result: ClassProfile, column: int) -> list[int]:
    return _ranked(result.auc[:, column], result.effect[:, column])


def _responses(result: ClassProfile, row: int) -> list[int]:
    """Columns of the labels that a unit responds to significantly, best first."""
    return [column for column in _best_labels(result, row) if result.p_corrected[row, column] < SIGNIFICANCE]


def _name(result: ClassProfile, row: int) -> str:
    return words.named(result.units[row], result.unit_names[row])


def _bars(result: ClassProfile, row: int) -> Bars:
    significant = tuple((column, str(result.labels[column])) for column in _responses(result, row)[:_NAMED])
    names = tuple(map(str, result.labels)) if len(result.labels) <= _NAMED_BARS else ()
    return Bars(result.auc[row], f"unit {_name(result, row)}", "label", "AUC", significant, names, baseline=0.5, limits=(0.0, 1.0))


def _table(result: ClassProfile, row: int) -> Table:
    numbers = (result.auc[row], result.effect[row], result.p_corrected[row])
    cells = tuple((str(result.labels[at]), *(number(each[at]) for each in numbers)) for at in _best_labels(result, row)[:_NAMED])
    return Table(("label", "AUC", "effect", "p corrected"), cells, "best labels")


def _units_table(result: ClassProfile) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in list(enumerate(result.labels))[:_ROWS]:
        best = _best_units(result, column)[:_BEST]
        rows.append((str(label), ", ".join(f"{_name(result, row)} ({result.auc[row, column]:.2f})" for row in best)))
    return Table(("label", "units (AUC)"), tuple(rows), _title("best units of each label", len(result.labels)))


def _labels_table(result: ClassProfile) -> Table:
    best = [_best_labels(result, row)[0] for row in range(len(result.units))]
    auc, effect = (values[np.arange(len(best)), best] for values in (result.auc, result.effect))
    rows = [
        (_name(result, row), str(result.labels[best[row]]), number(auc[row]), number(result.p_corrected[row, best[row]]))
        for row in _ranked(auc, effect)[:_ROWS]
    ]
    return Table(("unit", "label", "AUC", "p corrected"), tuple(rows), _title("best label of each unit", len(result.units)))


def _title(title: str, count: int) -> str:
    return f"{title} ({words.first(_ROWS, count)})" if count > _ROWS else title
