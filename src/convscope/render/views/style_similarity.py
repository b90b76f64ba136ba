"""Style similarity: a matrix per statistic, and how well given groups are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Group, Heat, Image, Panel, Table, View, number

_MOST_TILES, _TILE, _WIDE = 48, 96, 12


def view(result: Any) -> View:
    """The images in their order, a matrix image x image for each statistic, and the AUC of the groups by layer.

    Args:
        result: ``StyleSimilarity``, fresh or loaded: similarity (statistic n other), auc (statistic), layer_auc, pictures.
    """
    count = len(result.names)
    groups = result.groups or ("",) * count
    tiles = tuple(
        Image(result.pictures[place], f"{place} {result.names[place]}", str(groups[place])) for place in range(min(count, _MOST_TILES))
    )
    low = float(result.similarity.min())
    names = tuple(f"{place} {name}" for place, name in enumerate(result.names))
    matrices = tuple(
        Heat(values, _title(result, row), unit="similarity", limits=(low, 1.0), rows=names, x_label="image")
        for row, values in enumerate(result.similarity)
    )
    panels: tuple[Panel, ...] = (Group(tiles, min(count, _WIDE), side=_TILE), Group(matrices, 1))
    panels = (*panels, _nearest(result)) if count <= _MOST_TILES else panels
    if result.groups:
        panels = (*panels, _groups(result))
    parts = words.provenance(result), f"layers {', '.join(result.layers)}"
    note = "Similarity: 1 - the mean over the layers of ||a - b|| / (||a|| + ||b||) of each statistic per position; 1 is the same style."
    if count > _MOST_TILES:
        note += f" Shown: the first {_MOST_TILES} of {count} images; the matrices hold all."
    return View("Style similarity", panels, subtitle=" · ".join(part for part in parts if part), note=note)


def _title(result: Any, row: int) -> str:
    auc = f", AUC of the groups {number(result.auc[row])}" if result.groups else ""
    return f"{result.statistics[row]}{auc}"


def _nearest(result: Any) -> Table:
    rows: list[tuple[str, ...]] = []
    for place, name in enumerate(result.names):
        found: list[str] = []
        for values in result.similarity:
            others = np.where(np.arange(len(values)) == place, -1.0, values[place])
            best = int(others.argmax())
            found.append(f"{best} {result.names[best]} ({number(others[best])})")
        rows.append((f"{place} {name}", *found))
    return Table(("image", *(f"nearest by {name}" for name in result.statistics)), tuple(rows))


def _groups(result: Any) -> Table:
    rows = [
        (name, number(result.auc[row]), *(number(value) for value in result.layer_auc[row])) for row, name in enumerate(result.statistics)
    ]
    return Table(("AUC of same-group pairs", "all layers", *result.layers), tuple(rows))
