"""Glyph-like shapes with exact masks, and the clutter they lie on.

A shape is a closed outline in the plane; it is turned, scaled to a drawn area and placed so that it lies wholly inside the image. The
clutter is drawn without knowledge of the shape, so that it cannot predict the class.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .colours import contrasting, near, shaded
from .fields import SIDE, FloatArray, Plane, Rng
from .patterns import PATTERNS

Outline = npt.NDArray[np.float64]
"""Corners of a closed polygon, `(corner xy)`, y upwards."""

AREA = (0.055, 0.185)
"""Range of a shape's area as a fraction of the image."""

MARGIN = 2.0
"""Least distance between a shape and the image border, in units."""

_OVERSAMPLING = 4


def _arc(start: float, stop: float, count: int = 48) -> Outline:
    """Return points of the unit circle from `start` to `stop` degrees."""
    angles = np.deg2rad(np.linspace(start, stop, count))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _disk(rng: Rng) -> Outline:
    return _arc(0, 360) * (1.0, rng.uniform(0.88, 1.0))


def _square(rng: Rng) -> Outline:
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (1.0, rng.uniform(0.85, 1.0))


def _triangle(rng: Rng) -> Outline:
    return np.array([(-1, 0), (1, 0), (rng.uniform(-0.3, 0.3), rng.uniform(1.5, 2.0))])


def _cross(rng: Rng) -> Outline:
    a = rng.uniform(0.26, 0.38)
    return np.array([(a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a), (-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)])


def _arrow(rng: Rng) -> Outline:
    neck, half, shaft = rng.uniform(0.0, 0.25), rng.uniform(0.6, 0.75), rng.uniform(0.2, 0.3)
    return np.array(
        [(1, 0), (neck, half), (neck, shaft), (-1, shaft), (-1, -shaft), (neck, -shaft), (neck, -half)],
    )


def _crescent(rng: Rng) -> Outline:
    tip = rng.uniform(48.0, 62.0)
    outer = _arc(tip, 360.0 - tip)
    corner = outer[0]
    bulge = rng.uniform(0.15, 0.4)
    sweep = np.linspace(-1.0, 1.0, 32)[:, None]
    inner = np.concatenate([corner[0] - (bulge + corner[0]) * (1 - sweep**2), corner[1] * sweep], axis=1)
    return np.concatenate([outer, inner])


def _heart(rng: Rng) -> Outline:
    t = np.linspace(0.0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y * rng.uniform(0.9, 1.1)], axis=1) / 16


OUTLINES: dict[str, tuple[Callable[[Rng], Outline], float]] = {
    "cross": (_cross, 45.0),
    "triangle": (_triangle, 180.0),
    "disk": (_disk, 180.0),
    "square": (_square, 180.0),
    "arrow": (_arrow, 180.0),
    "crescent": (_crescent, 180.0),
    "heart": (_heart, 40.0),
}
"""Shape class name -> outline function and largest rotation in degrees."""


def _area(outline: Outline) -> float:
    x, y = outline[:, 0], outline[:, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def place(label: str, rng: Rng) -> Outline:
    """Return the outline of a shape, turned, scaled and moved: `(corner xy)` in units from the upper left corner, y DOWNWARDS."""
    draw, limit = OUTLINES[label]
    turn = np.deg2rad(rng.uniform(-limit, limit))
    outline = draw(rng) @ np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    outline *= np.sqrt(rng.uniform(*AREA) * SIDE**2 / _area(outline))
    low, high = outline.min(0), outline.max(0)
    outline += rng.uniform(MARGIN - low, SIDE - MARGIN - high)
    return outline * (1, -1) + (0, SIDE)


def coverage(outline: Outline, size: int) -> FloatArray:
    """Return how much of each pixel lies inside the outline, `(h w)` in [0, 1]."""
    big = Image.new("L", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    factor = size * _OVERSAMPLING / SIDE
    ImageDraw.Draw(big).polygon([(float(x), float(y)) for x, y in outline * factor - 0.5], fill=255)
    return np.asarray(big.reduce(_OVERSAMPLING), dtype=np.float32) / 255


def _blot(rng: Rng) -> Outline:
    """Return a small irregular polygon of four to seven corners, in units from the upper left corner."""
    count = int(rng.integers(4, 8))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = rng.uniform(2.0, 7.0, (count, 1))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii + rng.uniform(0, SIDE, 2)


def _distract(canvas: Image.Image, rng: Rng, colours: list[FloatArray]) -> None:
    """Draw strokes, arcs and blots in the given colours anywhere on the canvas."""
    pen, factor = ImageDraw.Draw(canvas), canvas.width / SIDE
    for _ in range(int(rng.integers(5, 16))):
        ink = tuple(int(c) for c in np.clip(colours[int(rng.integers(len(colours)))] * 255, 0, 255))
        kind, width = int(rng.integers(3)), max(1, round(rng.uniform(1.0, 3.0) * factor))
        start, reach = rng.uniform(0, SIDE, 2), rng.uniform(-30.0, 30.0, 2)
        first, last = start * factor, (start + reach) * factor
        if kind == 0:
            pen.line([(float(first[0]), float(first[1])), (float(last[0]), float(last[1]))], fill=ink, width=width)
        elif kind == 1:
            low, high = np.minimum(first, last), np.maximum(first, last)
            box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
            begin = float(rng.uniform(0, 360))
            pen.arc(box, begin, begin + float(rng.uniform(40, 160)), fill=ink, width=width)
        else:
            pen.polygon([(float(x), float(y)) for x, y in _blot(rng) * factor], fill=ink)


def clutter(plane: Plane, rng: Rng, ground: FloatArray, bold: FloatArray) -> FloatArray:
    """Return a cluttered background `(h w rgb)`: smooth noise, often a faint texture, and distractor strokes.

    Args:
        plane: the image plane.
        rng: source of all draws.
        ground: `(rgb)`, mean colour of the background.
        bold: `(rgb)`, a colour that stands out, used for one stroke in four.
    """
    other, third = near(ground, rng), near(ground, rng)
    mix = np.clip(0.5 + 0.35 * plane.noise(rng, int(rng.integers(3, 12))), 0, 1)[..., None]
    base = ground + mix * (other - ground)
    if rng.random() < 0.6:
        names = list(PATTERNS)
        tone = PATTERNS[names[int(rng.integers(len(names)))]](plane, rng).tone[..., None]
        base = base + tone * (third - base) * rng.uniform(0.4, 1.0)
    small = Image.fromarray(np.clip(base * 255, 0, 255).astype(np.uint8))
    canvas = small.resize((plane.size * 2, plane.size * 2), Image.Resampling.BILINEAR)
    _distract(canvas, rng, [near(ground, rng), third, near(ground, rng), bold])
    return np.asarray(canvas.reduce(2), dtype=np.float32) / 255


def compose(label: str, plane: Plane, rng: Rng) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Draw one shape on clutter.

    Returns:
        The image `(h w rgb)` in about [0, 1], and the mask of the shape `(h w)`.
    """
    ground, paint = contrasting(rng, least=0.32)
    picture = clutter(plane, rng, ground, near(paint, rng))
    covered = coverage(place(label, rng), plane.size)
    fill = shaded(plane, rng, near(paint, rng) * np.float32(0.5) + paint * np.float32(0.5), strength=0.12)
    return picture + covered[..., None] * (fill - picture), covered >= 0.5
