"""Photographs as if an X-ray scanner had taken them: inverted, translucent, low in contrast, without colour.

By the law of absorption: what is bright in the photograph counts as thick, a ray that passes thickness d keeps exp(-d) of its strength,
and whatever lies before or behind adds to d. Around twelve soft bars and discs of random thickness lie in the way, as in a packed bag; they
are drawn without regard to what the photograph shows.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image, ImageFilter

THICKNESS, CLUTTER, PIECES = 1.6, 0.35, 12
DARKEST, BRIGHTEST, GRAIN = 0.30, 0.80, 0.01


def xray_like(picture: Image.Image, name: str, *, seed: int = 0) -> Image.Image:
    """The rendering of a photograph; the same name and seed give the same clutter and grain."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    grey = np.asarray(picture.convert("L").filter(ImageFilter.GaussianBlur(0.8)), np.float64) / 255
    strength = np.exp(-(THICKNESS * grey + _clutter(grey.shape, generator)))
    strength = DARKEST + (BRIGHTEST - DARKEST) * strength + GRAIN * generator.standard_normal(grey.shape)
    return Image.fromarray(np.uint8(np.clip(strength, 0, 1) * 255 + 0.5)).convert("RGB")


def _clutter(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Thickness of everything else in the way, (h w) >= 0."""
    height, width = shape
    y, x = np.mgrid[:height, :width] / min(shape)
    total = np.zeros(shape)
    for piece in range(PIECES):
        centre_y, centre_x = generator.uniform(0, [height / min(shape), width / min(shape)])
        angle, long, short = generator.uniform([0, 0.15, 0.03], [np.pi, 0.6, 0.2])
        along = np.abs((x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle)) / long
        across = np.abs((y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle)) / short
        inside = np.maximum(along, across) if piece % 2 else np.hypot(along, across)
        total += generator.uniform(0.2, 1) * CLUTTER / (1 + np.exp(np.clip((inside - 1) * 20, -50, 50)))
    return total
