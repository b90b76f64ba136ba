"""Class maps: how many of a class's images vote for each channel, and which channels the class keeps."""

from __future__ import annotations

from typing import Any

from convscope.render import words
from convscope.render.panels import Bars, Group, Panel, Table, Text, View, number

_MOST_PLOTS, _MOST_ROWS, _LISTED, _NAMED = 6, 24, 14, 10


def view(result: Any) -> View:
    """Bars of votes for each class with its own channels named, then a table; a matrix instead of bars for many classes.

    Args:
        result: ``ClassMaps``, fresh or loaded: votes, frequency and means (label c), counts (label), maps, shared.
    """
    panels: list[Panel] = []
    if len(result.classes) <= _MOST_PLOTS:
        for row, label in enumerate(result.classes):
            named = tuple((channel, words.unit_name(channel, result.labels)) for channel in result.maps[label][:_NAMED])
            title = f"{label}: {result.counts[row]} images, {len(result.maps[label])} maps of its own"
            bars = Bars(100 * result.frequency[row], title, "channel", "% of images", named)
            panels.append(Group((bars, _table(result, row, label)), 2))
    else:
        panels.append(words.matrix(result.frequency, list(result.classes), title="votes", unit="share of images"))
    if len(result.classes) > _MOST_PLOTS:
        rows = [(label, str(result.counts[row]), _listed(result.maps[label])) for row, label in enumerate(result.classes)]
        title = f"first {_MOST_ROWS} of {len(rows)}" if len(rows) > _MOST_ROWS else ""
        panels.append(Table(("class", "images", "maps of its own"), tuple(rows[:_MOST_ROWS]), title))
    note = f"Each image votes for its {result.per_image} channels of highest mean activation; each class lists the {result.per_class} with "
    note += "most votes; channels that two classes list belong to neither. Named are a class's own channels, most votes first."
    parts = words.provenance(result), f"{result.votes.shape[1]} channels"
    return View("Class maps", tuple(panels), subtitle=" · ".join(part for part in parts if part), note=note)


def _listed(channels: tuple[int, ...], most: int = _LISTED) -> str:
    return ", ".join(map(str, channels[:most])) + (", ..." if len(channels) > most else "") or "none"


def _table(result: Any, row: int, label: str) -> Table | Text:
    own = result.maps[label][:_LISTED]
    if not own:
        return Text(f"{label}: every channel that its images choose is another class's, too.")
    cells = tuple(
        (words.unit_name(unit, result.labels), f"{result.votes[row, unit]} of {result.counts[row]}", number(result.means[row, unit]))
        for unit in own
    )
    shared = f"{len(result.shared[label])} shared: {_listed(result.shared[label], 4)}" if result.shared[label] else "none shared"
    return Table(("channel", "votes", "mean activation"), cells, f"{label}: its own ({shared})")
