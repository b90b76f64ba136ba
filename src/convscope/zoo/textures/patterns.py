"""Texture fields: each function fills the plane with one pattern, without colour.

Every pattern takes `(plane, rng)` and returns a `Field`; colour, light and noise are added by `generator`. Lengths are in units
(1/128 of the image side). `PATTERNS` maps class names to functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from .fields import SIDE, Cells, FloatArray, Plane, Rng, cells, constant, per_cell, triangle_wave, turned

STRIPE_ANGLES: dict[str, float] = {f"stripes_{angle}": float(angle) for angle in range(0, 180, 30)}
"""Class name -> angle of the stripe LINES, in degrees counter-clockwise from horizontal as the image is displayed."""

STRIPE_JITTER = 5.0
"""Largest deviation of an image's stripes from the angle of their class, in degrees."""


class Field(NamedTuple):
    """A pattern before it is coloured.

    Attributes:
        tone: `(h w)` in [0, 1], from ground (0) to figure (1).
        tint: `(h w)` in [0, 1], from the first to the second colour of the figure.
    """

    tone: FloatArray
    tint: FloatArray


Pattern = Callable[[Plane, Rng], Field]


def _free_frame(plane: Plane, rng: Rng, limit: float = 180.0) -> tuple[FloatArray, FloatArray]:
    """Return `(u, v)` in axes turned by at most `limit` degrees, shifted at random and slightly warped."""
    u, v = plane.frame(rng.uniform(-limit, limit))
    bend = rng.uniform(0.0, 1.5)
    du, dv = rng.uniform(-SIDE, SIDE, 2)
    return u + float(du) + plane.noise(rng, 3) * bend, v + float(dv) + plane.noise(rng, 3) * bend


def _bands(plane: Plane, rng: Rng, v: FloatArray, period: float) -> Field:
    """Draw bands of constant `v`, sharp or sinusoidal, of one or of several colours."""
    lattice = cells(constant(plane), v, 1.0, period)
    duty = rng.uniform(0.3, 0.7)
    sharp = rng.random() >= 0.3
    tone = plane.soft(duty * period / 2 - np.abs(lattice.v)) if sharp else 0.5 + 0.5 * np.cos(lattice.v * (2 * np.pi / period))
    colours = per_cell(rng, lattice, 1)[0] if rng.random() < 0.4 else constant(plane)
    return Field(tone, colours)


def stripes(plane: Plane, rng: Rng, angle: float) -> Field:
    """Parallel straight lines at `angle` degrees counter-clockwise from horizontal (+- `STRIPE_JITTER`)."""
    _, v = plane.frame(angle + rng.uniform(-STRIPE_JITTER, STRIPE_JITTER))
    period = rng.uniform(6.0, 22.0)
    return _bands(plane, rng, v + rng.uniform(0, period) + plane.noise(rng, 3) * rng.uniform(0, 0.5), period)


def waves(plane: Plane, rng: Rng) -> Field:
    """Parallel sinusoidal lines."""
    u, v = _free_frame(plane, rng)
    length = rng.uniform(26.0, 56.0)
    swing = length * rng.uniform(0.12, 0.2)
    return _bands(plane, rng, v + swing * np.sin(u * (2 * np.pi / length)), rng.uniform(8.0, 18.0))


def zigzag(plane: Plane, rng: Rng) -> Field:
    """Parallel lines broken into sharp chevrons."""
    u, v = _free_frame(plane, rng)
    slope = rng.uniform(0.8, 1.4)
    return _bands(plane, rng, v + slope * triangle_wave(u, rng.uniform(10.0, 20.0)), rng.uniform(8.0, 18.0))


def checks(plane: Plane, rng: Rng) -> Field:
    """A checkerboard."""
    u, v = _free_frame(plane, rng)
    side = rng.uniform(7.0, 24.0)
    lattice = cells(u, v, side, side)
    wu, wv = triangle_wave(u, side), triangle_wave(v, side)
    tone = plane.soft(np.sign(wu * wv) * np.minimum(np.abs(wu), np.abs(wv)))
    return Field(tone, per_cell(rng, lattice, 1)[0] * rng.uniform(0, 0.6))


def grid(plane: Plane, rng: Rng) -> Field:
    """Thin lines crossing at right angles."""
    u, v = _free_frame(plane, rng)
    step = rng.uniform(9.0, 24.0)
    lattice = cells(u, v, step, step * rng.uniform(0.8, 1.25))
    line = max(0.7, step * rng.uniform(0.05, 0.09))
    wide, high = np.abs(lattice.u).max(), np.abs(lattice.v).max()
    tone = plane.soft(line - np.minimum(wide - np.abs(lattice.u), high - np.abs(lattice.v)))
    return Field(tone, constant(plane))


def dots(plane: Plane, rng: Rng) -> Field:
    """Round dots on a square or staggered lattice."""
    u, v = _free_frame(plane, rng)
    step = rng.uniform(10.0, 26.0)
    lattice = cells(u, v, step, step, stagger=0.5 if rng.random() < 0.6 else 0.0)
    random = per_cell(rng, lattice, 4)
    radius = step * rng.uniform(0.24, 0.36) * (1 - 0.3 * random[0])
    shake = step * rng.uniform(0.0, 0.13)
    distance = np.hypot(lattice.u + shake * (2 * random[1] - 1), lattice.v + shake * (2 * random[2] - 1))
    return Field(plane.soft(radius - distance), random[3] * rng.uniform(0, 1))


def _nearest_centre(plane: Plane, rng: Rng) -> tuple[FloatArray, FloatArray]:
    """Return offsets `(u, v)`, each `(h w)`, to the nearest of one to four spread centres inside the image."""
    count = int(rng.integers(1, 5))
    corners = rng.permutation(np.array([(-1, -1), (1, 1), (-1, 1), (1, -1)]))[:count]
    spread = 0.0 if count == 1 else 30.0
    centres = corners * spread + rng.uniform(-18.0, 18.0, (count, 2))
    u = np.stack([plane.x - float(cx) for cx, _ in centres])
    v = np.stack([plane.y - float(cy) for _, cy in centres])
    nearest = np.argmin(u * u + v * v, axis=0)[None]
    return np.take_along_axis(u, nearest, 0)[0], np.take_along_axis(v, nearest, 0)[0]


def rings(plane: Plane, rng: Rng) -> Field:
    """Concentric circles around one to four centres."""
    u, v = _nearest_centre(plane, rng)
    return _bands(plane, rng, np.hypot(u, v), rng.uniform(7.0, 15.0))


def spirals(plane: Plane, rng: Rng) -> Field:
    """Archimedean spirals of one to three arms, winding either way, around one to four centres."""
    u, v = _nearest_centre(plane, rng)
    arms, period = int(rng.integers(1, 4)), rng.uniform(9.0, 15.0)
    turn = np.arctan2(v, u) * (arms * rng.choice((-1.0, 1.0)) / (2 * np.pi))
    lattice = (np.hypot(u, v) / period + turn + rng.random()).astype(np.float32)
    distance = np.abs(np.mod(lattice, 1.0) - 0.5) * period
    return Field(plane.soft(rng.uniform(0.2, 0.33) * period - distance), constant(plane))


def bricks(plane: Plane, rng: Rng) -> Field:
    """Courses of bricks in running bond with mortar between them."""
    u, v = _free_frame(plane, rng, limit=20)
    height = rng.uniform(9.0, 20.0)
    width = height * rng.uniform(1.9, 2.6)
    lattice = cells(u, v, width, height, stagger=0.5)
    mortar = max(0.8, height * rng.uniform(0.06, 0.12))
    tone = plane.soft(np.minimum(width / 2 - np.abs(lattice.u), height / 2 - np.abs(lattice.v)) - mortar)
    random = per_cell(rng, lattice, 2)
    return Field(tone * (1 - 0.25 * random[0]), random[1] * rng.uniform(0.3, 1))


def honeycomb(plane: Plane, rng: Rng) -> Field:
    """Hexagonal cells with thin walls."""
    u, v = _free_frame(plane, rng)
    step = rng.uniform(12.0, 28.0)
    tall = step * float(np.sqrt(3.0))
    first, second = cells(u, v, step, tall), cells(u + step / 2, v + tall / 2, step, tall)
    nearer = np.hypot(first.u, first.v) < np.hypot(second.u, second.v)
    chosen = Cells(*(np.where(nearer, a, b) for a, b in zip(first, second, strict=True)))
    across = np.abs(chosen.u)
    wall = step / 2 - np.maximum(across, across / 2 + np.abs(chosen.v) * (float(np.sqrt(3.0)) / 2))
    tone = plane.soft(wall - max(0.8, step * rng.uniform(0.05, 0.1)))
    fill = per_cell(rng, Cells(chosen.u, chosen.v, chosen.column * 2 + nearer, chosen.row), 1)[0]
    return Field(tone, fill * rng.uniform(0, 0.8))


def weave(plane: Plane, rng: Rng) -> Field:
    """Strands passing over and under each other."""
    u, v = _free_frame(plane, rng)
    step = rng.uniform(10.0, 24.0)
    lattice = cells(u, v, step, step)
    level = (lattice.row + lattice.column) % 2 == 0
    half = step * rng.uniform(0.3, 0.4)
    across, along = np.where(level, lattice.v, lattice.u), np.where(level, lattice.u, lattice.v)
    over, under = plane.soft(half - np.abs(across)), plane.soft(half - np.abs(along))
    bulge = 0.45 + 0.55 * np.cos(along * (np.pi / step))
    tone = over * bulge + (1 - over) * under * 0.45
    return Field(tone, np.where(level == (over > 0.5), np.float32(0), np.float32(rng.uniform(0, 1))))


def stars(plane: Plane, rng: Rng) -> Field:
    """Scattered stars of five (or four, or six) points."""
    u, v = _free_frame(plane, rng)
    step = rng.uniform(20.0, 36.0)
    lattice = cells(u, v, step, step, stagger=0.5)
    random = per_cell(rng, lattice, 4)
    shake = step * 0.06
    lu, lv = turned(lattice.u + shake * (2 * random[0] - 1), lattice.v + shake * (2 * random[1] - 1), random[2] * 6.28)
    outer = step * rng.uniform(0.36, 0.44)
    points = int(rng.choice((4, 5, 5, 5, 6)))
    sector = float(np.pi) / points
    fold = np.abs(np.mod(np.arctan2(lv, lu) + sector, 2 * sector) - sector)
    radius = np.hypot(lu, lv)
    ex, ey = float(np.cos(sector)) * outer * 0.42 - outer, float(np.sin(sector)) * outer * 0.42
    distance = (ex * radius * np.sin(fold) - ey * (radius * np.cos(fold) - outer)) / float(np.hypot(ex, ey))
    return Field(plane.soft(distance), random[3] * rng.uniform(0, 1))


def blobs(plane: Plane, rng: Rng) -> Field:
    """Irregular islands with smooth shores, as on a cow or a leopard."""
    count = int(rng.integers(7, 16))
    height = plane.noise(rng, count) - rng.uniform(-0.15, 0.4)
    return Field(plane.soft(height * (SIDE / count * 0.6)), constant(plane))


def _shingles(u: FloatArray, v: FloatArray, width: float, step: float, rows: int) -> Iterator[Cells]:
    """Yield, top first, the staggered tiles that may cover each pixel: rows `step` apart whose tiles reach `rows` steps down.

    In each yielded lattice `v` is measured downwards from the row's upper line.
    """
    top = np.ceil(v / step)
    for k in range(rows):
        row = top + (rows - 1 - k)
        shifted = u + np.mod(row, 2) * (width / 2)
        column = np.floor(shifted / width)
        yield Cells(shifted - (column + 0.5) * width, row * step - v, column.astype(np.int64), row.astype(np.int64))


def scales(plane: Plane, rng: Rng) -> Field:
    """Overlapping round fish scales."""
    u, v = _free_frame(plane, rng, limit=30)
    width = rng.uniform(16.0, 32.0)
    radius, step = width / 2, width * rng.uniform(0.3, 0.42)
    rim, shade = max(0.8, width * rng.uniform(0.04, 0.08)), rng.uniform(0.15, 0.5)
    tone, tint, free = constant(plane), constant(plane), np.ones((plane.size, plane.size), dtype=bool)
    table, strength = rng.random((31, 37), dtype=np.float32), rng.uniform(0, 1)
    for tile in _shingles(u, v, width, step, rows=4):
        distance = np.hypot(tile.u, tile.v - radius)
        here = free & (distance < radius)
        tone = np.where(here, plane.soft(radius - rim - distance) * (1 - shade * tile.v / width), tone)
        tint = np.where(here, table[tile.row % 31, tile.column % 37] * strength, tint)
        free &= ~here
    return Field(tone, tint)


def feathers(plane: Plane, rng: Rng) -> Field:
    """Overlapping feathers: a shaft with slanted barbs on both sides."""
    u, v = _free_frame(plane, rng, limit=40)
    length = rng.uniform(60.0, 96.0)
    width, step = length * rng.uniform(0.4, 0.5), length * 0.36
    barb, slant = rng.uniform(4.4, 6.5), rng.uniform(0.8, 1.3)
    table, strength = rng.random((31, 37), dtype=np.float32), rng.uniform(0, 1)
    tone, tint, free = constant(plane), constant(plane), np.ones((plane.size, plane.size), dtype=bool)
    for tile in _shingles(u, v, width, step, rows=4):
        along = np.clip(tile.v / length, 0.0, 1.0)
        edge = width * 0.56 * np.sqrt(np.abs(np.sin(np.pi * along**1.4))) - np.abs(tile.u)
        here = free & (edge > 0)
        barbs = 0.6 + 0.4 * np.cos((tile.v - slant * np.abs(tile.u)) * (2 * np.pi / barb))
        shaft = plane.soft(1.0 - np.abs(tile.u))
        inner = np.maximum(barbs * (0.55 + 0.45 * along), shaft) * plane.soft(edge - 1.0)
        tone = np.where(here, inner, tone)
        tint = np.where(here, table[tile.row % 31, tile.column % 37] * strength, tint)
        free &= ~here
    return Field(tone, tint)


def chains(plane: Plane, rng: Rng) -> Field:
    """Rows of chains: open links seen from the front, joined by links seen from the side."""
    u, v = _free_frame(plane, rng)
    link = rng.uniform(20.0, 36.0)
    wire, half_width = link * rng.uniform(0.075, 0.1), link * rng.uniform(0.25, 0.3)
    pitch = link * 1.5
    lattice = cells(u, v, pitch, half_width * rng.uniform(2.9, 4.2), stagger=rng.uniform(0.2, 0.8))
    straight = link / 2 - half_width
    centre_line = np.hypot(np.maximum(np.abs(lattice.u) - straight, 0.0), lattice.v) - (half_width - wire)
    front = wire - np.abs(centre_line)
    to_side = pitch / 2 - np.abs(lattice.u)
    side = wire * 1.1 - np.hypot(np.maximum(to_side - link * 0.36, 0.0), lattice.v)
    gap = plane.soft(side + max(1.0, link * 0.035))
    tone = np.maximum(plane.soft(side), plane.soft(front) * (1 - gap))
    return Field(tone, np.where(side > 0, np.float32(rng.uniform(0, 0.8)), np.float32(0)))


PATTERNS: dict[str, Pattern] = {
    **{name: partial(stripes, angle=angle) for name, angle in STRIPE_ANGLES.items()},
    "checks": checks,
    "dots": dots,
    "rings": rings,
    "waves": waves,
    "bricks": bricks,
    "scales": scales,
    "spirals": spirals,
    "chains": chains,
    "feathers": feathers,
    "stars": stars,
    "grid": grid,
    "blobs": blobs,
    "zigzag": zigzag,
    "honeycomb": honeycomb,
    "weave": weave,
}
"""Texture class name -> function."""
