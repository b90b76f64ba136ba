"""Class maps: how many of a class's images vote for each channel, and which channels the class keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from convscope.render.panels import Bars, Group, Panel, Table, Text, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes

PER_IMAGE, PER_CLASS = 25, 25


@dataclass(frozen=True, eq=False)
class ClassMaps(Result):
    """The votes of images for channels, and the channels that each class keeps.

    Attributes:
        votes: Images of each class that have the channel among their strongest, (label c).
        frequency: The same as a share of the class's images, (label c).
        means: Mean activation over each class's images, (label c).
        counts: Images of each class, (label).
        layer: The layer's name.
        classes: The labels.
        labels: Class names of the channels on "output", else "".
        maps: {label: its channels, most votes first}; what :func:`~convscope.activation_sums` and :func:`~convscope.detector` take.
        shared: {label: channels it would have, but another class has as well}.
        per_image: How many channels an image votes for.
        per_class: How many channels a class lists before those of other classes are removed.
    """

    votes: Array = axes("label c")
    frequency: Array = axes("label c", "series", unit="share of images")
    means: Array = axes("label c", unit="activation")
    counts: Array = axes("label")
    layer: str = ""
    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    maps: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    shared: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    per_image: int = PER_IMAGE
    per_class: int = PER_CLASS

    def summary(self) -> str:
        """The channels of each class."""
        lines: list[str] = []
        for label, count in zip(self.classes, self.counts, strict=True):
            own = self.maps[label]
            listed = ", ".join(map(str, own[:12])) + (", ..." if len(own) > 12 else "")
            lines.append(f"{label} ({count} images): {len(own)} maps of its own, {len(self.shared[label])} shared: {listed or 'none'}")
        return "\n".join(lines)

    def view(self) -> View:
        """Bars of votes for each class with its own channels named, then a table; a matrix instead of bars for many classes."""
        panels: list[Panel] = []
        if len(self.classes) <= _MOST_PLOTS:
            for row, label in enumerate(self.classes):
                named = tuple((channel, words.unit_name(channel, self.labels)) for channel in self.maps[label][:_NAMED])
                title = f"{label}: {self.counts[row]} images, {len(self.maps[label])} maps of its own"
                bars = Bars(100 * self.frequency[row], title, "channel", "% of images", named)
                panels.append(Group((bars, _table(self, row, label)), 2))
        else:
            panels.append(words.matrix(self.frequency, list(self.classes), title="votes", unit="share of images"))
        if len(self.classes) > _MOST_PLOTS:
            rows = [(label, str(self.counts[row]), _listed(self.maps[label])) for row, label in enumerate(self.classes)]
            title = f"first {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""
            panels.append(Table(("class", "images", "maps of its own"), tuple(rows[:_MOST_ROWS]), title))
        note = f"Each image votes for its {self.per_image} channels of highest mean activation; each class lists the {self.per_class} with "
        note += "most votes; channels that two classes list belong to neither. Named are a class's own channels, most votes first."
        parts = words.provenance(self), f"{self.votes.shape[1]} channels"
        return View("Class maps", tuple(panels), subtitle=" · ".join(part for part in parts if part), note=note)


_MOST_PLOTS, _MOST_ROWS, _LISTED, _NAMED = 6, 24, 14, 10


def _listed(channels: tuple[int, ...], most: int = _LISTED) -> str:
    return ", ".join(map(str, channels[:most])) + (", ..." if len(channels) > most else "") or "none"


def _table(result: ClassMaps, row: int, label: str) -> Table | Text:
    own = result.maps[label][:_LISTED]
    if not own:
        return Text(f"{label}: every channel that its images choose is another class's, too.")
    cells = tuple(
        (words.unit_name(unit, result.labels), f"{result.votes[row, unit]} of {result.counts[row]}", number(result.means[row, unit]))
        for unit in own
    )
    shared = f"{len(result.shared[label])} shared: {_listed(result.shared[label], 4)}" if result.shared[label] else "none shared"
    return Table(("channel", "votes", "mean activation"), cells, f"{label}: its own ({shared})")
