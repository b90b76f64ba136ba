"""Random colours of controlled contrast, and the light that falls on an image. All colours are RGB in [0, 1]."""

from __future__ import annotations

import numpy as np

from .fields import SIDE, FloatArray, Plane, Rng

_RED_CYAN = np.array([0.816, -0.408, -0.408], dtype=np.float32)
_GREEN_VIOLET = np.array([0.0, 0.707, -0.707], dtype=np.float32)


def colour(rng: Rng, level: float, chroma: float = 0.35) -> FloatArray:
    """Return a colour `(rgb)` of mean `level` (before clipping), of random hue and of saturation up to `chroma`."""
    hue, amount = rng.uniform(0, 2 * np.pi), rng.uniform(0, chroma)
    offset = np.float32(np.cos(hue)) * _RED_CYAN + np.float32(np.sin(hue)) * _GREEN_VIOLET
    return np.clip(np.float32(level) + np.float32(amount) * offset, 0, 1)


def contrasting(rng: Rng, least: float = 0.3) -> tuple[FloatArray, FloatArray]:
    """Return two colours whose levels differ by at least `least`, either one the lighter."""
    gap = rng.uniform(least, 0.75)
    low = rng.uniform(0.05, 0.95 - gap)
    dark, light = colour(rng, low), colour(rng, low + gap)
    return (dark, light) if rng.random() < 0.5 else (light, dark)


def near(base: FloatArray, rng: Rng) -> FloatArray:
    """Return a colour of about the level of `base`, of any hue."""
    return colour(rng, float(base.mean()) + rng.uniform(-0.1, 0.1))


def shaded(plane: Plane, rng: Rng, paint: FloatArray, strength: float) -> FloatArray:
    """Return a surface `(h w rgb)` of one paint whose level varies smoothly by about `strength`."""
    return paint + (plane.noise(rng, 4) * rng.uniform(0, strength))[..., None]


def light(plane: Plane, rng: Rng) -> FloatArray:
    """Return the factor `(h w)` of a light that falls off in a random direction, by up to 30 % towards the border."""
    u, _ = plane.frame(rng.uniform(-180, 180))
    return 1 + u * (rng.uniform(0, 0.3) * 2 / SIDE)
