"""Inversions: a row per image, the image first, then what its codes still say."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Group, Image, Panel, Table, View, number

_MOST, _ACROSS, _SIDE = 120, 8, 176


def view(result: Any) -> View:
    """The pictures with their errors, and a table of how they came about.

    Args:
        result: ``Inversion``, fresh or loaded: images (n edit rgb h w), originals (n rgb h w), error (n edit), history (n edit step).
    """
    count, edits = result.error.shape
    shown = min(count, max(1, _MOST // (edits + 1)))
    tiles = [tile for row in range(shown) for tile in _row(result, row)]
    columns = edits + 1 if edits < _ACROSS else _ACROSS
    panels: tuple[Panel, ...] = (Group(tuple(tiles), columns, side=_SIDE),)
    if count * edits <= 24:
        panels = (*panels, _table(result))
    where = f"layers {', '.join(result.layers)}" if len(result.layers) > 1 else ""
    parts = words.provenance(result), where, str(result.manifest.get("plan", {}).get("optimizer", ""))
    note = (
        "Error: ||phi(x) - psi||^2 / ||psi||^2 of the picture as shown, psi the code aimed at; 0: reached, 1: no better than a zero code."
    )
    if shown < count:
        note += f" Shown: the first {shown} of {count} images."
    return View("Inversion: what a code still knows", panels, subtitle=" · ".join(part for part in parts if part), note=note)


def _row(result: Any, row: int) -> list[Image]:
    found = [Image(result.originals[row], str(result.names[row]), "the image")]
    for column, edit in enumerate(result.edits):
        found.append(Image(result.images[row, column], str(edit), f"error {number(result.error[row, column])}"))
    return found


def _table(result: Any) -> Table:
    """Evaluations and parts of the loss of each picture."""
    header = ("image", "aimed at", "error", "evaluations", *(f"loss: {part}" for part in result.parts))
    rows = [
        (
            str(name),
            str(edit),
            number(result.error[row, column]),
            str(int(np.isfinite(result.history[row, column]).sum())),
            *(number(value) for value in result.losses[row, column]),
        )
        for row, name in enumerate(result.names)
        for column, edit in enumerate(result.edits)
    ]
    return Table(header, tuple(rows))
