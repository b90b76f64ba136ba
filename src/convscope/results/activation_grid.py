"""Result of `activation_grid`: every unit's feature map on an image, layer by layer, and one unit of each layer in a strip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convscope.errors import BadInput
from convscope.names import place_of
from convscope.render.colors import colorize
from convscope.render.mosaic import mosaic_size
from convscope.render.panels import Group, Heat, Image, Mosaic, Panel, Signed, Table, View, finite_range, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes

_TILE, _SMALLEST_TILE, _STRIP_TILE = 84, 34, 168
_HEADING, _LONG_NAME = 60, 18
_PIXELS, _MOST_TILES, _TALLEST = 9e6, 12000, 2400
_ACROSS, _IN_TABLE, _CELL = 9, 3, 5

_SCALES = {
    "layer": "one colour scale",
    "channel": "each map on its own colour scale",
    "quantile": "one colour scale, 1 % to 99 % quantile",
}


@dataclass(frozen=True, eq=False)
class ActivationGrid(ImageResult):
    """The feature maps of one or several layers.

    Attributes:
        images: The images as the network was fed them, (n c h w) in [0,1].
        chosen: The unit of each layer that the strip shows, (n layer); -1 for layers off the path that is followed.
        dead: How many units of each layer are nowhere above zero on an image, (n layer).
        places: Of a path: the position y, x of each layer's unit on it, (path layer 2); -1 off the path. As many paths as images, or none.
        shares: Of a path: what each layer's unit contributes, as a share of the value of the next unit on the path, (path layer); NaN off
            the path, 1 for the unit that it leads to.
        layers: Names of the layers, in call order.
        maps: Every unit's map at its own size, an array (n c h w) for each layer.
        limits: The values at both ends of each map's colour scale, an array (c 2) for each layer.
        contributions: Of a path: {layer on the path: {layer that its unit reads: what each of its units contributes, (c)}}, for each image.
        followed: The layer that a path leads into; "" without a path.
        names: Names of the images.
        scales: Where the limits of each layer come from: "layer", "channel" or "quantile".
        columns: Units in a row of the grid.
    """

    images: Array = axes("n c h w", "image")
    chosen: Array = axes("n layer")
    dead: Array = axes("n layer")
    places: Array = axes("path layer yx")
    shares: Array = axes("path layer")
    layers: tuple[str, ...] = ()
    maps: tuple[np.ndarray, ...] = ()
    limits: tuple[np.ndarray, ...] = ()
    contributions: tuple[Mapping[str, Mapping[str, np.ndarray]], ...] = ()
    followed: str = ""
    names: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    columns: int = 16

    def layer(self, layer: str) -> np.ndarray:
        """The maps of a layer, (n c h w).

        Raises:
            BadInput: The layer is not in this grid.
        """
        return self.maps[place_of(layer, self.layers, "layer")]

    def grid(self, layer: str, image: int = 0) -> np.ndarray:
        """All maps of a layer as one array (rows*h, columns*w): unit c at row c // columns, column c % columns, the rest NaN."""
        return grid_of(self.layer(layer)[image], self.columns)

    def dead_units(self, layer: str, image: int = 0) -> list[int]:
        """The units of a layer that are nowhere above zero on an image."""
        return _dead(self.layer(layer)[image])

    def strip(self, image: int = 0) -> list[tuple[str, int, np.ndarray]]:
        """One unit of each layer on an image: (layer, unit, map). With a path, only the layers on it."""
        rows = zip(self.layers, self.chosen[image], self.maps, strict=True)
        return [(name, int(unit), maps[image, unit]) for name, unit, maps in rows if unit >= 0]

    def path(self, image: int = 0) -> list[tuple[str, int, tuple[int, int], float]]:
        """The strongest path on an image, in call order: (layer, unit, position (y, x), share of the next unit's value).

        Raises:
            BadInput: No unit was followed.
        """
        if not self.followed:
            raise BadInput("no unit was followed; ask for activation_grid(scope, images, follow={layer: unit})")
        rows = zip(self.layers, self.chosen[image], self.places[image], self.shares[image], strict=True)
        return [(name, int(unit), (int(y), int(x)), float(share)) for name, unit, (y, x), share in rows if unit >= 0]

    def summary(self) -> str:
        """The layers with their sizes, how many units are dead on the first image, and the path that was followed."""
        lines: list[str] = []
        for index, (name, maps) in enumerate(zip(self.layers, self.maps, strict=True)):
            _, units, height, width = maps.shape
            lines.append(f"{name}: {units} maps of {height}x{width}, {self.dead[0, index]} dead on {self.names[0]}")
        for image in range(len(self.shares)):
            steps = " > ".join(
                f"{layer} {unit}" + f" ({share:.0%})" * (layer != self.followed) for layer, unit, _, share in self.path(image)
            )
            lines.append(f"strongest path on {self.names[image]}: {steps}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """For each image the strip, and a mosaic per layer where all fit on a page; else a table of the layers."""
        indices = list(range(len(self.layers)))
        return _view(self, indices, together=len(indices) == 1 or _height(self, indices) <= _TALLEST)

    def sheets(self) -> dict[str, View]:
        """A figure for each layer, by its name, if there are several."""
        return {name: _view(self, [index], strip=False) for index, name in enumerate(self.layers)} if len(self.layers) > 1 else {}


def _view(result: ActivationGrid, indices: list[int], *, strip: bool = True, together: bool = True) -> View:
    tiles = sum(result.maps[index].shape[1] for index in indices)
    shown = int(min(len(result.images), max(_MOST_TILES // tiles, 1)))
    side = int(np.clip(np.sqrt(_PIXELS / (tiles * shown)), _SMALLEST_TILE, _TILE))
    panels: list[Panel] = []
    for image in range(shown):
        panels += [_strip(result, image)] if strip else []
        panels += [_contributors(result, image)] if strip and result.followed else []
        if together:
            panels.append(Group(tuple(_grid(result, image, index, side) for index in indices), 1, f"{result.names[image]}: every unit"))
    if not together:
        panels.append(_table(result))
    note = words.note(
        "Unit = number at the left + number above. Crossed out: dead, nowhere above zero on this image. White: no such unit."
        if together
        else "Every layer has a figure of its own, named after it.",
        "In the strip, each map from its smallest to its largest value." if strip else "",
        "The frame is where the unit contributes most to the next one, and the percentage its share of that value: the sum of"
        " weight * activation over the kernel window."
        if strip and result.followed
        else "",
        channels.note(result, result.images.shape[1]) if strip else "",
        f"Shown: the first {shown} of {len(result.images)} images." if shown < len(result.images) else "",
    )
    layers = f"layer {result.layers[indices[0]]}" if len(indices) == 1 else f"{len(indices)} layers"
    subtitle = words.subtitle(result, f"{layers}, {tiles} units")
    return View("Activation grid", tuple(panels), subtitle=subtitle, note=result.with_skipped(note))


def _height(result: ActivationGrid, indices: list[int]) -> int:
    """Pixels that the mosaics of layers take below each other, for all images."""
    return len(result.images) * sum(mosaic_size(_grid(result, 0, index, _TILE))[1] + _HEADING for index in indices)


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
    pixels = channels.shown(result, result.images[image])
    height, width = pixels.shape[1:]
    zoom = _STRIP_TILE / max(height, width)
    size = max(round(height * zoom), 1), max(round(width * zoom), 1)
    path = {layer: (place, share) for layer, _, place, share in result.path(image)} if result.followed else {}
    tiles = [Image(_resized(pixels, size), result.names[image], "the image")]
    for name, unit, values in result.strip(image):
        low, high = finite_range(values)
        kind = Signed if low < 0 else Heat
        colored = colorize(kind(values, limits=(low, high if high > low else low + 1)))
        caption, frame = f"unit {unit}\n{number(low)} to {number(high)}", ()
        if name in path:
            place, share = path[name]
            frame = (_cell(place, values.shape, size),)
            what = "" if name == result.followed else f", {share:.0%}"
            caption = f"unit {unit}{what}\n{number(low)} to {number(high)}"
        tiles.append(Image(_resized(colored, size), _breakable(name), caption, boxes=frame))
    title = "One unit of each layer, the one of highest mean activation unless chosen"
    if result.followed:
        title = f"The strongest path into unit {result.chosen[image, result.layers.index(result.followed)]} of {result.followed}"
    return Group(tuple(tiles), -(-len(tiles) // -(-len(tiles) // _ACROSS)), title, side=_STRIP_TILE)


def _cell(place: tuple[int, int], shape: tuple[int, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A position of a map as a box in the tile of that size, large enough to be seen."""
    ends: list[tuple[float, float]] = []
    for at, cells, pixels in zip(place, shape, size, strict=True):
        middle, half = (at + 0.5) * pixels / cells, max(pixels / cells, _CELL) / 2
        ends.append((middle - half, middle + half))
    (y0, y1), (x0, x1) = ends
    return y0, x0, y1, x1


def _contributors(result: ActivationGrid, image: int) -> Table:
    """For each unit on the path, the units that contribute most to it."""
    rows: list[tuple[str, ...]] = []
    for layer, unit, (y, x), _ in reversed(result.path(image)):
        value = float(result.layer(layer)[image, unit, y, x])
        sources = result.contributions[image][layer].items()
        found = sorted(((float(amount), name, c) for name, amounts in sources for c, amount in enumerate(amounts)), key=lambda one: -one[0])
        if found:
            named = [f"{name} {c}: {number(amount)} ({amount / value:.0%})" for amount, name, c in found[:_IN_TABLE] if amount > 0]
            rest = value - sum(amount for amount, _, _ in found)
            rows.append((f"{layer} {unit}", number(value), *named, *[""] * (_IN_TABLE - len(named)), f"{round(100 * rest / value)} %"))
    places = [f"contribution {rank + 1}" for rank in range(_IN_TABLE)]
    return Table(("unit", "value", *places, "rest"), tuple(rows), "What makes up each value (rest: biases, and what comes from elsewhere)")


def _table(result: ActivationGrid) -> Table:
    rows = [
        (name, str(maps.shape[1]), f"{maps.shape[2]}x{maps.shape[3]}", str(result.dead[0, index]), _SCALES[result.scales[index]])
        for index, (name, maps) in enumerate(zip(result.layers, result.maps, strict=True))
    ]
    return Table(("layer", "units", "map", "dead", "colours of its figure"), tuple(rows), f"Layers, on {result.names[0]}")


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
        f"{result.layers[index]}: {units} maps of {height}x{width}"
        + (f", {len(dead)} dead" if dead else "")
        + f"; {_SCALES[result.scales[index]]}",
        unit="activation",
        crossed=tuple(dead),
        row_names=tuple(str(first) for first in range(0, units, columns)),
        column_names=tuple(f"+{column}" for column in range(columns)),
    )


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(rgb h w) at another size, by nearest neighbours, so that the cells of a map can be counted."""
    rows, columns = (np.arange(wanted) * length // wanted for wanted, length in zip(size, pixels.shape[1:], strict=True))
    return pixels[:, rows][:, :, columns]


def _breakable(layer: str) -> str:
    """A long layer name with a space before its last part, where a title may break the line."""
    return ". ".join(layer.rsplit(".", 1)) if len(layer) > _LONG_NAME else layer
