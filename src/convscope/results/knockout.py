"""Result of `knockout`: probabilities and accuracies before and after units are silenced, beside random units of the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Counts, Group, Image, Interval, Intervals, Panel, Signed, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_SHOWN, _CLASSES, _SIDE, _MOST_ROWS, _MOST_TRUTHS, _LISTED, _IN_SUMMARY = 12, 5, 200, 40, 12, 8, 24
_CHANGED = 6
SHOWN = _SHOWN
"""Images that a result keeps for its figure."""

_BY = {
    "zero": "set to zero",
    "mean": "set to their mean over images and positions",
    "resample": "replaced by their maps on other images, drawn at random",
}


@dataclass(frozen=True, eq=False)
class Knockout(ImageResult):
    """What silencing units does to a network's answers. A group is a set of units silenced together.

    With labels, a class is a label and its probability the sum over the network's classes that belong to it; without, a class of the
    network's own. Predictions are the class of the largest output; -1 where that belongs to no label.

    Attributes:
        before: Probability of each class, (n class).
        after: The same with a group silenced, the mean over draws, (group n class).
        predicted: Predicted class, (n).
        predicted_after: The same with a group silenced, (group draw n); one draw unless ablation is by resampling.
        predicted_control: The same with random units silenced in the group's place, (group set n).
        control: Probability of each image's target with random units silenced, (group set n).
        target: The class followed for each image: its label, or what the network predicts without labels, (n); -1 for none.
        truth: The label of each image, (n); -1 where there is none.
        accuracy: Share of each class's images predicted right, (class); NaN without labels.
        accuracy_after: The same with a group silenced, (group class).
        accuracy_control: The same with random units silenced, the mean over sets, (group class).
        drop: Accuracy lost by a group's silence, with its interval, (group class 3): value, low, high.
        control_drop: The same for random units, (group class 3).
        excess: What a group's silence loses beyond random units, with its paired interval, (group class 3).
        images: The first images, (shown c h w) in [0,1].
        layer: The layer's name.
        groups: A name for each group.
        units: The units of each group.
        random_units: The units silenced as its control, for each group and set.
        classes: Names of the classes.
        names: Names of the images.
        labelled: Whether classes are labels.
        by: "zero", "mean" or "resample".
        mean_of: What means were taken over.
        choice: How random units are drawn: "matched" to the mean activation of the group's, or "any".
        confidence: Of the intervals.
        method: "cached" (the part above the layer alone was run again) or "full".
        notices: What a reader must know, a sentence each.
    """

    tabled: ClassVar[Rows] = Rows("group class", group="group:groups", label="class:classes")

    before: Array = axes("n class", unit="probability")
    after: Array = axes("group n class", unit="probability")
    predicted: Array = axes("n")
    predicted_after: Array = axes("group draw n")
    predicted_control: Array = axes("group set n")
    control: Array = axes("group set n", unit="probability")
    target: Array = axes("n")
    truth: Array = axes("n")
    accuracy: Array = axes("class")
    accuracy_after: Array = axes("group class")
    accuracy_control: Array = axes("group class")
    drop: Array = axes("group class end")
    control_drop: Array = axes("group class end")
    excess: Array = axes("group class end")
    images: Array = axes("shown c h w", "image")
    layer: str = ""
    groups: tuple[str, ...] = ()
    units: tuple[tuple[int, ...], ...] = ()
    random_units: tuple[tuple[tuple[int, ...], ...], ...] = ()
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labelled: bool = False
    by: str = "zero"
    mean_of: str = ""
    choice: str = "matched"
    confidence: float = 0.95
    method: str = "cached"
    notices: tuple[str, ...] = ()

    def effect(self, group: int = 0) -> np.ndarray:
        """Probability lost by a group's silence, p - p', (n class)."""
        return self.before - self.after[group]

    def confusion(self, group: int | None = None) -> np.ndarray:
        """Images by label and predicted class, (class class+1), the last column for none of the labels; None: nothing silenced.

        With several draws, the mean over them.
        """
        count = len(self.classes)
        found = np.zeros((count, count + 1))
        draws = self.predicted[None] if group is None else self.predicted_after[group]
        own = self.truth >= 0
        for draw in draws:
            np.add.at(found, (self.truth[own], np.where(draw[own] < 0, count, draw[own])), 1 / len(draws))
        return found

    def own_class(self, group: int) -> int:
        """The class that has a group's name; -1 for none."""
        return self.classes.index(self.groups[group]) if self.groups[group] in self.classes else -1

    def summary(self) -> str:
        """With labels, accuracies before and after for each group; without, the class that loses most for each image."""
        lines = _accuracy_lines(self) if self.labelled else _image_lines(self)
        return self.with_skipped("\n".join([*lines, *self.notices]), "\n")

    def view(self) -> View:
        """With labels, accuracies with intervals, accuracy lost by group and class, confusion matrices; without, a row for each image."""
        panels = _data_set_panels(self) if self.labelled else _image_panels(self)
        sets = self.control.shape[1]
        how = "of about the same mean activation" if self.choice == "matched" else "of the layer"
        chance = f"Random units: {words.plural(sets, 'set')} of as many other units {how}; dot: mean over sets." if sets else ""
        if self.labelled:
            chance += f" Bars: {100 * self.confidence:g} % bootstrap intervals over images, paired."
        elif sets:
            chance += " Bar: range over sets."
        taken = f" ({self.mean_of})" if self.by == "mean" else ""
        draws = self.predicted_after.shape[1]
        note = words.note(
            f"Silenced: units of {self.layer}, {_BY[self.by]}{taken}.",
            f"Mean over {draws} draws." if draws > 1 else "",
            chance,
            *self.notices,
            "" if self.labelled else channels.note(self, self.images.shape[1]),
        )
        return View("Knock-out", panels, subtitle=words.subtitle(self, _silenced(self)), note=self.with_skipped(note))


def _silenced(result: Knockout) -> str:
    if len(result.groups) > 1:
        return f"{len(result.groups)} groups of units silenced one after another"
    return f"silenced: {words.listed(result.units[0], _LISTED)}" + (f" ({len(result.units[0])} units)" if len(result.units[0]) > 1 else "")


def _accuracy_lines(result: Knockout) -> list[str]:
    own = result.truth >= 0
    overall = float((result.predicted[own] == result.truth[own]).mean())
    lines = [f"{int(own.sum())} images of {len(result.classes)} labels: accuracy {_percent(overall)}"]
    for group, name in enumerate(result.groups[:_IN_SUMMARY]):
        after = float((result.predicted_after[group][:, own] == result.truth[own]).mean())
        own_class = result.own_class(group)
        changed = np.argsort(-np.abs(np.nan_to_num(result.drop[group, :, 0])), kind="stable")[:_CHANGED]
        count = f" ({words.plural(len(result.units[group]), 'unit')})" if len(result.groups) > 1 else ""
        lines.append(f"{name}{count} silenced: accuracy of all {_percent(after)}")
        lines += [f"  {_class_line(result, group, int(place))}" for place in ([own_class] if own_class >= 0 else changed)]
    own_lost = [result.excess[group, place, 0] for group in range(len(result.groups)) if (place := result.own_class(group)) >= 0]
    if len(own_lost) > 1 and result.control.shape[1]:
        lines.append(f"silencing a class's own units lowers its accuracy by more than random units for {_more(own_lost)}")
    return lines


def _class_line(result: Knockout, group: int, place: int) -> str:
    text = f"{result.classes[place]}: {_percent(result.accuracy[place])} -> {_percent(result.accuracy_after[group, place])}"
    if not result.control.shape[1]:
        return text
    more = result.excess[group, place]
    what = f"{_points(more)} points lost" if not more[0] < 0 else f"{_points(-more[[0, 2, 1]])} points won"
    return f"{text} (random units {_percent(result.accuracy_control[group, place])}); {what} beyond random"


def _more(lost: list[float]) -> str:
    return f"{sum(value > 0 for value in lost)} of {len(lost)} classes"


def _image_lines(result: Knockout) -> list[str]:
    lines: list[str] = []
    for group, name in enumerate(result.groups):
        for image in range(min(len(result.names), _IN_SUMMARY)):
            target = int(result.target[image])
            text = f"{result.names[image]}, {name} silenced: {result.classes[target]} {number(result.before[image, target])}"
            text += f" -> {number(result.after[group, image, target])}"
            if result.control.shape[1]:
                text += f" (random units {number(result.control[group, :, image].mean())})"
            most = int(result.after[group, image].argmax())
            lines.append(text + (f"; most probable now: {result.classes[most]}" if most != target else ""))
    return lines


def _image_panels(result: Knockout) -> tuple[Panel, ...]:
    """For each image, it and the probabilities of its first classes before and after, a chart for each group."""
    panels: list[Panel] = []
    for image in range(len(result.images)):
        charts = [_probabilities(result, group, image) for group in range(len(result.groups))]
        picture = Group((Image(channels.shown(result, result.images[image]), result.names[image]),), side=_SIDE)
        panels.append(Group((picture, *charts), 2 if len(charts) == 1 else None))
    return tuple(panels)


def _probabilities(result: Knockout, group: int, image: int) -> Intervals:
    before, after = result.before[image], result.after[group, image]
    shown = list(dict.fromkeys([*np.argsort(-before, kind="stable")[:_CLASSES].tolist(), int(after.argmax())]))
    nothing = np.full((len(shown), 3), np.nan)
    control = nothing.copy()
    drawn = result.control[group, :, image]
    if len(drawn) and (target := int(result.target[image])) in shown:
        control[shown.index(target)] = drawn.mean(), drawn.min(), drawn.max()
    series = [
        Interval("before", _alone(before[shown]), 7),
        Interval("random units silenced", control, 0),
        Interval(f"{result.groups[group]} silenced", _alone(after[shown]), 1),
    ]
    series = [each for each in series if np.isfinite(each.values).any()]
    top = max(np.nanmax(each.values) for each in series)
    return Intervals(
        tuple(result.classes[place] for place in shown), tuple(series), "", "probability", (0.0, min(1.0, max(1.1 * float(top), 0.05)))
    )


def _alone(values: np.ndarray) -> np.ndarray:
    """Values without an interval, as (row 3)."""
    return np.stack([values, np.full(len(values), np.nan), np.full(len(values), np.nan)], 1)


def _data_set_panels(result: Knockout) -> tuple[Panel, ...]:
    panels: list[Panel] = []
    own = [(group, place) for group in range(len(result.groups)) if (place := result.own_class(group)) >= 0]
    several = len(result.groups) > 1
    if several and own:
        panels.append(_own_classes(result, own))
    if several:
        rows = tuple(
            words.named(place, name) if (place := result.own_class(group)) >= 0 else name for group, name in enumerate(result.groups)
        )
        lost, title = 100 * result.drop[:, :, 0], "accuracy lost by every class (columns) when a group (rows) is silenced"
        panels.append(Signed(lost, title, unit="percentage points", rows=rows, x_label="class, numbered as the rows"))
    else:
        panels.append(_classes(result, 0))
        if len(result.classes) <= _MOST_TRUTHS:
            panels.append(Group((_confusion(result, None), _confusion(result, 0)), 2 if len(result.classes) <= 6 else 1))
    panels.append(_table(result, own if several and own else [(0, place) for place in range(len(result.classes))]))
    return tuple(panels)


def _own_classes(result: Knockout, own: list[tuple[int, int]]) -> Intervals:
    """The accuracy that each class loses with its own units silenced, and with random ones."""
    own = sorted(own, key=lambda pair: -result.excess[pair][0])
    series = [
        Interval("its own units silenced", 100 * np.stack([result.drop[pair] for pair in own]), 1),
        Interval("random units silenced", 100 * np.stack([result.control_drop[pair] for pair in own]), 0),
    ]
    counts = np.bincount(result.truth[result.truth >= 0], minlength=len(result.classes))
    rows = tuple(f"{result.classes[place]} ({len(result.units[group])} units, {counts[place]} images)" for group, place in own)
    more = _more([float(result.excess[pair][0]) for pair in own])
    title = f"accuracy lost by each class: more than with random units for {more}"
    kept = series if result.control.shape[1] else series[:1]
    return Intervals(rows, tuple(kept), title, "accuracy lost, percentage points", zero=True)


def _classes(result: Knockout, group: int) -> Intervals:
    """The accuracy that each class loses with one group silenced, and with random units."""
    order = np.argsort(-result.drop[group, :, 0], kind="stable")[:_MOST_ROWS]
    series = [Interval(f"{result.groups[group]} silenced", 100 * result.drop[group, order], 1)]
    if result.control.shape[1]:
        series.append(Interval("random units silenced", 100 * result.control_drop[group, order], 0))
    first = words.first(len(order), len(result.classes), "classes")
    title = "accuracy lost by each class" + (f" ({first})" if first else "")
    return Intervals(tuple(result.classes[place] for place in order), tuple(series), title, "accuracy lost, percentage points", zero=True)


def _confusion(result: Knockout, group: int | None) -> Counts:
    values = result.confusion(group)
    title = "before" if group is None else f"{result.groups[group]} silenced"
    right = tuple(range(len(result.classes)))
    return Counts(np.rint(values).astype(np.int64), result.classes, (*result.classes, "other"), title, "label \\ predicted", right)


def _table(result: Knockout, shown: list[tuple[int, int]]) -> Table:
    counts = np.bincount(result.truth[result.truth >= 0], minlength=len(result.classes))
    several, sets = len(result.groups) > 1, result.control.shape[1]
    rows: list[tuple[str, ...]] = []
    for group, place in shown:
        cells = [result.classes[place], str(counts[place])]
        cells += [words.listed(result.units[group], _LISTED)] if several else []
        cells += [_percent(result.accuracy[place]), _percent(result.accuracy_after[group, place])]
        if sets:
            cells += [_percent(result.accuracy_control[group, place]), _points(result.excess[group, place])]
        rows.append(tuple(cells))
    header = ("class", "images", *(["its own units"] if several else []), "accuracy before", "after")
    header += ("random units", "lost beyond random, points") if sets else ()
    return Table(header, tuple(rows[:_MOST_ROWS]), words.first(_MOST_ROWS, len(rows), "rows"))


def _percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.1f} %"


def _points(ends: np.ndarray) -> str:
    value, low, high = 100 * ends
    return "n/a" if np.isnan(value) else f"{value:.1f} [{low:.1f}, {high:.1f}]"
