"""Channel spectra: a bar per channel, the highest ones named, with what those channels look for beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Bars, Group, Image, Panel, Table, View, number

_SPIKES, _MOST_PLOTS, _TILES = 8, 8, 6


def view(result: Any) -> View:
    """The mean spectrum, then one row per image, or a matrix image x channel where there are many.

    Args:
        result: ``Spectrum``, fresh or loaded: values (n c), and fields `layer`, `names`, `labels`, `reduce`, `pictures`, `pictured`.
    """
    count, channels = result.values.shape
    parts = words.provenance(result), f"{channels} channels", f"{count} image{'s' if count != 1 else ''}"
    panels: list[Panel] = []
    if count > 1:
        panels.extend(_row(result, result.values.mean(axis=0), None, f"mean of {count} images"))
    note = f"Named are the channels with at least a quarter of the highest value, {_SPIKES} at most. "
    if count <= _MOST_PLOTS:
        for row in range(count):
            panels.extend(_row(result, result.values[row], row, result.names[row]))
    shown: tuple[Panel, ...] = (Group(tuple(panels), 2),)
    if count > _MOST_PLOTS:
        shown = (*shown, words.matrix(result.values, list(result.names), title="every image", unit=_y_label(result)))
    if result.pictured:
        note += "Pictures: what the named channels look for (feature visualization)."
    return View("Channel spectrum", shown, subtitle=" · ".join(part for part in parts if part), note=note.strip())


def spikes(values: np.ndarray, count: int) -> list[int]:
    """The channels with the highest values (c,), highest first: above the mean and at least a quarter of the highest."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:count]
    least = max(float(np.nanmean(values)), float(np.nanmax(values)) / 4)
    return [int(index) for index in order if values[index] >= least]


def _y_label(result: Any) -> str:
    return f"{result.reduce} activation"


def _row(result: Any, values: np.ndarray, row: int | None, title: str) -> list[Panel]:
    chosen = spikes(values, _SPIKES)
    named = tuple((unit, words.unit_name(unit, result.labels)) for unit in chosen)
    bars = Bars(values, title, "channel", _y_label(result), named)
    pictures = dict(zip(result.pictured, result.pictures, strict=True))
    tiles = tuple(
        Image(pictures[unit], words.unit_name(unit, result.labels), number(values[unit])) for unit in chosen[:_TILES] if unit in pictures
    )
    table = _table(result, values, row, chosen)
    return [bars, Group((table, Group(tiles, 3, side=104)), 2) if tiles else table]


def _table(result: Any, values: np.ndarray, row: int | None, chosen: list[int]) -> Table:
    """The highest channels: value, maximum over positions, share of active positions (of one image, or the mean over images)."""
    maxima = result.maxima.mean(axis=0) if row is None else result.maxima[row]
    active = result.active.mean(axis=0) if row is None else result.active[row]
    rows = [
        (words.unit_name(unit, result.labels), number(values[unit]), number(maxima[unit]), f"{100 * active[unit]:.0f} %") for unit in chosen
    ]
    return Table(("channel", result.reduce, "max", "active"), tuple(rows), "highest channels" if rows else "no channel stands out")
