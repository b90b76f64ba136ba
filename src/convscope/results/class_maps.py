"""Result of `class_maps`: how many of a class's images vote for each unit, and which units belong to that class alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from convscope.errors import BadInput
from convscope.render.panels import Bars, Group, Panel, Table, Text, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

PER_IMAGE, PER_CLASS = 25, 25
"""How many units an image votes for, and how many a class lists, unless asked otherwise."""

_MOST_PLOTS, _MOST_ROWS, _NAMED = 6, 24, 10
_LISTED, _LISTED_SHARED, _LISTED_IN_SUMMARY = 14, 4, 12


@dataclass(frozen=True, eq=False)
class ClassMaps(Result):
    """The votes of images for units, and the units of each class.

    Attributes:
        votes: Images of each class that have the unit among their strongest, (label c).
        frequency: The same as a share of the class's images, (label c).
        means: Mean activation over each class's images, (label c).
        counts: Images of each class, (label).
        layer: The layer's name.
        classes: The labels.
        unit_names: Class names of the units on "output", else empty.
        maps: {label: its units, most votes first}; what :func:`~convscope.activation_sums` and :func:`~convscope.detector` take.
        shared: {label: units it would have, but another class has as well}.
        per_image: How many units an image votes for.
        per_class: How many units a class lists before those of other classes are removed.
    """

    tabled: ClassVar[Rows] = Rows("label c", label="label:classes", unit="c", unit_name="c:unit_names")

    votes: Array = axes("label c")
    frequency: Array = axes("label c", "series", unit="share of images")
    means: Array = axes("label c", unit="activation")
    counts: Array = axes("label")
    layer: str = ""
    classes: tuple[str, ...] = ()
    unit_names: tuple[str, ...] = ()
    maps: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    shared: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    per_image: int = PER_IMAGE
    per_class: int = PER_CLASS

    def summary(self) -> str:
        """The units of each class."""
        lines: list[str] = []
        for label, count in zip(self.classes, self.counts, strict=True):
            own = self.maps[label]
            listed = words.listed(own, _LISTED_IN_SUMMARY) or "none"
            lines.append(f"{label} ({count} images): {len(own)} maps of its own, {len(self.shared[label])} shared: {listed}")
        return "\n".join(lines)

    def view(self) -> View:
        """For each class, bars of votes beside a table of its units; for many classes, a matrix of votes and one table."""
        panels: list[Panel] = []
        if len(self.classes) <= _MOST_PLOTS:
            panels += [Group((_bars(self, row, label), _table(self, row, label)), 2) for row, label in enumerate(self.classes)]
        else:
            panels.append(words.matrix(self.frequency, list(self.classes), title="votes", unit="share of images"))
            rows = [(label, str(self.counts[row]), _listed(self.maps[label])) for row, label in enumerate(self.classes)]
            panels.append(Table(("class", "images", "maps of its own"), tuple(rows[:_MOST_ROWS]), words.first(_MOST_ROWS, len(rows))))
        note = words.note(
            f"Each image votes for its {self.per_image} units of highest mean activation; each class lists the {self.per_class} with most",
            "votes; units that two classes list belong to neither. Named are a class's own units, most votes first.",
        )
        return View("Class maps", tuple(panels), subtitle=words.subtitle(self, f"{self.votes.shape[1]} units"), note=note)


def maps_by_class(given: object, layer: str) -> dict[str, tuple[int, ...]]:
    """{class: units} of whatever names units by class: class maps, a detector, or a mapping.

    Raises:
        BadInput: A result of another layer or without maps, or something else.
    """
    if isinstance(given, Result):
        there = str(getattr(given, "layer", ""))
        if not hasattr(given, "maps") or there != layer:
            raise BadInput(f"maps: expected class maps of layer {layer}, got {given.technique} of layer {there or 'none'}")
        given = getattr(given, "maps", None)
    if not isinstance(given, Mapping) or not given:
        raise BadInput(f"maps: expected class maps or {{label: units}}, got {type(given).__name__}")
    found: Mapping[Any, Sequence[int]] = given
    return {str(label): tuple(units) for label, units in found.items()}


def of_classes(maps: Mapping[str, Sequence[int]], classes: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """The maps of some classes, in the order asked for; None: of all.

    Raises:
        BadInput: There are none for a class.
    """
    if classes is not None and (missing := [name for name in classes if name not in maps]):
        raise BadInput(f"maps have none for class {missing[0]!r}; they are for {words.listed(maps, 8)}")
    return {name: tuple(maps[name]) for name in (maps if classes is None else classes)}


def _listed(units: tuple[int, ...], most: int = _LISTED) -> str:
    return words.listed(units, most) or "none"


def _bars(result: ClassMaps, row: int, label: str) -> Bars:
    own = result.maps[label]
    title = f"{label}: {result.counts[row]} images, {len(own)} maps of its own"
    named = tuple((unit, words.unit_name(unit, result.unit_names)) for unit in own[:_NAMED])
    return Bars(100 * result.frequency[row], title, "unit", "% of images", named)


def _table(result: ClassMaps, row: int, label: str) -> Table | Text:
    own = result.maps[label][:_LISTED]
    if not own:
        return Text(f"{label}: every unit that its images vote for is listed by another class as well.")
    cells = tuple(
        (words.unit_name(unit, result.unit_names), f"{result.votes[row, unit]} of {result.counts[row]}", number(result.means[row, unit]))
        for unit in own
    )
    shared = result.shared[label]
    title = f"{len(shared)} shared: {_listed(shared, _LISTED_SHARED)}" if shared else "none shared"
    return Table(("unit", "votes", "mean activation"), cells, f"{label}: its own ({title})")
