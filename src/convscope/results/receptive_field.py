"""Receptive fields: for one layer the middle unit's box and what it really looks at, on the picture; for many a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.errors import BadInput
from convscope.render.panels import Group, Heat, Image, Panel, Table, View
from convscope.results import words
from convscope.results.base import Array, Result, axes


@dataclass(frozen=True, eq=False)
class ReceptiveField(Result):
    """Receptive fields of layers; of one layer also every unit's box and the effective field.

    Attributes:
        size: Height and width of the field in pixels, (layer 2); of the whole picture where `whole`.
        jump: Pixels between the fields of neighbouring units, (layer 2).
        start: First pixel of the first unit's field, (layer 2); negative: it begins in the padding.
        whole: 1 where units see the whole picture whatever its size (sums over the map, dense layers), (layer 2).
        rows: First and last row of pixels seen by each row of units of the asked layer, not clipped; then the same without what lies in
            padding, (y 4); empty for several layers.
        columns: The same for columns, (x 4).
        effective: Gradient energy at the picture of the middle unit of the asked layer, all channels together, divided by its maximum,
            (h w); empty for several layers.
        image: The picture it is drawn on, (rgb h w) in [0,1].
        layers: Names of the layers.
        height, width: Size of the picture in pixels.
        share: Share of the picture's pixels whose energy is above 4.55 % of the peak (two standard deviations, if it were Gaussian).
    """

    size: Array = axes("layer yx", unit="pixels")
    jump: Array = axes("layer yx", unit="pixels")
    start: Array = axes("layer yx", unit="pixels")
    whole: Array = axes("layer yx")
    rows: Array = axes("y ends", unit="pixels")
    columns: Array = axes("x ends", unit="pixels")
    effective: Array = axes("h w", "heat", unit="gradient energy / maximum")
    image: Array = axes("rgb h w", "image")
    layers: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    share: float = 0.0

    def box(self, y: int, x: int, *, clipped: bool = True) -> tuple[int, int, int, int]:
        """The pixels that the unit at (y, x) of the asked layer sees: (y0, x0, y1, x1), end exclusive.

        Args:
            y, x: Position on the layer's map.
            clipped: Leave out what lies in padding, the picture's or that of a map on the way. A unit that sees only padding has an empty
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
            seen = "the whole picture" if whole.all() else f"{_pair(size)} px, every {_pair(jump)} px, from {_pair(start)}"
            lines.append(f"{name}: {seen}")
        if self.effective.size:
            lines.append(f"effective field of the middle unit: {100 * self.share:.1f} % of the picture above 4.55 % of its peak")
        return "\n".join(lines)

    def view(self) -> View:
        """Box and effective field side by side, or a row per layer."""
        rows = [
            (name, *(("all",) * 3 if whole.all() else (_pair(size), _pair(jump), _pair(start))))
            for name, size, jump, start, whole in zip(self.layers, self.size, self.jump, self.start, self.whole, strict=True)
        ]
        table = Table(("layer", "field", "jump", "start"), tuple(rows[:_MOST]), "in pixels")
        note = "field: pixels seen by a unit; jump: pixels between neighbouring units; start: first pixel of the first unit (below 0: padding)."
        if not self.effective.size:
            return View("Receptive fields", (table,), subtitle=words.provenance(self), note=note)
        middle = len(self.rows) // 2, len(self.columns) // 2
        (y0, y1), (x0, x1) = self.rows[middle[0], 2:], self.columns[middle[1], 2:]
        picture = self.image if self.image.size else np.full((3, self.height, self.width), _GREY)
        where = f"unit at ({middle[0]}, {middle[1]}): pixels y {y0} to {y1}, x {x0} to {x1}"
        box = Image(picture, "what it can see", where, boxes=((float(y0), float(x0), float(y1) + 1, float(x1) + 1),))
        share = f"{100 * self.share:.1f} % of the picture above 4.55 % of the peak"
        inside = self.effective[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
        seen = Heat(inside, "what it looks at, inside the box (effective field)", share, "gradient energy / maximum")
        panels: tuple[Panel, ...] = (Group((box, seen), 2), table)
        return View(f"Receptive field of {self.layers[0]}", panels, subtitle=words.provenance(self), note=note)


def _pair(values: np.ndarray) -> str:
    return f"{values[0]:g}" if values[0] == values[1] else " x ".join(f"{value:g}" for value in values)


_GREY, _MOST = 0.75, 400
