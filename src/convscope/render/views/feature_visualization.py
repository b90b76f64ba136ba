"""Feature visualizations as a contact sheet: unit and class, picture, score; units that found nothing are marked with the reason."""

from __future__ import annotations

from typing import Any

from convscope.render import words
from convscope.render.panels import Image, View, number

_SPELLED = 12


def view(result: Any) -> View:
    """A tile per unit.

    Args:
        result: ``FeatureVisualization``, fresh or loaded: images (unit rgb h w) in [0,1], scores (unit).
    """
    tiles = tuple(_tile(result, index) for index in range(len(result.images)))
    stuck = [unit for unit, status in zip(result.units, result.status, strict=True) if status == "stuck"]
    rescued = sum(status == "rescued" for status in result.status)
    parts = [f"{len(tiles)} units"]
    if rescued:
        parts.append(f"{rescued} rescued")
    if stuck:
        named = f" ({', '.join(map(str, stuck))})" if len(stuck) <= _SPELLED else ""
        parts.append(f"{len(stuck)} stuck{named}: the picture is not what the unit looks for")
    note = "Number below a tile: the mean of the layer's value at the final picture. " + "; ".join(parts) + "."
    return View(words.title(result), tiles, columns=None, subtitle=words.provenance(result), note=note)


def _tile(result: Any, index: int) -> Image:
    label = result.labels[index] if index < len(result.labels) else ""
    title = f"{result.units[index]} {label}" if label else f"unit {result.units[index]}"
    status, reason = result.status[index], result.reasons[index]
    caption = number(result.scores[index]) + (" · rescued" if status == "rescued" else "")
    marked = (f"stuck: {reason}" if reason else "stuck") if status == "stuck" else None
    return Image(result.images[index], title, caption, marked)
