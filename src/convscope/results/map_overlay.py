"""Maps over images: a tile per map of one image, or a row per image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from convscope.render.contact_sheet import enlarged
from convscope.render.panels import Group, Heat, Image, Panel, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes


@dataclass(frozen=True, eq=False)
class MapOverlay(ImageResult):
    """Maps and the images they belong to.

    Attributes:
        images: The images as the network was fed them, (n rgb h w) in [0,1].
        units: The channels shown of each image, (n map): the strongest first, or as they were asked for.
        maps: Their maps at the layer's own size, (n map y x).
        values: Mean, sum or maximum of each map, (n map).
        full: The value at which a mask is 1, (n map).
        layer: The layer's name.
        names: Names of the images.
        reduce: What `values` holds: "mean", "sum" or "max".
        scale: Where `full` comes from: "map", "channel", "layer" or "quantile".
        style: How the figure shows them: "heat" over the image, or "mask", the image times the mask.
        chosen: Whether the channels were asked for (and are the same for all images).
    """

    images: Array = axes("n rgb h w", "image")
    units: Array = axes("n map")
    maps: Array = axes("n map y x", "heat", unit="activation")
    values: Array = axes("n map", unit="activation")
    full: Array = axes("n map", unit="activation")
    layer: str = ""
    names: tuple[str, ...] = ()
    reduce: str = "mean"
    scale: str = "map"
    style: str = "heat"
    chosen: bool = False

    def masks(self, image: int = 0) -> np.ndarray:
        """The maps at the size of the image, bilinear, divided by `full`: (map h w), 0 for dead maps, >= 0, above 1 beyond `full`."""
        height, width = self.images.shape[2:]
        maps = torch.tensor(self.maps[image])[None]
        enlarged = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)[0].numpy()
        full = self.full[image][:, None, None]
        return np.maximum(np.divide(enlarged, full, out=np.zeros_like(enlarged), where=full > 0), 0)

    def masked(self, image: int = 0) -> np.ndarray:
        """The image seen through each mask, clip(image * mask, 0, 1): (map rgb h w)."""
        return np.clip(self.images[image][None] * self.masks(image)[:, None], 0, 1)

    def summary(self) -> str:
        """The ten strongest maps shown of each image."""
        lines: list[str] = []
        for name, units, values in zip(self.names, self.units, self.values, strict=True):
            order = np.argsort(-values, kind="stable")[:10]
            lines.append(f"{name}: {', '.join(f'{units[place]} ({values[place]:.3g})' for place in order)}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """A sheet per image, or one sheet where the same few channels are shown of many images."""
        count, maps = self.units.shape
        most = max(_MOST_TILES // (maps + 1), 1)
        shown = min(count, most)
        panels = (_side_by_side(self, shown),) if self.chosen and maps < _ROW else _one_by_one(self, shown)
        style = (
            "the map's colour over the grey picture" if self.style == "heat" else "the picture times its map, so black is where it is low"
        )
        order = "Channels as asked for" if self.chosen else f"Strongest first, by {self.reduce} activation (the number below a tile)"
        note = f"{order}. Tiles: {style}; full at {_FULL[self.scale]}. Maps are enlarged bilinearly. Red frame: dead on this picture."
        if shown < count:
            note += f" Shown: the first {shown} of {count} images."
        height, width = self.maps.shape[2:]
        return View("Map overlay", panels, subtitle=f"{words.provenance(self)} · maps of {height}x{width}", note=self.with_skipped(note))


_MOST_TILES, _ROW, _ACROSS, _SIDE, _LARGE = 400, 12, 8, 150, 300


_FULL = {
    "map": "its own largest value",
    "channel": "the channel's largest value over all images",
    "layer": "the largest value in the layer, over all images",
    "quantile": "the layer's 99 % quantile, over all images",
}


def _one_by_one(result: MapOverlay, shown: int) -> tuple[Panel, ...]:
    """A sheet per image: the picture, then its maps."""
    columns = _columns(result.units.shape[1])
    return tuple(
        Group((Group((_picture(result, image, "the picture"),), side=_LARGE), Group(_tiles(result, image), columns, side=_SIDE)), 2, name)
        for image, name in enumerate(result.names[:shown])
    )


def _side_by_side(result: MapOverlay, shown: int) -> Panel:
    """Each image followed by its few maps."""
    tiles = [tile for image in range(shown) for tile in (_picture(result, image, result.names[image]), *_tiles(result, image))]
    own = result.units.shape[1] + 1
    return Group(tuple(tiles), own * max(min(_ACROSS // own, shown), 1), side=_SIDE)


def _columns(tiles: int) -> int:
    return next((columns for columns in (8, 10, 12, 9, 7, 6, 5) if tiles % columns == 0 and tiles > columns), min(tiles, 10))


def _picture(result: MapOverlay, image: int, title: str) -> Image:
    return Image(result.images[image], title)


def _tiles(result: MapOverlay, image: int) -> tuple[Image, ...]:
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
