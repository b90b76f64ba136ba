"""A detector: scores of the images that chose its thresholds, the thresholds drawn in, and the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Curves, Group, Line, Panel, Table, View, number

_MOST_CLASSES, _MOST_LINES, _WIDTH = 4, 8, 430
NAMES = {"maps": "class maps", "output": "network's output", "probe": "linear probe", "network": "network's own decision"}


def view(result: Any) -> View:
    """For each class a row of three plots, one for each method, and a table.

    Args:
        result: ``Detector``, fresh or loaded: thresholds and auc (method label), intervals (method label end), scores (method n label).
    """
    panels: list[Panel] = []
    for column, label in list(enumerate(result.classes))[:_MOST_CLASSES]:
        panels.append(Group(tuple(_plot(result, method, column) for method in range(3)), 3, f"{label}: alarm above the dashed line"))
    panels.append(_table(result))
    rules = {"fpr": f"at most {100 * result.fpr:g} % false alarms", "youden": "largest TPR - FPR", "fbeta": f"largest F-{result.beta:g}"}
    note = f"Thresholds are chosen on {len(result.truth)} images that took no part in fitting ({result.fitted} did), by the same rule for "
    note += f"all three: {rules[result.rule]}. In brackets: {100 * result.confidence:g} % bootstrap intervals. "
    note += f"Class maps: {result.mode} activation. "
    note += f"Network's output: {'log odds of the class against all others' if result.own == 'softmax' else 'the output itself'}. "
    note += "Linear probe: logistic regression on the same layer."
    return View("Detector", tuple(panels), subtitle=words.provenance(result), note=note)


def _plot(result: Any, method: int, column: int) -> Curves:
    label = result.classes[column]
    names = list(result.truths) if len(result.truths) <= _MOST_LINES else [label, "all others"]
    lines: list[Line] = []
    for place, name in enumerate(names):
        known = result.truths.index(name) if name in result.truths else -1
        rows = result.truth == known if known >= 0 else result.truth != result.truths.index(label)
        each = result.scores[method, rows, column]
        lines.append(Line(f"{name} ({len(each)})", np.arange(1, len(each) + 1), each, place))
    threshold = float(result.thresholds[method, column])
    return Curves(
        tuple(sorted(lines, key=lambda line: -len(line.x))),
        NAMES[("maps", "output", "probe")[method]],
        "image of its label",
        "score",
        level=(threshold, number(threshold)),
        width=_WIDTH,
    )


def _table(result: Any) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in enumerate(result.classes):
        for row, method in enumerate(("maps", "output", "probe")):
            extra = {"maps": f"{len(result.maps[label])} maps", "output": f"output {result.channels[column]}"}
            own = extra.get(method, f"C = {result.strengths[column]:g}")
            threshold = f"{number(result.thresholds[row, column])} {interval(result.intervals[row, column])}"
            area = f"{result.auc[row, column]:.3f} {interval(result.auc_intervals[row, column])}"
            rows.append((label, NAMES[method], own, threshold, area))
    return Table(("class", "method", "", "threshold", "AUC on validation"), tuple(rows))


def interval(ends: np.ndarray) -> str:
    """``[low, high]``, nothing where it is not known."""
    return "" if np.isnan(ends).any() else f"[{number(ends[0])}, {number(ends[1])}]"
