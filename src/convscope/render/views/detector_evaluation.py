"""How a detector did: confusion matrices with counts, ROC and precision-recall curves, and the numbers, for each survey."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Counts, Curves, Group, Line, Panel, Table, View
from convscope.render.views.detector import NAMES, interval

_MOST_TRUTHS, _MOST_CLASSES, _MOST_ROWS = 12, 4, 40
_DECISIONS = tuple(NAMES)


def view(result: Any) -> View:
    """A row of confusion matrices for each survey, a row of curves for each class, a table.

    Args:
        result: ``DetectorEvaluation``, fresh or loaded: confusion (survey decision truth predicted), auc (survey method label), roc, pr.
    """
    panels: list[Panel] = []
    if len(result.truths) <= _MOST_TRUTHS:
        panels += [
            Group(tuple(_confusion(result, survey, decision) for decision in range(4)), 4 if len(result.classes) <= 3 else 2, name)
            for survey, name in enumerate(result.surveys)
        ]
    for column, label in list(enumerate(result.classes))[:_MOST_CLASSES]:
        plots = (_curves(result, column, "roc"), _curves(result, column, "pr"))
        panels.append(Group(plots, 2, f"{label}: alarms at every threshold"))
    panels.append(_table(result))
    note = (
        "Rows of a confusion matrix are what images are (framed: right), columns what they were taken for: of the classes that alarm, the "
    )
    note += "one furthest above its threshold; 'none': no alarm. The network's own decision: its largest output, no threshold. "
    note += "Recall and false alarms count every class that alarms, also when several do. "
    note += f"In brackets: {100 * result.confidence:g} % bootstrap intervals. Solid line: {result.surveys[0]}"
    note += "; dashed: " + ", ".join(result.surveys[1:]) + "." if len(result.surveys) > 1 else "."
    return View("Detector on other images", tuple(panels), subtitle=words.provenance(result), note=note)


def _confusion(result: Any, survey: int, decision: int) -> Counts:
    shown = np.flatnonzero(result.counts[survey])
    classes = len(result.classes)
    right = tuple(int(min(truth, classes)) for truth in shown)
    rows, columns = tuple(result.truths[truth] for truth in shown), (*result.classes, "none")
    return Counts(result.confusion[survey, decision][shown], rows, columns, NAMES[_DECISIONS[decision]], "is \\ taken for", right)


def _curves(result: Any, column: int, kind: str) -> Curves:
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


def _table(result: Any) -> Table:
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
