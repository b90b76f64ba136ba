"""Small tools on image-plane coordinates that every pattern is made of: frames, lattices, soft edges, smooth noise.

Lengths are in *units*: 1/128 of the image side, so that a pattern looks the same at every image size. The origin is the image centre,
x points right and y points up, as in a drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatArray = npt.NDArray[np.floating[Any]]
"""Real values; float32 for whole images."""
IntArray = npt.NDArray[np.int64]
Rng = np.random.Generator

SIDE = 128.0
"""Image side in units."""


@dataclass(frozen=True)
class Plane:
    """Coordinates of the pixel centres of a square image.

    Attributes:
        size: image side in pixels.
        x: `(h w)` in units, rightwards, in (-64, 64).
        y: `(h w)` in units, upwards, in (-64, 64).
    """

    size: int
    x: FloatArray
    y: FloatArray

    @classmethod
    def of(cls, size: int) -> Plane:
        """Return the plane of a square image of `size` pixels."""
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * (SIDE / size) - SIDE / 2).astype(np.float32)
        x, y = np.meshgrid(axis, -axis)
        return cls(size, x, y)

    def frame(self, degrees: float) -> tuple[FloatArray, FloatArray]:
        """Return coordinates `(u, v)`, each `(h w)`, in axes turned counter-clockwise by `degrees`."""
        cos, sin = float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin

    def soft(self, distance: FloatArray) -> FloatArray:
        """Turn a signed distance in units (positive inside) into coverage in [0, 1], with an edge one pixel wide."""
        return np.clip(distance * (self.size / SIDE) + 0.5, 0.0, 1.0)

    def noise(self, rng: Rng, cells: int) -> FloatArray:
        """Return smooth noise `(h w)`, about unit variance, with roughly `cells` bumps along each side."""
        grid = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
        inner = (1.0, 1.0, cells + 1.0, cells + 1.0)
        return np.asarray(Image.fromarray(grid).resize((self.size, self.size), Image.Resampling.BICUBIC, box=inner))


class Cells(NamedTuple):
    """A lattice of rectangular cells seen from each pixel; every field is `(h w)`.

    Attributes:
        u: distance from the centre of the pixel's own cell along the row, in units.
        v: distance from it across the rows, in units.
        column: index of the cell in its row.
        row: index of the row.
    """

    u: FloatArray
    v: FloatArray
    column: IntArray
    row: IntArray


def cells(u: FloatArray, v: FloatArray, width: float, height: float, stagger: float = 0.0) -> Cells:
    """Cut the plane into cells of `width` x `height` units, every second row shifted by `stagger` of a width."""
    row = np.floor(v / height)
    shifted = u + np.mod(row, 2) * (stagger * width)
    column = np.floor(shifted / width)
    return Cells(
        shifted - (column + 0.5) * width,
        v - (row + 0.5) * height,
        column.astype(np.int64),
        row.astype(np.int64),
    )


def per_cell(rng: Rng, lattice: Cells, count: int) -> FloatArray:
    """Return `count` uniform draws in [0, 1) for every cell, spread over its pixels: `(count h w)`."""
    table = rng.random((count, 31, 37), dtype=np.float32)
    return table[:, lattice.row % 31, lattice.column % 37]


def triangle_wave(u: FloatArray, half: float) -> FloatArray:
    """Return the signed distance in units to the nearest of the lines at odd multiples of `half / 2`; the sign alternates."""
    return np.abs(np.mod(u, 2 * half) - half) - half / 2


def turned(u: FloatArray, v: FloatArray, radians: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn local coordinates counter-clockwise by an angle that may differ from pixel to pixel."""
    cos, sin = np.cos(radians), np.sin(radians)
    return u * cos + v * sin, v * cos - u * sin


def constant(plane: Plane, value: float = 0.0) -> FloatArray:
    """Return an `(h w)` array filled with `value`."""
    return np.full((plane.size, plane.size), value, dtype=np.float32)
