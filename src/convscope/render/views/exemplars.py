"""Exemplars: for each unit a row of what it saw on its strongest images."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Group, Image, Panel, Table, View, number

_MOST, _SIDE, _ACROSS = 24, 148, 9


def view(result: Any) -> View:
    """A row for each unit: the crops with activation, and label or name, of their images; without crops, a table.

    Args:
        result: ``Exemplars``, fresh or loaded: values (unit top), images (unit top), boxes (unit top 4), crops (unit top rgb h w).
    """
    shown = min(len(result.units), _MOST)
    make = _row if result.crops.shape[1] else _table
    panels: tuple[Panel, ...] = tuple(make(result, row) for row in range(shown))
    size = " x ".join(str(int(length)) for length in (result.boxes[..., 2:] - result.boxes[..., :2]).reshape(-1, 2).max(0))
    whose = f"images of {result.label}" if result.label else "images"
    parts = words.provenance(result), f"the strongest of {result.of} {whose}"
    part = "" if result.middle == 1 else f"the middle {result.middle:.0%} of the sides of "
    note = f"Each tile: {part}what the unit sees of the picture where it is strongest"
    note += f" ({size} of {result.height} x {result.width} pixels; white is beyond the border). "
    note += "Below: activation, and the image's label or name."
    if len(result.units) > shown:
        note += f" Shown are the first {shown} of {len(result.units)} units."
    if result.missing:
        note += f" {len(result.missing)} pictures are not where they were."
    return View("Exemplars", panels, subtitle=" · ".join(part for part in parts if part), note=note)


def _title(result: Any, row: int) -> str:
    return f"unit {result.units[row]} {result.labels[row]}".strip()


def _row(result: Any, row: int) -> Group:
    tiles: list[Image] = []
    for place, (name, label) in enumerate(zip(result.names[row], result.image_labels[row], strict=True)):
        value = result.values[row, place]
        marked = "picture is gone" if name in result.missing else "not active" if value <= 0 else None
        what = label if label and not result.label else name.rpartition("/")[2].rpartition(".")[0] or name
        caption = f"{number(value)} · {what}"
        tiles.append(Image(result.crops[row, place], caption=caption, marked=marked))
    return Group(tuple(tiles), min(_ACROSS, max(len(tiles), 1)), _title(result, row), side=_SIDE)


def _table(result: Any, row: int) -> Table:
    found = zip(result.names[row], result.image_labels[row], result.values[row], result.positions[row], strict=False)
    rows = tuple((name, label, number(value), f"({y}, {x})") for name, label, value, (y, x) in found)
    title = _title(result, row) + ("" if np.nanmax(result.values[row]) > 0 else ": not active")
    return Table(("image", "label", "activation", "at"), rows, title)
