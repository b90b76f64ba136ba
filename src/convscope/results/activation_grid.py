"""What an image becomes: the picture, one channel of each layer in a strip, and every channel of every layer as a mosaic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.errors import BadInput
from convscope.render.colors import colorize
from convscope.render.mosaic import mosaic_size
from convscope.render.panels import Group, Heat, Image, Mosaic, Panel, Signed, View, finite_range, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes


@dataclass(frozen=True, eq=False)
class ActivationGrid(ImageResult):
    """The maps of one or several layers.

    Attributes:
        images: The images as the network was fed them, (n rgb h w) in [0,1].
        chosen: The channel of each layer that the strip shows, (n layer).
        dead: How many channels of each layer are nowhere above zero on an image, (n layer).
        layers: Names of the layers, in call order.
        maps: Every channel's map at its own size, an array (n c h w) for each layer.
        limits: The values at both ends of each map's colour scale, an array (c 2) for each layer.
        names: Names of the images.
        scale: Where the limits come from: "layer", "channel" or "quantile".
        columns: Channels in a row of the grid.
    """

    images: Array = axes("n rgb h w", "image")
    chosen: Array = axes("n layer")
    dead: Array = axes("n layer")
    layers: tuple[str, ...] = ()
    maps: tuple[np.ndarray, ...] = ()
    limits: tuple[np.ndarray, ...] = ()
    names: tuple[str, ...] = ()
    scale: str = "layer"
    columns: int = 16

    def layer(self, layer: str) -> np.ndarray:
        """The maps of a layer, (n c h w)."""
        return self.maps[self._place(layer)]

    def grid(self, layer: str, image: int = 0) -> np.ndarray:
        """All maps of a layer as one array (rows*h, columns*w): channel c at row c // columns, column c % columns, unused places NaN."""
        return grid_of(self.layer(layer)[image], self.columns)

    def dead_channels(self, layer: str, image: int = 0) -> list[int]:
        """The channels of a layer that are nowhere above zero on an image."""
        return np.flatnonzero(self.layer(layer)[image].max((1, 2)) <= 0).tolist()

    def strip(self, image: int = 0) -> list[tuple[str, int, np.ndarray]]:
        """How an image evolves: (layer, channel, map) with one channel of each layer."""
        return [(name, int(unit), maps[image, unit]) for name, unit, maps in zip(self.layers, self.chosen[image], self.maps, strict=True)]

    def summary(self) -> str:
        """The layers with their sizes, and how many channels are dead on the first image."""
        lines: list[str] = []
        for place, (name, maps) in enumerate(zip(self.layers, self.maps, strict=True)):
            _, channels, height, width = maps.shape
            lines.append(f"{name}: {channels} maps of {height}x{width}, {self.dead[0, place]} dead on {self.names[0]}")
        return self.with_skipped("\n".join(lines), "\n")

    def _place(self, layer: str) -> int:
        if layer not in self.layers:
            raise BadInput(f"layer {layer!r} is not in this grid; it holds {', '.join(self.layers)}")
        return self.layers.index(layer)

    def view(self) -> View:
        """The images one after another, as many as a figure can hold."""
        tiles = sum(maps.shape[1] for maps in self.maps)
        shown = int(min(len(self.images), max(_MOST_TILES // tiles, 1)))
        side = int(np.clip(np.sqrt(_PIXELS / (tiles * shown)), _SMALLEST_TILE, _TILE))
        panels: list[Panel] = []
        for image in range(shown):
            panels.append(_strip(self, image))
            grids = tuple(_grid(self, image, place, side) for place in range(len(self.layers)))
            title = f"{self.names[image]}: every channel"
            panels.append(Group(_stacked(grids), 2, title) if len(grids) > 4 and side < _TILE // 1.5 else Group(grids, 1, title))
        note = (
            "Channel = number at the left + number above. Crossed out: dead, nowhere above zero on this picture. White: no such channel. "
            f"Colours in the mosaics: {_SCALES[self.scale]}; in the strip, each map from its smallest to its largest value."
        )
        if shown < len(self.images):
            note += f" Shown: the first {shown} of {len(self.images)} images."
        layers = f"layer {self.layers[0]}" if len(self.layers) == 1 else f"{len(self.layers)} layers"
        subtitle = f"{words.provenance(self)} · {layers}, {tiles} channels"
        return View("Activation grid", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def grid_of(maps: np.ndarray, columns: int) -> np.ndarray:
    """(c h w) laid out as (rows*h, columns*w), row by row; unused places are NaN."""
    channels, height, width = maps.shape
    rows = -(-channels // columns)
    padded = np.full((rows * columns, height, width), np.nan, maps.dtype)
    padded[:channels] = maps
    return padded.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def maps_of(grid: np.ndarray, channels: int, columns: int) -> np.ndarray:
    """The inverse of :func:`grid_of`: the (c h w) maps in a grid."""
    rows = -(-channels // columns)
    height, width = grid.shape[0] // rows, grid.shape[1] // columns
    return grid.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(-1, height, width)[:channels]


_TILE, _SMALLEST_TILE, _STRIP_TILE = 84, 34, 168


_HEADING, _LONG_NAME = 60, 18


_PIXELS, _MOST_TILES = 9e6, 12000


_SCALES = {
    "layer": "one colour scale for the whole layer",
    "channel": "each channel on a colour scale of its own",
    "quantile": "one colour scale from the layer's 1 % to its 99 % quantile",
}


def _strip(result: ActivationGrid, image: int) -> Panel:
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


def _grid(result: ActivationGrid, image: int, place: int, side: int) -> Mosaic:
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
