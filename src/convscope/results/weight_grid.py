"""Result of `weight_grid`: the kernels of a convolution as one mosaic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convscope.render.panels import Mosaic, View, number
from convscope.results import channels, words
from convscope.results.base import Array, Result, axes

_WIDEST, _TALLEST, _LARGEST, _FEW, _SMALL_GAPS = 1500, 1900, 84, 24, 1000


@dataclass(frozen=True, eq=False)
class WeightGrid(Result):
    """The kernels of a convolution.

    Attributes:
        weights: The weights themselves, (filter channel h w); `channel` counts the input channels of the filter's group.
        shown: The brightness of each weight as shown, (filter channel h w) in [0,1].
        layer: The layer's name.
        mode: "rgb", "channels" or "collated".
        scale: "tile": 0.5 + w / (2 max |w|) over the tile, so that zero is grey, where a tile is a filter ("rgb") or a kernel; "zscore":
            0.5 + (w - mean) / standard deviation over the tile, clipped; "shared": as "tile" over the layer; "range": (w - min) /
            (max - min) over the layer.
        groups: Groups of the convolution; filter o reads the input channels of group o // (filters / groups).
    """

    weights: Array = axes("filter channel h w", "signed", unit="weight")
    shown: Array = axes("filter channel h w")
    layer: str = ""
    mode: str = "rgb"
    scale: str = "tile"
    groups: int = 1

    def collated(self, *, article: bool = False) -> np.ndarray:
        """All weights as one array: a row of kernels per filter, a column per input channel, Q[o*h+y, i*w+x] = weights[o, i, y, x].

        Args:
            article: The article's (S1) P = Q transposed instead: filters across, input channels down, and every kernel transposed.
        """
        filters, channels, height, width = self.weights.shape
        upright = self.weights.swapaxes(1, 2).reshape(filters * height, channels * width)
        return upright.T if article else upright

    def summary(self) -> str:
        """Number and size of the kernels, and the range of the weights."""
        filters, channels, height, width = self.weights.shape
        low, high = float(self.weights.min()), float(self.weights.max())
        return f"{self.layer}: {filters} filters of {channels} kernels {height}x{width}, weights {low:.3g} to {high:.3g}"

    def view(self) -> View:
        """A tile per filter ("rgb") or per kernel."""
        filters, channels, height, width = self.weights.shape
        panel = _filters(self) if self.mode == "rgb" else _kernels(self)
        size = f"{filters} filters of {words.plural(channels, 'channel')}, {height}x{width}"
        return View("Weights", (panel,), subtitle=words.subtitle(self, size), note=_note(self))


def _side(result: WeightGrid, rows: int, columns: int) -> int:
    """The longer side of a tile, a multiple of the kernel's: as large as a page has room for."""
    length = max(result.weights.shape[2:])
    return max(int(min(_LARGEST, _WIDEST / columns, _TALLEST / rows) // length), 1) * length


def _filters(result: WeightGrid) -> Mosaic:
    count = len(result.shown)
    columns = min(16, count)
    rows = tuple(str(first) for first in range(0, count, columns))
    names = tuple(f"+{column}" for column in range(columns))
    caption = words.note(
        "Filter = number at the left + number above.",
        "Its channels 0, 1, 2 are red, green, blue." if result.shown.shape[1] == 3 else "",
        channels.note(result, result.shown.shape[1]),
    )
    tiles = np.stack([channels.shown(result, one) for one in result.shown])
    return Mosaic(tiles, columns, side=_side(result, len(rows), columns), caption=caption, row_names=rows, column_names=names)


def _kernels(result: WeightGrid) -> Mosaic:
    """Rows are filters and columns input channels; where there are few channels, several filters share a row."""
    physical = result.scale != "zscore"
    tiles = result.weights if physical else result.shown
    rows, columns = tiles.shape[:2]
    together = 1 if columns >= _FEW else min(_FEW // columns, rows)
    caption = "Rows: filters. Columns: channels." if together == 1 else "Filter = number at the left + number above, with its channel."
    names = [
        f"{channel}" if together == 1 else f"+{place}" if columns == 1 else f"+{place},{channel}"
        for place in range(together)
        for channel in range(columns)
    ]
    return Mosaic(
        tiles.reshape(-1, *tiles.shape[2:]),
        columns * together,
        _limits(result).reshape(-1, 2),
        _side(result, -(-rows // together), columns * together),
        "signed" if result.scale in ("tile", "shared") else "grey",
        caption=caption,
        unit="weight" if physical else "brightness: 0.5 + z",
        row_names=tuple(str(first) for first in range(0, rows, together)),
        column_names=tuple(names),
        gap=1 if rows * columns > _SMALL_GAPS else 2,
        together=columns if together > 1 and columns > 1 else 1,
    )


def _limits(result: WeightGrid) -> np.ndarray:
    """(filter channel 2): both ends of the scale of each kernel."""
    kernels = result.weights.shape[:2]
    if result.scale == "zscore":
        return np.broadcast_to([0.0, 1.0], (*kernels, 2))
    if result.scale == "range":
        return np.broadcast_to([result.weights.min(), result.weights.max()], (*kernels, 2))
    reach = np.abs(result.weights).max((2, 3) if result.scale == "tile" else None)
    reach = np.broadcast_to(np.where(reach > 0, reach, 1.0), kernels)
    return np.stack([-reach, reach], -1)


def _note(result: WeightGrid) -> str:
    low, high = number(result.weights.min()), number(result.weights.max())
    what = "filter" if result.mode == "rgb" else "kernel"
    zero = f"{'Grey' if result.mode == 'rgb' else 'White'} is zero."
    scales = {
        "tile": f"Each {what} on its own scale, its largest |w| at both ends: do not compare tiles. {zero}",
        "zscore": f"Brightness: each {what} for itself, 0.5 + (w - its mean) / its standard deviation, clipped: do not compare tiles.",
        "shared": f"One scale for the layer, its largest |w| at both ends. {zero}",
        "range": "One grey scale for the layer, from its smallest to its largest weight.",
    }
    grouped = f" {result.groups} groups: channel numbers count within a filter's group." if result.groups > 1 else ""
    return f"{scales[result.scale]} Weights from {low} to {high}.{grouped}"
