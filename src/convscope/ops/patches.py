"""Patches that are moved over an image: their positions, and the mean of their values at each pixel."""

from __future__ import annotations

import numpy as np


def positions(size: int, patch: int, stride: int, grid: str) -> list[tuple[int, int]]:
    """Where patches begin and end along an axis, (first, end).

    Args:
        size: Pixels along the axis.
        patch, stride: In pixels.
        grid: "cover": up to the end, the last patch cut. "valid": whole patches only. "article": ceil((size - patch) / stride) whole
            patches, none of which touches the end.
    """
    steps = -(-max(0, size - patch) // stride)
    count = {"cover": steps + 1, "valid": (size - patch) // stride + 1, "article": steps}[grid]
    return [(first, min(first + patch, size)) for first in range(0, count * stride, stride) if first < size]


def patches(size: tuple[int, int], patch: tuple[int, int], stride: tuple[int, int], grid: str) -> np.ndarray:
    """The patches of an image, (y x 4): y0 x0 y1 x1, end exclusive.

    Args:
        size: Of the image, (height, width).
        patch, stride: In pixels, (down, across).
        grid: "cover", "valid" or "article".
    """
    rows, columns = (positions(size[axis], patch[axis], stride[axis], grid) for axis in (0, 1))
    return np.array([[(y0, x0, y1, x1) for x0, x1 in columns] for y0, y1 in rows], dtype=int).reshape(len(rows), len(columns), 4)


def per_pixel(values: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mean over the patches that cover a pixel, (n h w); NaN where none does.

    Args:
        values: Of each patch, (n y x).
        boxes: (y x 4): y0 x0 y1 x1, end exclusive.
        size: Of the image, (height, width).
    """
    total, covered = np.zeros((len(values), *size)), np.zeros(size)
    for y, x in np.ndindex(*boxes.shape[:2]):
        y0, x0, y1, x1 = boxes[y, x]
        total[:, y0:y1, x0:x1] += values[:, y, x, None, None]
        covered[y0:y1, x0:x1] += 1
    return np.divide(total, covered, out=np.full_like(total, np.nan), where=covered > 0)
