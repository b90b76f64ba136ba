"""Exemplars: for each unit a row of what it saw on its strongest images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes


@dataclass(frozen=True, eq=False)
class Exemplars(Result):
    """The strongest images of each unit, the strongest first. Where there are fewer images than asked for, `images` is -1.

    Attributes:
        values: The maximum of the unit's map on each image, (unit top); NaN where there is no image.
        images: The images' numbers in the survey, (unit top).
        positions: Where on the map the maximum is, (unit top 2): y, x.
        boxes: What that position sees, or the middle of it, cut to the picture, (unit top 4): y0 x0 y1 x1 in pixels of the network's input.
        crops: The picture inside the box, (unit top rgb h w) in [0,1]; white around what the border has cut. Empty if not wanted.
        layer: The layer's name.
        units: The units' numbers.
        labels: Class names of the units on "output", else "".
        label: The label whose images were looked at; "" for all.
        names: Name of each image, unit by unit.
        image_labels: Label of each image, "" for none, unit by unit.
        missing: Images whose file is not there any more; their crops are white.
        height, width: Size of the network's input in pixels.
        of: How many images were looked at.
        middle: Share of the receptive field's sides that is shown.
    """

    values: Array = axes("unit top", unit="activation")
    images: Array = axes("unit top")
    positions: Array = axes("unit top end")
    boxes: Array = axes("unit top edge", "boxes")
    crops: Array = axes("unit shown rgb h w", "image")
    layer: str = ""
    units: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    label: str = ""
    names: tuple[tuple[str, ...], ...] = ()
    image_labels: tuple[tuple[str, ...], ...] = ()
    missing: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    of: int = 0
    middle: float = 1.0

    def summary(self) -> str:
        """The four strongest images of each unit."""
        lines: list[str] = []
        for unit, label, names, values in zip(self.units, self.labels, self.names, self.values, strict=True):
            found = ", ".join(f"{_stem(name)} ({value:.3g})" for name, value in zip(names[:4], values, strict=False))
            dead = " (nothing excites it)" if not np.nanmax(values, initial=-np.inf) > 0 else ""
            lines.append(f"{f'unit {unit} {label}'.strip()}: {found}{dead}")
        if self.missing:
            lines.append(f"{len(self.missing)} pictures are not where they were, e.g. {self.missing[0]}")
        return "\n".join(lines)

    def view(self) -> View:
        """A row for each unit: the crops with activation, and label or name, of their images; without crops, a table."""
        shown = min(len(self.units), _MOST)
        make = _row if self.crops.shape[1] else _table
        panels: tuple[Panel, ...] = tuple(make(self, row) for row in range(shown))
        size = " x ".join(str(int(length)) for length in (self.boxes[..., 2:] - self.boxes[..., :2]).reshape(-1, 2).max(0))
        whose = f"images of {self.label}" if self.label else "images"
        parts = words.provenance(self), f"the strongest of {self.of} {whose}"
        part = "" if self.middle == 1 else f"the middle {self.middle:.0%} of the sides of "
        note = f"Each tile: {part}what the unit sees of the picture where it is strongest"
        note += f" ({size} of {self.height} x {self.width} pixels; white is beyond the border). "
        note += "Below: activation, and the image's label or name."
        if len(self.units) > shown:
            note += f" Shown are the first {shown} of {len(self.units)} units."
        if self.missing:
            note += f" {len(self.missing)} pictures are not where they were."
        return View("Exemplars", panels, subtitle=" · ".join(part for part in parts if part), note=note)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0] or name


_MOST, _SIDE, _ACROSS = 24, 148, 9


def _title(result: Exemplars, row: int) -> str:
    return f"unit {result.units[row]} {result.labels[row]}".strip()


def _row(result: Exemplars, row: int) -> Group:
    tiles: list[Image] = []
    for place, (name, label) in enumerate(zip(result.names[row], result.image_labels[row], strict=True)):
        value = result.values[row, place]
        marked = "picture is gone" if name in result.missing else "not active" if value <= 0 else None
        what = label if label and not result.label else name.rpartition("/")[2].rpartition(".")[0] or name
        caption = f"{number(value)} · {what}"
        tiles.append(Image(result.crops[row, place], caption=caption, marked=marked))
    return Group(tuple(tiles), min(_ACROSS, max(len(tiles), 1)), _title(result, row), side=_SIDE)


def _table(result: Exemplars, row: int) -> Table:
    found = zip(result.names[row], result.image_labels[row], result.values[row], result.positions[row], strict=False)
    rows = tuple((name, label, number(value), f"({y}, {x})") for name, label, value, (y, x) in found)
    title = _title(result, row) + ("" if np.nanmax(result.values[row]) > 0 else ": not active")
    return Table(("image", "label", "activation", "at"), rows, title)
