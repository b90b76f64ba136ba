"""How images are shown that are not RGB: grey, three named channels, or all channels side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from convscope.names import is_whole


class Made(Protocol):
    """A result, whose manifest tells what the network was fed."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """See :class:`~convscope.results.base.Result`."""
        ...


def shown(result: Made, pixels: np.ndarray) -> np.ndarray:
    """An image (c h w) as a figure shows it, (3 h w): RGB, grey, the channels named by ``Inputs.rgb``, or a grid of all channels in grey.

    The grid is as square as it gets; channel 0 is at the left of the first row, and a white line is between channels.
    """
    if (own := _as_rgb(result, pixels)) is not None:
        return own
    count, height, width = pixels.shape
    across, gap = _grid(count, width)
    grid = np.ones(shown_size(result, count, height, width), pixels.dtype)
    for number, channel in enumerate(pixels):
        y, x = (height + gap) * (number // across), (width + gap) * (number % across)
        grid[y : y + height, x : x + width] = channel
    return np.repeat(grid[None], 3, 0)


def shown_size(result: Made, count: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of :func:`shown` of an image of so many channels."""
    if count in (1, 3) or _named(result, count):
        return height, width
    across, gap = _grid(count, width)
    return -(-count // across) * (height + gap) - gap, across * (width + gap) - gap


def _grid(count: int, width: int) -> tuple[int, int]:
    """Channels in a row, and pixels between them."""
    return math.ceil(math.sqrt(count)), max(1, width // 64)


def backdrop(result: Made, pixels: np.ndarray) -> np.ndarray:
    """An image (c h w) as one of its own size to lay maps and boxes on, (3 h w): as :func:`shown`, but the channels' mean, not a grid."""
    own = _as_rgb(result, pixels)
    return np.repeat(pixels.mean(0, keepdims=True), 3, 0) if own is None else own


def note(result: Made, count: int) -> str:
    """What a figure says of images with so many channels; "" of RGB."""
    rgb = _named(result, count)
    if rgb is not None:
        return "Red, green and blue: channels {}, {} and {} of {}.".format(*rgb, count)
    return "" if count in (1, 3) else f"Channels 0 to {count - 1} are side by side, row by row; under maps and boxes, their mean."


def _as_rgb(result: Made, pixels: np.ndarray) -> np.ndarray | None:
    """An image of one, three or three named channels as (3 h w); None for others."""
    rgb = _named(result, len(pixels))
    if rgb is not None:
        return pixels[rgb]
    return pixels if len(pixels) == 3 else np.repeat(pixels, 3, 0) if len(pixels) == 1 else None


def _named(result: Made, count: int) -> list[int] | None:
    """The numbers of the channels for red, green and blue, if the network's inputs name them."""
    found: Any = result.manifest
    for key in ("network", "inputs", "rgb"):
        found = found.get(key) if hasattr(found, "get") else None
    named = isinstance(found, (list, tuple)) and len(found) == 3 and all(is_whole(one) and 0 <= one < count for one in found)
    return [int(one) for one in found] if named else None
