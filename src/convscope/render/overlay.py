"""Maps laid over images: how much of the image a value covers, and where a map's cells lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow

from convscope.render import colors
from convscope.render.panels import Heat, Signed

_COVER, _STEEP, _SIGNED_STEEP = 0.8, 1.4, 2.5
"""How much of an image a map laid over it covers at most, and how fast that is reached; signed maps are pale near zero, so sooner."""


def laid_over(image: Pillow.Image, heat: Heat, size: Sequence[int]) -> Pillow.Image:
    """An image in grey with a map over it: the higher the value (of a signed map, its magnitude), the more the map's colour covers it.

    `size` is the height and width of the image that `heat.place` speaks of; `image` may show it at another size.
    """
    low, high = heat.range()
    signed = isinstance(heat, Signed)
    share = np.clip((enlarged(heat.values, image.size, _cells(heat, size)) - low) / (high - low), 0, 1)
    grey = np.asarray(image.convert("L"), np.float64)[..., None] / 255
    colored = colors.table("signed" if signed else "heat", 256)[np.rint(share * 255).astype(np.int64)]
    cover = np.minimum(_COVER, _SIGNED_STEEP * np.abs(2 * share - 1) if signed else _STEEP * share)[..., None]
    return Pillow.fromarray(np.rint(255 * ((1 - cover) * grey + cover * colored)).astype(np.uint8))


def _cells(heat: Heat, size: Sequence[int]) -> tuple[float, float, float, float] | None:
    """The whole image (height, width) in cells of a map: x0 y0 x1 y1; None where the map is as large as the image."""
    if not heat.place:
        return None
    y0, x0, y1, x1 = heat.place
    (rows, columns), (height, width) = heat.values.shape, size
    down, across = rows / (y1 - y0), columns / (x1 - x0)
    return -x0 * across, -y0 * down, (width - x0) * across, (height - y0) * down


def enlarged(values: np.ndarray, size: tuple[int, int], part: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """A map (h w) at `size` (width, height), bilinear between the centres of its cells; what is not finite counts as zero.

    `part`, x0 y0 x1 y1 in cells, is what is shown of it; beyond its border, the border cells go on.
    """
    finite = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if part is None:
        return np.asarray(Pillow.fromarray(finite).resize(size, Pillow.Resampling.BILINEAR), np.float64)
    margin = math.ceil(max(0.0, -min(part[:2]), part[2] - values.shape[1], part[3] - values.shape[0]))
    box = part[0] + margin, part[1] + margin, part[2] + margin, part[3] + margin
    wider = Pillow.fromarray(np.pad(finite, margin, mode="edge"))
    return np.asarray(wider.resize(size, Pillow.Resampling.BILINEAR, box=box), np.float64)
