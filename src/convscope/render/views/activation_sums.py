"""Activation sums as in the article: a plot for each class's maps, a line for each label's images; a row for each survey."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Curves, Group, Line, View

_MOST_CLASSES, _MOST_LINES, _WIDTH = 4, 8, 560


def view(result: Any) -> View:
    """A row of plots for each survey, a plot for each class's maps.

    Args:
        result: ``ActivationSums``, fresh or loaded: sums (n label), truth (n), group (n), sizes (survey label).
    """
    columns = range(min(len(result.classes), _MOST_CLASSES))
    plots = [_plot(result, survey, column) for survey in range(len(result.surveys)) for column in columns]
    values = {
        "mean": "Value: mean activation, averaged over the class's maps.",
        "sum": "Value: sum of the mean activations of the class's maps; it grows with their number.",
        "standardized": "Value: mean over the maps of (activation - mean) / standard deviation, both over the first survey's images.",
    }
    note = "Each line runs over the images of one label in the order of the data set; the dashed line is their median. "
    note += f"The higher a label's own line above the others, the better these maps tell it. {values[result.mode]}"
    if len(result.classes) > len(columns):
        note += f" Shown are the first {len(columns)} of {len(result.classes)} classes."
    layers = " / ".join(dict.fromkeys(result.layer))
    parts = words.provenance(result), f"layer {layers}", result.mode
    return View("Activation sums", (Group(tuple(plots), len(columns)),), subtitle=" · ".join(part for part in parts if part), note=note)


def _plot(result: Any, survey: int, column: int) -> Curves:
    label = result.classes[column]
    size = int(result.sizes[survey, column])
    title = f"{result.surveys[survey]}: {size} map{'s' if size != 1 else ''} of {label}"
    values = [(name, color, result.sums[rows, column]) for name, color, rows in groups(result, survey, label)]
    lines = tuple(Line(f"{name} ({len(each)})", np.arange(1, len(each) + 1), each, color) for name, color, each in values)
    medians = tuple(Line("", np.array([1, len(each)]), np.full(2, np.median(each)), color, dashed=True) for _, color, each in values)
    unit = "sum of activations" if result.mode == "sum" else f"{result.mode} activation"
    return Curves((*lines, *medians), title, "image of its label", unit, width=_WIDTH)


def groups(result: Any, survey: int, label: str) -> list[tuple[str, int, np.ndarray]]:
    """(name, colour, rows) of the images of each label; with many labels, those of `label` and all others."""
    own = result.group == survey
    if len(result.truths) <= _MOST_LINES:
        names = [*enumerate(result.truths), (-1, "no label")]
        found = [(name, place, np.flatnonzero(own & (result.truth == place))) for place, name in names]
    else:
        mine = result.truth == (result.truths.index(label) if label in result.truths else len(result.truths))
        found = [("all others", 7, np.flatnonzero(own & ~mine)), (label, 1, np.flatnonzero(own & mine))]
    return sorted((each for each in found if len(each[2])), key=lambda each: -len(each[2]))
