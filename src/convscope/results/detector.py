"""Result of `detector`: thresholds for each class by its maps, the network's output and a linear probe; validation scores."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from convscope.render.panels import Curves, Group, Line, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

METHODS = ("maps", "output", "probe")
NAMES = {"maps": "class maps", "output": "network's output", "probe": "linear probe", "network": "network's own decision"}
"""Titles of the methods, and of the network's own decision rule, which needs no threshold."""

_MOST_CLASSES, _MOST_LINES, _WIDTH = 4, 8, 430


@dataclass(frozen=True, eq=False)
class Detector(Result):
    """Thresholds of three methods for each class: its maps, the network's own output, and a linear probe on the same layer.

    Attributes:
        thresholds: A score above it is an alarm, (method label).
        intervals: Where the threshold lies in bootstrap draws of the validation images, (method label end).
        auc: Area under the ROC curve on the validation images, (method label).
        auc_intervals: The same for areas, (method label end).
        scores: Of the validation images, (method n label).
        truth: Their labels as indices into `labels`, (n).
        weights: Scores of maps and probe as a linear function of the layer's means over positions, (linear label c).
        offsets: What is added to that, (linear label).
        outputs: The unit of "output" for each class, (label).
        signs: 1, or -1 where the class is what the only output is low for, (label).
        strengths: The probe's inverse penalty, (label).
        layer: The layer's name.
        classes: The classes that alarms are for.
        labels: All labels of the survey.
        names: Names of the validation images.
        maps: {label: units}.
        mode: How maps are added up: "standardized", "mean" or "sum".
        rule: How thresholds were chosen: "fpr", "youden" or "fbeta".
        fpr, beta: The rule's numbers.
        activation: The activation function that belongs after the network's output: "softmax" or "sigmoid".
        confidence, draws, seed: Of all bootstrap intervals.
        fitted: Number of images that maps' statistics and probe come from.
    """

    subject: ClassVar[str] = "detector"

    tabled: ClassVar[Rows] = Rows("method label", method=METHODS, label="label:classes")

    thresholds: Array = axes("method label", unit="score")
    intervals: Array = axes("method label end")
    auc: Array = axes("method label")
    auc_intervals: Array = axes("method label end")
    scores: Array = axes("method n label", unit="score")
    truth: Array = axes("n")
    weights: Array = axes("linear label c")
    offsets: Array = axes("linear label")
    outputs: Array = axes("label")
    signs: Array = axes("label")
    strengths: Array = axes("label")
    layer: str = ""
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    maps: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    mode: str = "standardized"
    rule: str = "fpr"
    fpr: float = 0.05
    beta: float = 1.0
    activation: str = "softmax"
    confidence: float = 0.95
    draws: int = 1000
    seed: int = 0
    fitted: int = 0

    def provenance(self) -> Mapping[str, Any]:
        """The entries of the detector and of its network in the manifest of a result."""
        return {
            "libraries": ("pyarrow", "scikit-learn"),
            "detector": self.manifest.get("parameters", {}),
            "network": self.manifest["network"],
        }

    def entered(self, seed: int | None = None) -> AbstractContextManager[Any]:  # noqa: ARG002
        """An empty context: techniques read a detector as it is."""
        return nullcontext()

    def summary(self) -> str:
        """Threshold and area of each class by each method."""
        lines: list[str] = []
        for column, label in enumerate(self.classes):
            lines.append(f"{label}: {len(self.maps[label])} maps, output {self.outputs[column]}")
            for row, method in enumerate(METHODS):
                low, high = self.intervals[row, column]
                auc_low, auc_high = self.auc_intervals[row, column]
                threshold = f"alarm above {self.thresholds[row, column]:.3g} [{low:.3g}, {high:.3g}]"
                area = f"AUC {self.auc[row, column]:.3f} [{auc_low:.3f}, {auc_high:.3f}]"
                lines.append(f"  {method:6} {threshold}, validation {area}")
        best = METHODS[int(np.argmax(self.auc.mean(1)))]
        count = f"{self.fitted} images to fit, {len(self.truth)} to choose thresholds"
        return "\n".join([*lines, f"{count}; the best mean area has: {best}"])

    def view(self) -> View:
        """For each class a row of three plots, one for each method, and a table."""
        panels: list[Panel] = []
        for column, label in list(enumerate(self.classes))[:_MOST_CLASSES]:
            plots = tuple(_plot(self, method, column) for method in range(len(METHODS)))
            panels.append(Group(plots, len(METHODS), f"{label}: alarm above the dashed line"))
        panels.append(_table(self))
        rules = {"fpr": f"at most {100 * self.fpr:g} % false alarms", "youden": "largest TPR - FPR", "fbeta": f"largest F-{self.beta:g}"}
        note = words.note(
            f"Thresholds are chosen on {len(self.truth)} images that took no part in fitting ({self.fitted} did), by the same rule for",
            f"all three: {rules[self.rule]}. In brackets: {100 * self.confidence:g} % bootstrap intervals.",
            f"Class maps: {self.mode} activation.",
            f"Network's output: {'log odds of the class against all others' if self.activation == 'softmax' else 'the output itself'}.",
            "Linear probe: logistic regression on the same layer.",
        )
        return View("Detector", tuple(panels), subtitle=words.subtitle(self), note=note)


def interval(ends: np.ndarray) -> str:
    """``[low, high]``; empty where the ends are NaN."""
    return "" if np.isnan(ends).any() else f"[{number(ends[0])}, {number(ends[1])}]"


def _plot(result: Detector, method: int, column: int) -> Curves:
    label = result.classes[column]
    names = list(result.labels) if len(result.labels) <= _MOST_LINES else [label, "all others"]
    lines: list[Line] = []
    for index, name in enumerate(names):
        rows = result.truth == result.labels.index(name) if name in result.labels else result.truth != result.labels.index(label)
        each = result.scores[method, rows, column]
        lines.append(Line(f"{name} ({len(each)})", np.arange(1, len(each) + 1), each, index))
    threshold = float(result.thresholds[method, column])
    return Curves(
        tuple(sorted(lines, key=lambda line: -len(line.x))),
        NAMES[METHODS[method]],
        "image of its label",
        "score",
        level=(threshold, number(threshold)),
        width=_WIDTH,
    )


def _table(result: Detector) -> Table:
    rows: list[tuple[str, ...]] = []
    for column, label in enumerate(result.classes):
        settings = f"{len(result.maps[label])} maps", f"output {result.outputs[column]}", f"C = {result.strengths[column]:g}"
        for row, (method, setting) in enumerate(zip(METHODS, settings, strict=True)):
            threshold = f"{number(result.thresholds[row, column])} {interval(result.intervals[row, column])}"
            area = f"{result.auc[row, column]:.3f} {interval(result.auc_intervals[row, column])}"
            rows.append((label, NAMES[method], setting, threshold, area))
    return Table(("class", "method", "", "threshold", "AUC on validation"), tuple(rows))
