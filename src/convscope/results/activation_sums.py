"""Result of `activation_sums`: for each class's maps, the sum of their activations on every image, by the image's label and survey."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from convscope.errors import BadInput
from convscope.render.panels import Curves, Group, Line, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

_MOST_CLASSES, _MOST_LINES, _WIDTH = 4, 8, 560
_OTHERS, _OWN = 7, 1
"""Colours of all other labels and of the own one, where there are too many labels for a colour each."""

_VALUES = {
    "mean": "Value: mean activation, averaged over the class's maps.",
    "sum": "Value: sum of the mean activations of the class's maps; it grows with their number.",
    "standardized": "Value: mean over the maps of (activation - mean) / standard deviation, both over the first survey's images.",
}


@dataclass(frozen=True, eq=False)
class ActivationSums(Result):
    """Sums of every image of one or several surveys.

    Attributes:
        sums: Each image's sum over the maps of each class, (n label); NaN for a class without maps.
        truth: The images' own labels as indices into `labels`, -1 for none, (n).
        group: The survey of each image as an index into `surveys`, (n).
        sizes: How many maps each class has in each survey, (survey label).
        layers: The layers' names, one for each survey.
        classes: The classes whose maps were summed.
        labels: The labels found.
        surveys: The surveys' names.
        networks: The networks' names, one for each survey.
        names: The images' names.
        mode: "mean", "sum" or "standardized".
    """

    tabled: ClassVar[Rows] = Rows("n label", image="n:names", label="label:classes")

    sums: Array = axes("n label", "values", unit="activation")
    truth: Array = axes("n")
    group: Array = axes("n")
    sizes: Array = axes("survey label")
    layers: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    surveys: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    mode: str = "mean"

    def beside(self, *others: ActivationSums) -> Self:
        """These sums and those of other networks or data sets in one result, to be shown side by side.

        Raises:
            BadInput: Other classes, or another mode.
        """
        every = (self, *others)
        for other in others:
            if set(other.classes) != set(self.classes) or other.mode != self.mode:
                mine, theirs = (f"{each.mode} over maps of {', '.join(each.classes)}" for each in (self, other))
                raise BadInput(f"sums can stand side by side if classes and mode are the same, got {mine} and {theirs}")
        labels = tuple(sorted({label for each in every for label in each.labels}))
        order = [[each.classes.index(label) for label in self.classes] for each in every]
        starts = np.cumsum([0, *(len(each.surveys) for each in every)])
        indices = [np.array([*(labels.index(label) for label in each.labels), -1], np.int64) for each in every]
        return dataclasses.replace(
            self,
            sums=np.concatenate([each.sums[:, columns] for each, columns in zip(every, order, strict=True)]),
            truth=np.concatenate([index[each.truth] for each, index in zip(every, indices, strict=True)]),
            group=np.concatenate([each.group + start for each, start in zip(every, starts, strict=False)]),
            sizes=np.concatenate([each.sizes[:, columns] for each, columns in zip(every, order, strict=True)]),
            layers=tuple(layer for each in every for layer in each.layers),
            labels=labels,
            surveys=tuple(name for each in every for name in each.surveys),
            networks=tuple(name for each in every for name in each.networks),
            names=tuple(name for each in every for name in each.names),
        )

    def summary(self) -> str:
        """For each class's maps, the median over the images of each label."""
        lines: list[str] = []
        for survey, name in enumerate(self.surveys):
            for column, label in enumerate(self.classes):
                rows = [(truth, (self.group == survey) & (self.truth == index)) for index, truth in enumerate(self.labels)]
                medians = [f"{truth} {np.median(self.sums[own, column]):.3g}" for truth, own in rows if own.any()]
                maps = f"{self.sizes[survey, column]} maps of {label}"
                lines.append(f"{name}, {maps}: median {self.mode} of images of {', '.join(medians)}")
        return "\n".join(lines)

    def view(self) -> View:
        """A row of plots for each survey, a plot for each class's maps, a line for each label's images."""
        columns = range(min(len(self.classes), _MOST_CLASSES))
        plots = [_plot(self, survey, column) for survey in range(len(self.surveys)) for column in columns]
        note = words.note(
            "Each line runs over the images of one label in the order of the data set; the stroke at its right end is their median.",
            f"The higher a label's own line above the others, the better these maps tell it. {_VALUES[self.mode]}",
            f"Shown are the first {len(columns)} of {len(self.classes)} classes." if len(self.classes) > len(columns) else "",
        )
        networks, layers = dict.fromkeys(self.networks), dict.fromkeys(self.layers)
        asked = self.manifest.get("parameters", {}).get("layer")
        where = "" if [*layers] == [asked] else f"layer {' / '.join(layers)}"
        several = len(networks) > 1
        subtitle = (
            " · ".join([" / ".join(networks), where or f"layer {asked}", self.mode]) if several else words.subtitle(self, where, self.mode)
        )
        return View("Activation sums", (Group(tuple(plots), len(columns)),), subtitle=subtitle, note=note)


def _plot(result: ActivationSums, survey: int, column: int) -> Curves:
    label = result.classes[column]
    title = f"{result.surveys[survey]}: {words.plural(int(result.sizes[survey, column]), 'map')} of {label}"
    values = [(name, color, result.sums[rows, column]) for name, color, rows in _groups(result, survey, label)]
    lines = [
        Line(f"{name} ({len(each)}): median {number(np.median(each))}", np.arange(1, len(each) + 1), each, c) for name, c, each in values
    ]
    longest = max((len(each) for _, _, each in values), default=0)
    at_the_end = longest * np.array([1.02, 1.06])
    lines += [Line("", at_the_end, np.full(2, np.median(each)), color) for _, color, each in values]
    y_label = "sum of activations" if result.mode == "sum" else f"{result.mode} activation"
    return Curves(tuple(lines), title, "image of its label", y_label, width=_WIDTH)


def _groups(result: ActivationSums, survey: int, label: str) -> list[tuple[str, int, np.ndarray]]:
    """(name, colour, rows) of the images of each label; with many labels, those of `label` and all others."""
    own = result.group == survey
    if len(result.labels) <= _MOST_LINES:
        names = [*enumerate(result.labels), (-1, "no label")]
        found = [(name, index, np.flatnonzero(own & (result.truth == index))) for index, name in names]
    else:
        mine = result.truth == (result.labels.index(label) if label in result.labels else len(result.labels))
        found = [("all others", _OTHERS, np.flatnonzero(own & ~mine)), (label, _OWN, np.flatnonzero(own & mine))]
    return sorted((each for each in found if len(each[2])), key=lambda each: -len(each[2]))
