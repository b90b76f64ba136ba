"""Filter health: how many channels of each layer have which finding, which ones, and how often channels are silent."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.panels import Bars, Panel, Table, View, number

_FINDINGS = ("dead", "structural", "constant", "saturated")
_MOST_LAYERS, _MOST_PLOTS, _LISTED = 60, 4, 10


def view(result: Any) -> View:
    """A table of all layers, the channels concerned, and for few layers the share of zeros of every channel.

    Args:
        result: ``FilterHealth``, fresh or loaded: a row (filter) for each channel, `layers`, `rectified`, `images`.
    """
    panels: list[Panel] = [_counts(result)]
    concerned = _concerned(result)
    if concerned.rows:
        panels.append(concerned)
    if len(result.layers) <= _MOST_PLOTS:
        for place, layer in enumerate(result.layers):
            own = result.place == place
            dead = tuple((int(channel), str(channel)) for channel in np.flatnonzero(result.dead[own])[:_LISTED])
            panels.append(Bars(100 * result.apoz[own], f"{layer}: share of zeros", "channel", "% of positions", dead))
    bound = min(300 / max(result.images, 1), 100)
    note = f"Dead: never above zero on these {result.images} images, so alive on less than {bound:.2g} % of such images (95 %, rule of "
    note += "three). Structural: cannot be above zero on any image. Constant: the same on every image. Saturated: at least 5 % of all "
    note += "activations within 2 % of the largest. Duplicate: means and maxima over images correlate with those of an earlier channel. "
    note += "Zeros: average percentage of zeros."
    if not result.paired:
        note += " Duplicates were not looked for: this survey lacks what each image does."
    count = f"{len(result.channels)} channels of {len(result.layers)} layer{'s' if len(result.layers) > 1 else ''}"
    parts = words.provenance(result), count
    return View("Filter health", tuple(panels), subtitle=" · ".join(part for part in parts if part), note=note)


def _flags(result: Any) -> dict[str, np.ndarray]:
    return {name: getattr(result, name) > 0 for name in _FINDINGS} | {"duplicate": result.twin >= 0}


def _counts(result: Any) -> Table:
    flags = _flags(result)
    rows: list[tuple[str, ...]] = []
    for place, layer in list(enumerate(result.layers))[:_MOST_LAYERS]:
        own = result.place == place
        found = [str(int(flag[own].sum())) if flag[own].any() else "-" for flag in flags.values()]
        if not result.rectified[place]:
            found[:2] = ["n/a", "n/a"]
        zeros = f"{100 * np.median(result.apoz[own]):.0f} %" if result.rectified[place] else "n/a"
        rows.append((layer, str(int(own.sum())), *found, zeros))
    more = f"first {_MOST_LAYERS} of {len(result.layers)} layers" if len(result.layers) > _MOST_LAYERS else ""
    return Table(("layer", "channels", *flags, "zeros, median"), tuple(rows), more)


def _concerned(result: Any) -> Table:
    rows: list[tuple[str, ...]] = []
    for place, layer in enumerate(result.layers):
        own = result.place == place
        for name, flag in _flags(result).items():
            channels = result.channels[own & flag]
            if not len(channels):
                continue
            twins = zip(channels, result.twin[own & flag], result.likeness[own & flag], strict=True)
            listed = [f"{channel} = {twin} (r {number(r)})" if name == "duplicate" else str(channel) for channel, twin, r in twins]
            rows.append((layer, name, ", ".join(listed[:_LISTED]) + (f", ... ({len(listed)})" if len(listed) > _LISTED else "")))
    return Table(("layer", "finding", "channels"), tuple(rows[:_MOST_LAYERS]), "which channels")
