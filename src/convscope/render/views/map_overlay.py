"""Maps over images: a tile per map of one image, or a row per image."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.contact_sheet import enlarged
from convscope.render.panels import Group, Heat, Image, Panel, View, number

_MOST_TILES, _ROW, _ACROSS, _SIDE, _LARGE = 400, 12, 8, 150, 300
_FULL = {
    "map": "its own largest value",
    "channel": "the channel's largest value over all images",
    "layer": "the largest value in the layer, over all images",
    "quantile": "the layer's 99 % quantile, over all images",
}


def view(result: Any) -> View:
    """A sheet per image, or one sheet where the same few channels are shown of many images.

    Args:
        result: ``MapOverlay``, fresh or loaded: images (n rgb h w), units, values, full (n map), maps (n map y x).
    """
    count, maps = result.units.shape
    most = max(_MOST_TILES // (maps + 1), 1)
    shown = min(count, most)
    panels = (_side_by_side(result, shown),) if result.chosen and maps < _ROW else _one_by_one(result, shown)
    style = "the map's colour over the grey picture" if result.style == "heat" else "the picture times its map, so black is where it is low"
    order = "Channels as asked for" if result.chosen else f"Strongest first, by {result.reduce} activation (the number below a tile)"
    note = f"{order}. Tiles: {style}; full at {_FULL[result.scale]}. Maps are enlarged bilinearly. Red frame: dead on this picture."
    if shown < count:
        note += f" Shown: the first {shown} of {count} images."
    height, width = result.maps.shape[2:]
    return View("Map overlay", panels, subtitle=f"{words.provenance(result)} · maps of {height}x{width}", note=note)


def _one_by_one(result: Any, shown: int) -> tuple[Panel, ...]:
    """A sheet per image: the picture, then its maps."""
    columns = _columns(result.units.shape[1])
    return tuple(
        Group((Group((_picture(result, image, "the picture"),), side=_LARGE), Group(_tiles(result, image), columns, side=_SIDE)), 2, name)
        for image, name in enumerate(result.names[:shown])
    )


def _side_by_side(result: Any, shown: int) -> Panel:
    """Each image followed by its few maps."""
    tiles = [tile for image in range(shown) for tile in (_picture(result, image, result.names[image]), *_tiles(result, image))]
    own = result.units.shape[1] + 1
    return Group(tuple(tiles), own * max(min(_ACROSS // own, shown), 1), side=_SIDE)


def _columns(tiles: int) -> int:
    return next((columns for columns in (8, 10, 12, 9, 7, 6, 5) if tiles % columns == 0 and tiles > columns), min(tiles, 10))


def _picture(result: Any, image: int, title: str) -> Image:
    return Image(result.images[image], title)


def _tiles(result: Any, image: int) -> tuple[Image, ...]:
    tiles: list[Image] = []
    for unit, values, value, full in zip(result.units[image], result.maps[image], result.values[image], result.full[image], strict=True):
        title, caption = f"channel {unit}", f"{result.reduce} {number(value)}"
        marked = "dead" if values.max(initial=0) <= 0 else None
        if result.style == "heat":
            heat = Heat(values, unit="activation", limits=(0.0, float(full) if full > 0 else 1.0))
            tiles.append(Image(result.images[image], title, caption, marked, heat))
        else:
            tiles.append(Image(_lit(result.images[image], values, float(full)), title, caption, marked))
    return tuple(tiles)


def _lit(picture: np.ndarray, values: np.ndarray, full: float) -> np.ndarray:
    """clip(picture * mask, 0, 1), (rgb h w)."""
    height, width = picture.shape[1:]
    mask = np.maximum(enlarged(values, (width, height)), 0) / full if full > 0 else np.zeros((height, width))
    return np.clip(picture * mask, 0, 1)
