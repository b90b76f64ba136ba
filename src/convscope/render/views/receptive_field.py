"""Receptive fields: for one layer the middle unit's box and what it really looks at, on the picture; for many a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Group, Heat, Image, Panel, Table, View

_GREY, _MOST = 0.75, 400


def view(result: Any) -> View:
    """Box and effective field side by side, or a row per layer.

    Args:
        result: ``ReceptiveField``, fresh or loaded.
    """
    rows = [
        (name, *(("all",) * 3 if whole.all() else (_pair(size), _pair(jump), _pair(start))))
        for name, size, jump, start, whole in zip(result.layers, result.size, result.jump, result.start, result.whole, strict=True)
    ]
    table = Table(("layer", "field", "jump", "start"), tuple(rows[:_MOST]), "in pixels")
    note = "field: pixels seen by a unit; jump: pixels between neighbouring units; start: first pixel of the first unit (below 0: padding)."
    if not result.effective.size:
        return View("Receptive fields", (table,), subtitle=words.provenance(result), note=note)
    middle = len(result.rows) // 2, len(result.columns) // 2
    (y0, y1), (x0, x1) = result.rows[middle[0], 2:], result.columns[middle[1], 2:]
    picture = result.image if result.image.size else np.full((3, result.height, result.width), _GREY)
    where = f"unit at ({middle[0]}, {middle[1]}): pixels y {y0} to {y1}, x {x0} to {x1}"
    box = Image(picture, "what it can see", where, boxes=((float(y0), float(x0), float(y1) + 1, float(x1) + 1),))
    share = f"{100 * result.share:.1f} % of the picture above 4.55 % of the peak"
    inside = result.effective[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1]
    seen = Heat(inside, "what it looks at, inside the box (effective field)", share, "gradient energy / maximum")
    panels: tuple[Panel, ...] = (Group((box, seen), 2), table)
    return View(f"Receptive field of {result.layers[0]}", panels, subtitle=words.provenance(result), note=note)


def _pair(values: np.ndarray) -> str:
    return f"{values[0]:g}" if values[0] == values[1] else " x ".join(f"{value:g}" for value in values)
