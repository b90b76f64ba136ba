"""Result of `detector_evaluation`: confusion matrices, ROC and precision-recall curves, and rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from convscope.render.panels import Counts, Curves, Group, Line, Panel, Table, View
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.detector import METHODS, NAMES, interval
from convscope.results.table import Rows

DECISIONS = (*METHODS, "network")
"""Ways to decide: the three methods by their thresholds, and the network by its own rule, without a threshold."""

CurvePoints: TypeAlias = tuple[tuple[tuple[np.ndarray, ...], ...], ...]
"""[survey][method][label]: (2 points), empty where a survey has no image of the class, or nothing else."""

_MOST_TRUTHS, _MOST_CLASSES, _MOST_ROWS, _WIDTH = 12, 4, 40, 620


@dataclass(frozen=True, eq=False)
class DetectorEvaluation(Result):
    """How a detector's alarms did on each survey. What has no images to be measured on is NaN.

    Attributes:
        confusion: Images by their label and predicted class, (survey decision truth predicted); the last column is "none". By
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
        roc: False and true positive rates, by survey, method and label, each (2 points).
        pr: Recall and precision, likewise.
        layer: The layer's name.
        classes: The classes that alarms are for.
        labels: All labels.
        surveys: The surveys' names.
        confidence: Of the intervals.
    """

    tabled: ClassVar[Rows] = Rows("survey decision label", survey="survey:surveys", decision=DECISIONS, label="label:classes")

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
    labels: tuple[str, ...] = ()
    surveys: tuple[str, ...] = ()
    confidence: float = 0.95

    def summary(self) -> str:
        """Recall, false positive rate and area of each class, survey and way to decide."""
        lines: list[str] = []
        for survey, name in enumerate(self.surveys):
            for column, label in enumerate(self.classes):
                lines.append(f"{name}, {label}:")
                for row, decision in enumerate(DECISIONS):
                    at = survey, row, column
                    rates = f"recall {_percent(self.recall[at])}, false alarms {_percent(self.fpr[at])}"
                    area = f", AUC {self.auc[at]:.3f}" if decision in METHODS else " (its own decision)"
                    lines.append(f"  {decision:8}{rates}{area}")
        return "\n".join(lines)

    def view(self) -> View:
        """A row of confusion matrices for each survey, a row of curves for each class, a table."""
        panels: list[Panel] = []
        if len(self.labels) <= _MOST_TRUTHS:
            columns = len(DECISIONS) if len(self.classes) <= 3 else 2
            for survey, name in enumerate(self.surveys):
                panels.append(Group(tuple(_confusion(self, survey, decision) for decision in range(len(DECISIONS))), columns, name))
        for column, label in list(enumerate(self.classes))[:_MOST_CLASSES]:
            panels.append(Group((_roc(self, column), _precision_recall(self, column)), 2, f"{label}: alarms at every threshold"))
        panels.append(_table(self))
        first, *rest = self.surveys
        others = f"; dashed: {', '.join(rest)}" if rest else ""
        note = words.note(
            "Rows of a confusion matrix are labels (framed: right), columns predictions: of the classes that alarm, the",
            "one furthest above its threshold; 'none': no alarm. The network's own decision: its largest output, no threshold.",
            "Recall and false alarms count every class that alarms, also when several do.",
            f"In brackets: {100 * self.confidence:g} % bootstrap intervals. Solid line: {first}{others}.",
        )
        return View("Detector on other images", tuple(panels), subtitle=words.subtitle(self), note=note)


def _confusion(result: DetectorEvaluation, survey: int, decision: int) -> Counts:
    shown = np.flatnonzero(result.counts[survey])
    classes = len(result.classes)
    right = tuple(int(min(truth, classes)) for truth in shown)
    rows, columns = tuple(result.labels[truth] for truth in shown), (*result.classes, "none")
    return Counts(result.confusion[survey, decision][shown], rows, columns, NAMES[DECISIONS[decision]], "label \\ predicted", right)


def _roc(result: DetectorEvaluation, column: int) -> Curves:
    lines = _lines(result, result.roc, result.auc, column)
    return _curves(lines, "ROC (area)", "false alarms, share of other images", "recall", diagonal=True)


def _precision_recall(result: DetectorEvaluation, column: int) -> Curves:
    lines = _lines(result, result.pr, result.ap, column)
    return _curves(lines, "precision and recall (average precision)", "recall", "precision", diagonal=False)


def _lines(result: DetectorEvaluation, points: CurvePoints, areas: np.ndarray, column: int) -> tuple[Line, ...]:
    """A line for each survey and method, the first survey's last, so that they lie on top."""
    lines: list[Line] = []
    for survey in reversed(range(len(result.surveys))):
        of = "" if len(result.surveys) == 1 else f", {result.surveys[survey]}"
        for method in reversed(range(len(METHODS))):
            x, y = points[survey][method][column]
            if len(x):
                name = f"{NAMES[METHODS[method]]}{of} ({areas[survey, method, column]:.3f})"
                lines.append(Line(name, x, y, method, dashed=survey > 0))
    return tuple(lines)


def _curves(lines: tuple[Line, ...], title: str, x_label: str, y_label: str, *, diagonal: bool) -> Curves:
    return Curves(lines, title, x_label, y_label, (-0.02, 1.02, -0.02, 1.04), diagonal, width=_WIDTH)


def _table(result: DetectorEvaluation) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in enumerate(result.classes):
        for survey, name in enumerate(result.surveys):
            for row, decision in enumerate(DECISIONS):
                at = survey, row, column
                recall = _percent(result.recall[at])
                area = average = ""
                if decision in METHODS:
                    recall += f" {_percents(result.recall_intervals[at])}"
                    area = f"{_three(result.auc[at])} {interval(result.auc_intervals[at])}".strip()
                    average = _three(result.ap[at])
                rows.append((label, name, NAMES[decision], recall, _percent(result.fpr[at]), _percent(result.precision[at]), area, average))
    title = words.first(_MOST_ROWS, len(rows), "rows")
    header = ("class", "survey", "method", "recall", "false alarms", "precision", "AUC", "average precision")
    return Table(header, tuple(rows[:_MOST_ROWS]), title)


def _percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


def _percents(ends: np.ndarray) -> str:
    return "" if np.isnan(ends).any() else f"[{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]"


def _three(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.3f}"
