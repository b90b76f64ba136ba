"""Result of `kernel_angles`: patches of images that point along a convolution's kernels, with the angles of all patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Curves, Group, Image, Line, Panel, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

BINS = 180
"""Bins of the histogram, of one degree each."""

_MOST, _LINES, _SIDE, _WIDE = 12, 8, 72, 5


@dataclass(frozen=True, eq=False)
class KernelAngles(ImageResult):
    """Patches by their angle to kernels. Places: those of smallest angle, the one of the highest value, the one of largest angle.

    Attributes:
        kernels: The kernels, (unit channel kh kw).
        angles: Angle between patch and kernel in degrees, (unit place).
        values: The convolution's value there, bias included, (unit place).
        positions: (y, x) on the layer's map, (unit place yx).
        images: Index of the image in `names`, (unit place).
        patches: What the unit sees of the image there, grey beyond the border, (unit place c h w).
        histogram: Number of patches with an angle in each degree from 0 to 180, (unit degree).
        correlation: Pearson's correlation of the angle's cosine and the value over all patches, (unit); NaN where the value is constant.
        layer: The layer's name.
        units: The units.
        names: Names of the images.
        reads: What the convolution reads.
    """

    tabled: ClassVar[Rows] = Rows("unit place", unit="unit:units", place="place")

    kernels: Array = axes("unit channel kh kw", "signed", unit="weight")
    angles: Array = axes("unit place", unit="degrees")
    values: Array = axes("unit place", unit="activation")
    positions: Array = axes("unit place yx")
    images: Array = axes("unit place")
    patches: Array = axes("unit place c h w", "image")
    histogram: Array = axes("unit degree")
    correlation: Array = axes("unit")
    layer: str = ""
    units: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    reads: str = ""

    @property
    def median(self) -> np.ndarray:
        """Median angle over all patches of each unit in degrees, to half a degree, (unit)."""
        shares = self.histogram.cumsum(1) / np.maximum(self.histogram.sum(1, keepdims=True), 1)
        return (shares >= 0.5).argmax(1) + 0.5

    def summary(self) -> str:
        """Of each unit the smallest and the median angle, and the angle of the highest value."""
        lines = [
            f"unit {unit}: nearest patch {number(self.angles[row, 0])} degrees, median {number(self.median[row])}; "
            f"highest value at {number(self.angles[row, -2])}; correlation of cosine and value {self.correlation[row]:.2f}"
            for row, unit in enumerate(self.units)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """A row of patches for each unit, its kernel in front where that is an image; a table; and the angles of all patches."""
        shown = min(len(self.units), _MOST)
        rows: list[Panel] = [Group(_tiles(self, row), self.angles.shape[1] + 1, f"unit {self.units[row]}", _SIDE) for row in range(shown)]
        table = Table(
            ("unit", "nearest", "median", "of the highest value", "correlation"),
            tuple(
                (
                    str(self.units[row]),
                    f"{self.angles[row, 0]:.1f}",
                    f"{self.median[row]:.1f}",
                    f"{self.angles[row, -2]:.1f}",
                    number(self.correlation[row]),
                )
                for row in range(shown)
            ),
            "angles in degrees",
        )
        count = int(self.histogram[0].sum()) if len(self.histogram) else 0
        note = words.note(
            f"Value = |kernel| x |patch| x cos(angle) + bias. Patches are those of what {self.layer} reads, {self.reads};",
            "shown is what the unit sees of the image. Below: angle and value.",
            f"{count} patches of {words.plural(len(self.names), 'image')}; those of one image do not overlap.",
            "Correlation: of the angle's cosine and the value.",
            channels.note(self, self.patches.shape[2]),
            words.first(shown, len(self.units), "units"),
        )
        below = Group((_curves(self), table), 2)
        return View("Angles between kernels and patches", (*rows, below), subtitle=words.subtitle(self), note=self.with_skipped(note))


def _tiles(result: KernelAngles, row: int) -> tuple[Image, ...]:
    """The kernel, if it reads what an image shows, and the patches."""
    last = result.angles.shape[1] - 2
    tiles: list[Image] = []
    if result.kernels.shape[1] == result.patches.shape[2]:
        kernel = result.kernels[row]
        reach = float(np.abs(kernel).max()) or 1.0
        tiles.append(Image(channels.shown(result, (0.5 + kernel / (2 * reach)).astype(np.float32)), "kernel", "zero is grey"))
    for place in range(last + 2):
        title = {last: "highest value", last + 1: "against it"}.get(place, "along it" if place == 0 else "")
        caption = f"{result.angles[row, place]:.0f}°, {number(result.values[row, place])}"
        tiles.append(Image(channels.shown(result, result.patches[row, place]), title, caption))
    return tuple(tiles)


def _curves(result: KernelAngles) -> Curves:
    """How many patches have which angle, for the first units."""
    middles = np.arange(BINS).reshape(-1, _WIDE).mean(1) + 0.5
    lines: list[Line] = []
    for row, unit in enumerate(result.units[:_LINES]):
        counts = result.histogram[row].reshape(-1, _WIDE).sum(1)
        lines.append(Line(f"unit {unit}", middles, counts / max(counts.sum(), 1), row))
    return Curves(tuple(lines), "angles of all patches", "angle in degrees", f"share per {_WIDE} degrees", width=560)
