"""Receptive fields: size, jump and start for each layer; for one layer also every unit's box and the effective field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.errors import BadInput
from convscope.render.panels import Group, Heat, Image, Panel, Table, View
from convscope.results import channels, words
from convscope.results.base import Array, Result, axes

_GREY, _MOST = 0.75, 400
"""Brightness where no image is given; most rows of the table."""


@dataclass(frozen=True, eq=False)
class ReceptiveField(Result):
    """Receptive fields of layers; of one layer also every unit's box and the effective field.

    Attributes:
        size: Height and width of the field in pixels, (layer 2); of the whole image where `whole`.
        jump: Pixels between the fields of neighbouring units, (layer 2).
        start: First pixel of the first unit's field, (layer 2); negative: it begins in the padding.
        whole: 1 where units see the whole image whatever its size (global pooling, dense layers), (layer 2).
        rows: First and last row of pixels seen by each row of units of the asked layer, not clipped; then the same without what lies in
            padding, (y 4); empty for several layers.
        columns: The same for columns, (x 4).
        effective: Gradient energy of the asked layer's middle unit with respect to the image, all colours together, divided by its
            maximum, (h w); empty for several layers.
        image: The image it is drawn on, (c h w) in [0,1].
        layers: Names of the layers.
        height, width: Size of the image in pixels.
        share: Share of the image's pixels whose energy is above 4.55 % of the peak (two standard deviations, if it were Gaussian).
    """

    size: Array = axes("layer yx", unit="pixels")
    jump: Array = axes("layer yx", unit="pixels")
    start: Array = axes("layer yx", unit="pixels")
    whole: Array = axes("layer yx")
    rows: Array = axes("y span", unit="pixels")
    columns: Array = axes("x span", unit="pixels")
    effective: Array = axes("h w", "heat", unit="gradient energy / maximum")
    image: Array = axes("c h w", "image")
    layers: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    share: float = 0.0

    def box(self, y: int, x: int, *, clipped: bool = True) -> tuple[int, int, int, int]:
        """The pixels that the unit at (y, x) of the asked layer sees: (y0, x0, y1, x1), end exclusive.

        Args:
            y, x: Position on the layer's map.
            clipped: Leave out what lies in padding, of the image or of a map in between. A unit that sees only padding has an empty
                box.

        Raises:
            BadInput: Several layers were asked for, or there is no such position.
        """
        if len(self.layers) != 1:
            raise BadInput(f"a box belongs to one layer; these are the fields of {len(self.layers)}: ask for receptive_field(scope, layer)")
        if not (0 <= y < len(self.rows) and 0 <= x < len(self.columns)):
            raise BadInput(f"layer {self.layers[0]} has positions to ({len(self.rows) - 1}, {len(self.columns) - 1}), got ({y}, {x})")
        ends = slice(2, 4) if clipped else slice(0, 2)
        (y0, y1), (x0, x1) = self.rows[y, ends], self.columns[x, ends]
        return int(y0), int(x0), int(y1) + 1, int(x1) + 1

    def summary(self) -> str:
        """A line per layer."""
        lines: list[str] = []
        for name, size, jump, start, whole in zip(self.layers, self.size, self.jump, self.start, self.whole, strict=True):
            seen = "the whole image" if whole.all() else f"{_pair(size)} px, every {_pair(jump)} px, from {_pair(start)}"
            lines.append(f"{name}: {seen}")
        if self.effective.size:
            lines.append(f"effective field of the middle unit: {100 * self.share:.1f} % of the image above 4.55 % of its peak")
        return "\n".join(lines)

    def view(self) -> View:
        """The field of the middle unit on the image beside its effective field, for one layer; always a table of the layers."""
        note = words.note(
            "field: pixels seen by a unit; jump: pixels between neighbouring units; start: first pixel of the first unit (below 0:",
            "padding).",
        )
        if not self.effective.size:
            return View("Receptive fields", (_table(self),), subtitle=words.subtitle(self), note=note)
        panels: tuple[Panel, ...] = (_fields(self), _table(self))
        return View(f"Receptive field of {self.layers[0]}", panels, subtitle=words.subtitle(self), note=note)


def _table(result: ReceptiveField) -> Table:
    rows = [
        (name, *(("all",) * 3 if whole.all() else (_pair(size), _pair(jump), _pair(start))))
        for name, size, jump, start, whole in zip(result.layers[:_MOST], result.size, result.jump, result.start, result.whole, strict=False)
    ]
    return Table(("layer", "field", "jump", "start"), tuple(rows), "in pixels")


def _fields(result: ReceptiveField) -> Group:
    """The middle unit's field as a box on the image, and the effective field inside that box."""
    y, x = len(result.rows) // 2, len(result.columns) // 2
    y0, x0, y1, x1 = result.box(y, x)
    pixels = channels.backdrop(result, result.image) if result.image.size else np.full((3, result.height, result.width), _GREY)
    where = f"unit at ({y}, {x}): pixels y {y0} to {y1 - 1}, x {x0} to {x1 - 1}"
    box = Image(pixels, "receptive field", where, boxes=((y0, x0, y1, x1),))
    share = f"{100 * result.share:.1f} % of the image above 4.55 % of the peak"
    effective = Heat(result.effective[y0:y1, x0:x1], "effective receptive field, inside the box", share, "gradient energy / maximum")
    return Group((box, effective), 2)


def _pair(values: np.ndarray) -> str:
    return f"{values[0]:g}" if values[0] == values[1] else " x ".join(f"{value:g}" for value in values)
