"""Result of `map_overlay`: feature maps laid over the images, a tile per map of one image or a row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Group, Heat, Image, Panel, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_MOST_TILES, _ROW, _ACROSS, _SIDE, _LARGE = 400, 12, 8, 150, 300
_IN_SUMMARY = 10

_FULL = {
    "map": "its own largest value",
    "channel": "the unit's largest value over all images",
    "layer": "the largest value in the layer, over all images",
    "quantile": "the layer's 99 % quantile, over all images",
}


@dataclass(frozen=True, eq=False)
class MapOverlay(ImageResult):
    """Feature maps and the images they belong to.

    Attributes:
        images: The images as the network was fed them, (n c h w) in [0,1].
        units: The units shown of each image, (n map): the strongest first, or as they were asked for.
        maps: Their maps at the layer's own size, or `finer` times as fine, (n map y x).
        values: Mean, sum or maximum of each map, (n map).
        full: The value at which a mask is 1, (n map).
        ranks: The rank of each unit among all of the layer on that image by `values`, 1 = strongest, (n map).
        owners: The class that each unit belongs to, an index into `classes`, -1 for none, (n map).
        place: Where on the image the maps lie, y0 x0 y1 x1 in its pixels; () for all of it.
        classes: The classes whose maps are framed.
        layer: The layer's name.
        names: Names of the images.
        reduce: What `values` holds: "mean", "sum" or "max".
        scale: Where `full` comes from: "map", "channel", "layer" or "quantile".
        style: How the figure shows them: "heat" over the image, or "mask", the image times the mask.
        chosen: Whether the units were asked for (and are the same for all images).
        finer: How many times as fine as the layer's own maps they are, each way.
    """

    tabled: ClassVar[Rows] = Rows("n map", image="n:names", unit="n map:units")

    images: Array = axes("n c h w", "image")
    units: Array = axes("n map")
    maps: Array = axes("n map y x", "heat", unit="activation")
    values: Array = axes("n map", unit="activation")
    full: Array = axes("n map", unit="activation")
    ranks: Array = axes("n map")
    owners: Array = axes("n map")
    place: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    layer: str = ""
    names: tuple[str, ...] = ()
    reduce: str = "mean"
    scale: str = "map"
    style: str = "heat"
    chosen: bool = False
    finer: int = 1

    def masks(self, image: int = 0) -> np.ndarray:
        """The maps at the size of the image, bilinear, divided by `full`: (map h w), 0 for dead maps, >= 0, above 1 beyond `full`."""
        height, width = self.images.shape[2:]
        maps = enlarged(self.maps[image], height, width, self.place)
        full = self.full[image][:, None, None]
        return np.maximum(np.divide(maps, full, out=np.zeros_like(maps), where=full > 0), 0)

    def masked(self, image: int = 0) -> np.ndarray:
        """The image times each mask, clip(image * mask, 0, 1): (map c h w)."""
        return np.clip(self.images[image][None] * self.masks(image)[:, None], 0, 1)

    def summary(self) -> str:
        """The ten strongest maps shown of each image, and those of each class with their rank among all of the layer."""
        lines: list[str] = []
        for image, (name, units, values) in enumerate(zip(self.names, self.units, self.values, strict=True)):
            order = np.argsort(-values, kind="stable")[:_IN_SUMMARY]
            lines.append(f"{name}: {', '.join(f'{units[index]} ({values[index]:.3g})' for index in order)}")
            for place, label in enumerate(self.classes):
                own = np.flatnonzero(self.owners[image] == place)
                ranked = [f"{units[index]} (no. {self.ranks[image, index]})" for index in own]
                lines.append(f"  {words.plural(len(own), 'map')} of {label} shown: {words.listed(ranked, _IN_SUMMARY) or 'none'}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """A sheet per image, or one sheet where the same few units are shown of many images."""
        count, maps = self.units.shape
        shown = min(count, max(_MOST_TILES // (maps + 1), 1))
        panels = (_side_by_side(self, shown),) if self.chosen and maps < _ROW else _one_by_one(self, shown)
        rank = "No.: rank among all units of the layer on this image." if self.chosen or self.classes else ""
        frames = f"Coloured frames: maps of {words.listed(self.classes, 8)}." if self.classes else ""
        order = "Units as asked for" if self.chosen else f"Strongest first, by {self.reduce} activation (the number below a tile)"
        heat = self.style == "heat"
        style = "the map's colour over the grey image" if heat else "the image times the square root of its map: black is where it is low"
        note = words.note(
            f"{order}. Tiles: {style}; full at {_FULL[self.scale]}. Maps are enlarged bilinearly. Red band: dead on this image.",
            rank,
            frames,
            channels.note(self, self.images.shape[1]),
            f"Shown: the first {shown} of {count} images." if shown < count else "",
        )
        height, width = self.maps.shape[2:]
        stitched = f", {self.finer} times as fine as the layer's (images shifted, maps interleaved)" if self.finer > 1 else ""
        subtitle = words.subtitle(self, f"maps of {height}x{width}{stitched}")
        return View("Map overlay", panels, subtitle=subtitle, note=self.with_skipped(note))


def enlarged(maps: np.ndarray, height: int, width: int, place: tuple[float, ...] = ()) -> np.ndarray:
    """(map y x) at (map height width), bilinear between the centres of cells, clamped at the border.

    The cells divide `place`, y0 x0 y1 x1 in pixels; without it all of the image, by the arithmetic of
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` in float32, equal up to rounding.
    """
    top, left, bottom, right = place or (0, 0, height, width)
    y0, y1, down = _neighbours(maps.shape[1], height, top, bottom)
    x0, x1, across = _neighbours(maps.shape[2], width, left, right)
    maps = maps.astype(np.float32)
    rows = maps[..., x0] * (1 - across) + maps[..., x1] * across
    return rows[:, y0] * (1 - down)[:, None] + rows[:, y1] * down[:, None]


def _neighbours(length: int, wanted: int, begin: float, end: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `wanted` pixels, the two of `length` cells (from `begin` to `end`) that it lies between, and the weight of the second."""
    pixels = np.arange(wanted, dtype=np.float32) + np.float32(0.5) - np.float32(begin)
    center = np.clip(np.float32(length / (end - begin)) * pixels - np.float32(0.5), 0, length - 1)
    lower = np.minimum(center.astype(np.int64), length - 1)
    return lower, np.minimum(lower + 1, length - 1), (center - lower).astype(np.float32)


def _one_by_one(result: MapOverlay, shown: int) -> tuple[Panel, ...]:
    """A sheet per image: the image, then its maps."""
    columns = _columns(result.units.shape[1])
    return tuple(
        Group(
            (
                Group((Image(channels.shown(result, result.images[image]), "the image"),), side=_LARGE),
                Group(_tiles(result, image), columns, side=_SIDE),
            ),
            2,
            name,
        )
        for image, name in enumerate(result.names[:shown])
    )


def _side_by_side(result: MapOverlay, shown: int) -> Panel:
    """Each image followed by its few maps."""
    tiles: list[Image] = []
    for image in range(shown):
        tiles += [Image(channels.backdrop(result, result.images[image]), result.names[image]), *_tiles(result, image)]
    own = result.units.shape[1] + 1
    return Group(tuple(tiles), own * max(min(_ACROSS // own, shown), 1), side=_SIDE)


def _columns(tiles: int) -> int:
    return next((columns for columns in (8, 10, 12, 9, 7, 6, 5) if tiles % columns == 0 and tiles > columns), min(tiles, 10))


def _tiles(result: MapOverlay, image: int) -> tuple[Image, ...]:
    pixels = channels.backdrop(result, result.images[image])
    masked = np.clip(pixels * np.sqrt(result.masks(image))[:, None], 0, 1) if result.style == "mask" else None  # else nearly black
    tiles: list[Image] = []
    for index, (unit, values) in enumerate(zip(result.units[image], result.maps[image], strict=True)):
        title, caption = f"unit {unit}", f"{result.reduce} {number(result.values[image, index])}"
        owner = int(result.owners[image, index])
        title += f", {result.classes[owner]}" if owner >= 0 else ""
        caption += f", no. {result.ranks[image, index]}" if result.chosen or owner >= 0 else ""
        marked = "dead" if values.max(initial=0) <= 0 else None
        full = float(result.full[image, index])
        heat = Heat(values, unit="activation", limits=(0.0, full if full > 0 else 1.0), place=result.place) if masked is None else None
        tiles.append(Image(pixels if masked is None else masked[index], title, caption, marked, heat, frame=owner if owner >= 0 else None))
    return tuple(tiles)
