"""How a detector did: confusion matrices with counts, ROC and precision-recall curves, and the numbers, for each survey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from convscope.results.base import Array, Result, axes

if TYPE_CHECKING:
    pass
from convscope.render.panels import Counts, Curves, Group, Line, Panel, Table, View
from convscope.results import words
from convscope.results.detector import NAMES, interval

DECISIONS = ("maps", "output", "probe", "network")
"""Ways to come to a decision: the three methods by their thresholds, and the network by its own rule, without a threshold of ours."""


CurvePoints: TypeAlias = tuple[tuple[tuple[np.ndarray, ...], ...], ...]
"""[survey][method][label]: (2 points), empty where a survey has no image of the class, or nothing else."""


@dataclass(frozen=True, eq=False)
class DetectorEvaluation(Result):
    """What alarms were worth on each survey. What has no images to be measured on is NaN.

    Attributes:
        confusion: Images by their label and what they were taken for, (survey decision truth predicted); the last column is "none". By
            thresholds: of the classes that alarm, the one furthest above its threshold, in standard deviations of the validation scores.
        alarms: Images by their label and the classes that alarm, (survey decision truth label); an image may alarm for several.
        counts: Images of each label, (survey truth).
        recall: Share of a class's images that alarm for it, (survey decision label).
        precision: Share of a class's alarms that are its images, (survey decision label).
        fpr: Share of other images that alarm for it, (survey decision label).
        recall_intervals: Bootstrap intervals of recall, (survey method label end).
        auc: Area under the ROC curve, (survey method label).
        auc_intervals: Bootstrap intervals of it, (survey method label end).
        ap: Average precision, (survey method label).
        roc: False and true positive rates, [survey][method][label] of (2 points).
        pr: Recall and precision, likewise.
        layer: The layer's name.
        classes: The classes that alarms are for.
        truths: All labels.
        surveys: The surveys' names.
        confidence: Of the intervals.
    """

    confusion: Array = axes("survey decision truth predicted")
    alarms: Array = axes("survey decision truth label")
    counts: Array = axes("survey truth")
    recall: Array = axes("survey decision label")
    precision: Array = axes("survey decision label")
    fpr: Array = axes("survey decision label")
    recall_intervals: Array = axes("survey method label end")
    auc: Array = axes("survey method label")
    auc_intervals: Array = axes("survey method label end")
    ap: Array = axes("survey method label")
    roc: CurvePoints = ()
    pr: CurvePoints = ()
    layer: str = ""
    classes: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()
    surveys: tuple[str, ...] = ()
    confidence: float = 0.95

    def summary(self) -> str:
        """Recall, false positive rate and area of each class, survey and way to decide."""
        lines: list[str] = []
        for place, survey in enumerate(self.surveys):
            for column, label in enumerate(self.classes):
                lines.append(f"{survey}, {label}:")
                for row, name in enumerate(DECISIONS):
                    at = place, row, column
                    rates = f"recall {percent(self.recall[at])}, false alarms {percent(self.fpr[at])}"
                    area = f", AUC {self.auc[at]:.3f}" if name != "network" else " (its own decision)"
                    lines.append(f"  {name:8}{rates}{area}")
        return "\n".join(lines)

    def view(self) -> View:
        """A row of confusion matrices for each survey, a row of curves for each class, a table."""
        panels: list[Panel] = []
        if len(self.truths) <= _MOST_TRUTHS:
            panels += [
                Group(tuple(_confusion(self, survey, decision) for decision in range(4)), 4 if len(self.classes) <= 3 else 2, name)
                for survey, name in enumerate(self.surveys)
            ]
        for column, label in list(enumerate(self.classes))[:_MOST_CLASSES]:
            plots = (_curves(self, column, "roc"), _curves(self, column, "pr"))
            panels.append(Group(plots, 2, f"{label}: alarms at every threshold"))
        panels.append(_table(self))
        note = "Rows of a confusion matrix are what images are (framed: right), columns what they were taken for: of the classes that alarm, the "
        note += "one furthest above its threshold; 'none': no alarm. The network's own decision: its largest output, no threshold. "
        note += "Recall and false alarms count every class that alarms, also when several do. "
        note += f"In brackets: {100 * self.confidence:g} % bootstrap intervals. Solid line: {self.surveys[0]}"
        note += "; dashed: " + ", ".join(self.surveys[1:]) + "." if len(self.surveys) > 1 else "."
        return View("Detector on other images", tuple(panels), subtitle=words.provenance(self), note=note)


def percent(share: float) -> str:
    """A share as a percentage, "n/a" for NaN."""
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


_MOST_TRUTHS, _MOST_CLASSES, _MOST_ROWS = 12, 4, 40


_DECISIONS = tuple(NAMES)


def _confusion(result: DetectorEvaluation, survey: int, decision: int) -> Counts:
    shown = np.flatnonzero(result.counts[survey])
    classes = len(result.classes)
    right = tuple(int(min(truth, classes)) for truth in shown)
    rows, columns = tuple(result.truths[truth] for truth in shown), (*result.classes, "none")
    return Counts(result.confusion[survey, decision][shown], rows, columns, NAMES[_DECISIONS[decision]], "is \\ taken for", right)


def _curves(result: DetectorEvaluation, column: int, kind: str) -> Curves:
    lines: list[Line] = []
    for survey in reversed(range(len(result.surveys))):
        for method, name in reversed(list(enumerate(_DECISIONS[:3]))):
            x, y = getattr(result, kind)[survey][method][column]
            area = (result.auc if kind == "roc" else result.ap)[survey, method, column]
            if len(x):
                after = "" if len(result.surveys) == 1 else f", {result.surveys[survey]}"
                lines.append(Line(f"{NAMES[name]}{after} ({area:.3f})", x, y, method, dashed=survey > 0))
    title, x_label, y_label = (
        ("ROC (area)", "false alarms, share of other images", "recall")
        if kind == "roc"
        else ("precision and recall (average precision)", "recall", "precision")
    )
    return Curves(tuple(lines), title, x_label, y_label, (-0.02, 1.02, -0.02, 1.04), kind == "roc", width=620)


def _table(result: DetectorEvaluation) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in enumerate(result.classes):
        for survey, name in enumerate(result.surveys):
            for decision, method in enumerate(_DECISIONS):
                at = survey, decision, column
                recall = _percent(result.recall[at])
                area = average = ""
                if decision < 3:
                    recall += f" {_percents(result.recall_intervals[at])}"
                    area = f"{_three(result.auc[at])} {interval(result.auc_intervals[at])}"
                    average = _three(result.ap[at])
                rates = recall, _percent(result.fpr[at]), _percent(result.precision[at])
                rows.append((label, name, NAMES[method], *rates, area.strip(), average))
    title = f"first {_MOST_ROWS} of {len(rows)} rows" if len(rows) > _MOST_ROWS else ""
    header = ("class", "survey", "method", "recall", "false alarms", "precision", "AUC", "average precision")
    return Table(header, tuple(rows[:_MOST_ROWS]), title)


def _percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


def _percents(ends: np.ndarray) -> str:
    return "" if np.isnan(ends).any() else f"[{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]"


def _three(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3f}"
