"""Result of `exemplars`: for each unit the images with the highest activation, cropped to the receptive field of the maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Group, Image, Panel, Table, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

_MOST, _SIDE, _ACROSS, _IN_SUMMARY = 24, 148, 9, 4
_BEYOND = 0.5
"""What is shown beyond the border of an image: grey."""


@dataclass(frozen=True, eq=False)
class Exemplars(Result):
    """The images with the highest activation of each unit, highest first. Where there are fewer than asked for, `images` is -1.

    Attributes:
        values: The maximum of the unit's map on each image, (unit top); NaN where there is no image.
        images: The images' numbers in the survey, (unit top).
        positions: Where on the map the maximum is: y, x, (unit top 2).
        boxes: The receptive field of that position, or its middle, clipped to the image: y0 x0 y1 x1 in pixels of the network's input,
            (unit top 4).
        crops: The image inside the box, (unit top rgb h w) in [0,1]; white beyond the border of the image. Empty if not wanted.
        layer: The layer's name.
        units: The units' numbers.
        unit_names: Class names of the units on "output", else "".
        label: The label whose images were searched; "" for all.
        names: Name of each image, unit by unit.
        image_labels: Label of each image, "" for none, unit by unit.
        missing: Images whose file no longer exists; their crops are white.
        height, width: Size of the network's input in pixels.
        of: How many images were searched.
        middle: Share of the receptive field's sides that is shown.
    """

    tabled: ClassVar[Rows] = Rows(
        "unit top", unit="unit:units", unit_name="unit:unit_names", rank="top", image="unit top:names", label="unit top:image_labels"
    )

    values: Array = axes("unit top", unit="activation")
    images: Array = axes("unit top")
    positions: Array = axes("unit top yx")
    boxes: Array = axes("unit top edge", "boxes")
    crops: Array = axes("unit shown rgb h w", "image")
    layer: str = ""
    units: tuple[int, ...] = ()
    unit_names: tuple[str, ...] = ()
    label: str = ""
    names: tuple[tuple[str, ...], ...] = ()
    image_labels: tuple[tuple[str, ...], ...] = ()
    missing: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    of: int = 0
    middle: float = 1.0

    def summary(self) -> str:
        """The four highest images of each unit."""
        lines: list[str] = []
        for row, (names, values) in enumerate(zip(self.names, self.values, strict=True)):
            found = ", ".join(f"{words.stem(name)} ({value:.3g})" for name, value in zip(names[:_IN_SUMMARY], values, strict=False))
            lines.append(f"{_title(self, row)}: {found}{'' if _active(self, row) else ' (not active)'}")
        if self.missing:
            lines.append(f"{_missing(self)}, e.g. {self.missing[0]}")
        return "\n".join(lines)

    def view(self) -> View:
        """A row for each unit: the crops with activation, and label or name, of their images; without crops, a table."""
        shown = min(len(self.units), _MOST)
        make = _row if self.crops.shape[1] else _table
        panels: tuple[Panel, ...] = tuple(make(self, row) for row in range(shown))
        size = " x ".join(str(int(length)) for length in (self.boxes[..., 2:] - self.boxes[..., :2]).reshape(-1, 2).max(0))
        middle = "" if self.middle == 1 else f"the middle {self.middle:.0%} of the sides of "
        note = words.note(
            f"Each tile: {middle}the unit's receptive field where its activation is highest",
            f"({size} of {self.height} x {self.width} pixels; grey is beyond the border).",
            "Below: activation, and the image's label or name.",
            f"Shown are the first {shown} of {len(self.units)} units." if len(self.units) > shown else "",
            f"{_missing(self)}." if self.missing else "",
        )
        whose = f"images of {self.label}" if self.label else "images"
        return View("Exemplars", panels, subtitle=words.subtitle(self, f"the highest of {self.of} {whose}"), note=note)


def _title(result: Exemplars, row: int) -> str:
    return f"unit {words.named(result.units[row], result.unit_names[row])}"


def _active(result: Exemplars, row: int) -> bool:
    return bool(np.nanmax(result.values[row], initial=-np.inf) > 0)


def _missing(result: Exemplars) -> str:
    return f"{words.plural(len(result.missing), 'image file')} not found"


def _row(result: Exemplars, row: int) -> Group:
    tiles: list[Image] = []
    for column, (name, label) in enumerate(zip(result.names[row], result.image_labels[row], strict=True)):
        value = result.values[row, column]
        marked = "file not found" if name in result.missing else "not active" if value <= 0 else None
        caption = f"{number(value)} · {label if label and not result.label else words.stem(name)}"
        tiles.append(Image(_filled(result, row, column), caption=caption, marked=marked))
    return Group(tuple(tiles), min(_ACROSS, max(len(tiles), 1)), _title(result, row), side=_SIDE)


def _filled(result: Exemplars, row: int, column: int) -> np.ndarray:
    """A crop, grey beyond the border of the image: white would look like the page, or like a part of the image.

    A box that the upper or left border cuts lies at the end of its tile, any other at its beginning.
    """
    crop = np.full_like(result.crops[row, column], _BEYOND)
    y0, x0, y1, x1 = (int(edge) for edge in result.boxes[row, column])
    rows, columns = (
        slice(length - (end - first), length) if first == 0 else slice(0, end - first)
        for first, end, length in ((y0, y1, crop.shape[1]), (x0, x1, crop.shape[2]))
    )
    crop[:, rows, columns] = result.crops[row, column][:, rows, columns]
    return crop


def _table(result: Exemplars, row: int) -> Table:
    found = zip(result.names[row], result.image_labels[row], result.values[row], result.positions[row], strict=False)
    rows = tuple((name, label, number(value), f"({y}, {x})") for name, label, value, (y, x) in found)
    title = _title(result, row) + ("" if _active(result, row) else ": not active")
    return Table(("image", "label", "activation", "at"), rows, title)
