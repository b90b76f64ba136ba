"""What an image becomes: the picture, one channel of each layer in a strip, and every channel of every layer as a mosaic."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscope.render import words
from convscope.render.colors import colorize
from convscope.render.mosaic import mosaic_size
from convscope.render.panels import Group, Heat, Image, Mosaic, Panel, Signed, View, finite_range, number

_TILE, _SMALLEST_TILE, _STRIP_TILE = 84, 34, 168
_HEADING, _LONG_NAME = 60, 18
_PIXELS, _MOST_TILES = 9e6, 12000
_SCALES = {
    "layer": "one colour scale for the whole layer",
    "channel": "each channel on a colour scale of its own",
    "quantile": "one colour scale from the layer's 1 % to its 99 % quantile",
}


def view(result: Any) -> View:
    """The images one after another, as many as a figure can hold.

    Args:
        result: ``ActivationGrid``, fresh or loaded: images (n rgb h w), and `layers`, `maps`, `limits`, `chosen`, `dead`, `names`.
    """
    tiles = sum(maps.shape[1] for maps in result.maps)
    shown = int(min(len(result.images), max(_MOST_TILES // tiles, 1)))
    side = int(np.clip(np.sqrt(_PIXELS / (tiles * shown)), _SMALLEST_TILE, _TILE))
    panels: list[Panel] = []
    for image in range(shown):
        panels.append(_strip(result, image))
        grids = tuple(_grid(result, image, place, side) for place in range(len(result.layers)))
        title = f"{result.names[image]}: every channel"
        panels.append(Group(_stacked(grids), 2, title) if len(grids) > 4 and side < _TILE // 1.5 else Group(grids, 1, title))
    note = (
        "Channel = number at the left + number above. Crossed out: dead, nowhere above zero on this picture. White: no such channel. "
        f"Colours in the mosaics: {_SCALES[result.scale]}; in the strip, each map from its smallest to its largest value."
    )
    if shown < len(result.images):
        note += f" Shown: the first {shown} of {len(result.images)} images."
    layers = f"{len(result.layers)} layers" if len(result.layers) > 1 else f"layer {result.layers[0]}"
    subtitle = f"{words.provenance(result)} · {layers}, {tiles} channels"
    return View("Activation grid", tuple(panels), subtitle=subtitle, note=note)


def _strip(result: Any, image: int) -> Panel:
    """The picture and the chosen channel's map of each layer, all at one size."""
    picture = result.images[image]
    height, width = picture.shape[1:]
    zoom = _STRIP_TILE / max(height, width)
    size = max(round(height * zoom), 1), max(round(width * zoom), 1)
    tiles = [Image(_resized(picture, size), result.names[image], "the picture")]
    for place, name in enumerate(result.layers):
        unit = int(result.chosen[image, place])
        values = result.maps[place][image, unit]
        low, high = finite_range(values)
        kind = Signed if low < 0 else Heat
        colored = colorize(kind(values, limits=(low, high if high > low else low + 1)))
        ends = f"{number(low)} to {number(high)}"
        tiles.append(Image(_resized(colored, size), _short(name), f"channel {unit}\n{ends}"))
    title = "How the picture evolves: one channel of each layer, the strongest by mean unless chosen"
    return Group(tuple(tiles), min(len(tiles), 9), title, side=_STRIP_TILE)


def _grid(result: Any, image: int, place: int, side: int) -> Mosaic:
    maps, limits = result.maps[place][image], result.limits[place]
    channels, height, width = maps.shape
    columns = min(result.columns, channels)
    signed = bool(limits[:, 0].min() < 0)
    if signed:  # zero in the middle
        limits = np.abs(limits).max(1, keepdims=True) * np.array([-1.0, 1.0])
    dead = tuple(np.flatnonzero(maps.max((1, 2)) <= 0).tolist())
    number_dead = f", {len(dead)} dead" if dead else ""
    return Mosaic(
        maps,
        columns,
        limits,
        side,
        "signed" if signed else "heat",
        f"{result.layers[place]}: {channels} maps of {height}x{width}{number_dead}",
        unit="activation",
        crossed=dead,
        row_names=tuple(str(first) for first in range(0, channels, columns)),
        column_names=tuple(f"+{column}" for column in range(columns)),
    )


def _stacked(grids: tuple[Mosaic, ...]) -> tuple[Panel, ...]:
    """Two stacks of about the same height, to be read one after the other."""
    heights = np.cumsum([mosaic_size(grid)[1] + _HEADING for grid in grids])
    first = int(np.argmin(np.abs(heights - heights[-1] / 2))) + 1
    return Group(grids[:first], 1), Group(grids[first:], 1)


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(rgb h w) at another size, by nearest neighbours, so that a map's own pixels can be counted."""
    rows, columns = (np.arange(wanted) * length // wanted for wanted, length in zip(size, picture.shape[1:], strict=True))
    return picture[:, rows][:, :, columns]


def _short(name: str) -> str:
    """A layer's name that may be broken before its last part."""
    return ". ".join(name.rsplit(".", 1)) if len(name) > _LONG_NAME else name
