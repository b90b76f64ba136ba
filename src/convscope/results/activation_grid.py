"""Activation grids: every unit's feature map on an image, layer by layer, and one unit of each layer in a strip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.errors import BadInput
from convscope.render.colors import colorize
from convscope.render.mosaic import mosaic_size
from convscope.render.panels import Group, Heat, Image, Mosaic, Panel, Signed, View, finite_range, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

_TILE, _SMALLEST_TILE, _STRIP_TILE = 84, 34, 168
_HEADING, _LONG_NAME = 60, 18
_PIXELS, _MOST_TILES = 9e6, 12000
_ACROSS, _FEW_GRIDS = 9, 4

_SCALES = {
    "layer": "one colour scale for the whole layer",
    "channel": "each unit on a colour scale of its own",
    "quantile": "one colour scale from the layer's 1 % to its 99 % quantile",
}


@dataclass(frozen=True, eq=False)
class ActivationGrid(ImageResult):
    """The feature maps of one or several layers.

    Attributes:
        images: The images as the network was fed them, (n rgb h w) in [0,1].
        chosen: The unit of each layer that the strip shows, (n layer).
        dead: How many units of each layer are nowhere above zero on an image, (n layer).
        layers: Names of the layers, in call order.
        maps: Every unit's map at its own size, an array (n c h w) for each layer.
        limits: The values at both ends of each map's colour scale, an array (c 2) for each layer.
        names: Names of the images.
        scale: Where the limits come from: "layer", "channel" or "quantile".
        columns: Units in a row of the grid.
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
        """The maps of a layer, (n c h w).

        Raises:
            BadInput: The layer is not in this grid.
        """
        if layer not in self.layers:
            raise BadInput(f"layer {layer!r} is not in this grid; it holds {', '.join(self.layers)}")
        return self.maps[self.layers.index(layer)]

    def grid(self, layer: str, image: int = 0) -> np.ndarray:
        """All maps of a layer as one array (rows*h, columns*w): unit c at row c // columns, column c % columns, the rest NaN."""
        return grid_of(self.layer(layer)[image], self.columns)

    def dead_units(self, layer: str, image: int = 0) -> list[int]:
        """The units of a layer that are nowhere above zero on an image."""
        return _dead(self.layer(layer)[image])

    def strip(self, image: int = 0) -> list[tuple[str, int, np.ndarray]]:
        """One unit of each layer on an image: (layer, unit, map)."""
        return [(name, int(unit), maps[image, unit]) for name, unit, maps in zip(self.layers, self.chosen[image], self.maps, strict=True)]

    def summary(self) -> str:
        """The layers with their sizes, and how many units are dead on the first image."""
        lines: list[str] = []
        for index, (name, maps) in enumerate(zip(self.layers, self.maps, strict=True)):
            _, units, height, width = maps.shape
            lines.append(f"{name}: {units} maps of {height}x{width}, {self.dead[0, index]} dead on {self.names[0]}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """For each image the strip and a mosaic per layer, as many images as a figure has room for."""
        tiles = sum(maps.shape[1] for maps in self.maps)
        shown = int(min(len(self.images), max(_MOST_TILES // tiles, 1)))
        side = int(np.clip(np.sqrt(_PIXELS / (tiles * shown)), _SMALLEST_TILE, _TILE))
        panels: list[Panel] = []
        for image in range(shown):
            panels.append(_strip(self, image))
            grids = tuple(_grid(self, image, index, side) for index in range(len(self.layers)))
            title = f"{self.names[image]}: every unit"
            in_two = len(grids) > _FEW_GRIDS and side < _TILE // 1.5
            panels.append(Group(_stacked(grids), 2, title) if in_two else Group(grids, 1, title))
        note = words.note(
            "Unit = number at the left + number above. Crossed out: dead, nowhere above zero on this image. White: no such unit.",
            f"Colours in the mosaics: {_SCALES[self.scale]}; in the strip, each map from its smallest to its largest value.",
            f"Shown: the first {shown} of {len(self.images)} images." if shown < len(self.images) else "",
        )
        layers = f"layer {self.layers[0]}" if len(self.layers) == 1 else f"{len(self.layers)} layers"
        subtitle = words.subtitle(self, f"{layers}, {tiles} units")
        return View("Activation grid", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def grid_of(maps: np.ndarray, columns: int) -> np.ndarray:
    """(c h w) laid out as (rows*h, columns*w), row by row; unused tiles are NaN."""
    units, height, width = maps.shape
    rows = -(-units // columns)
    padded = np.full((rows * columns, height, width), np.nan, maps.dtype)
    padded[:units] = maps
    return padded.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def maps_of(grid: np.ndarray, units: int, columns: int) -> np.ndarray:
    """The inverse of :func:`grid_of`: the (c h w) maps in a grid."""
    rows = -(-units // columns)
    height, width = grid.shape[0] // rows, grid.shape[1] // columns
    return grid.reshape(rows, height, columns, width).swapaxes(1, 2).reshape(-1, height, width)[:units]


def _dead(maps: np.ndarray) -> list[int]:
    return np.flatnonzero(maps.max((1, 2)) <= 0).tolist()


def _strip(result: ActivationGrid, image: int) -> Panel:
    """The image and the chosen unit's map of each layer, all at one size."""
    pixels = result.images[image]
    height, width = pixels.shape[1:]
    zoom = _STRIP_TILE / max(height, width)
    size = max(round(height * zoom), 1), max(round(width * zoom), 1)
    tiles = [Image(_resized(pixels, size), result.names[image], "the image")]
    for name, unit, values in result.strip(image):
        low, high = finite_range(values)
        kind = Signed if low < 0 else Heat
        colored = colorize(kind(values, limits=(low, high if high > low else low + 1)))
        tiles.append(Image(_resized(colored, size), _breakable(name), f"unit {unit}\n{number(low)} to {number(high)}"))
    title = "One unit of each layer, the one of highest mean activation unless chosen"
    return Group(tuple(tiles), min(len(tiles), _ACROSS), title, side=_STRIP_TILE)


def _grid(result: ActivationGrid, image: int, index: int, side: int) -> Mosaic:
    maps, limits = result.maps[index][image], result.limits[index]
    units, height, width = maps.shape
    columns = min(result.columns, units)
    signed = bool(limits[:, 0].min() < 0)
    if signed:  # zero in the middle
        limits = np.abs(limits).max(1, keepdims=True) * np.array([-1.0, 1.0])
    dead = _dead(maps)
    return Mosaic(
        maps,
        columns,
        limits,
        side,
        "signed" if signed else "heat",
        f"{result.layers[index]}: {units} maps of {height}x{width}" + (f", {len(dead)} dead" if dead else ""),
        unit="activation",
        crossed=tuple(dead),
        row_names=tuple(str(first) for first in range(0, units, columns)),
        column_names=tuple(f"+{column}" for column in range(columns)),
    )


def _stacked(grids: tuple[Mosaic, ...]) -> tuple[Panel, ...]:
    """Two stacks of about the same height, the first to be read before the second."""
    heights = np.cumsum([mosaic_size(grid)[1] + _HEADING for grid in grids])
    first = int(np.argmin(np.abs(heights - heights[-1] / 2))) + 1
    return Group(grids[:first], 1), Group(grids[first:], 1)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(rgb h w) at another size, by nearest neighbours, so that the cells of a map can be counted."""
    rows, columns = (np.arange(wanted) * length // wanted for wanted, length in zip(size, pixels.shape[1:], strict=True))
    return pixels[:, rows][:, :, columns]


def _breakable(layer: str) -> str:
    """A long layer name with a space before its last part, where a title may break the line."""
    return ". ".join(layer.rsplit(".", 1)) if len(layer) > _LONG_NAME else layer
