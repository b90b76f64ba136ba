"""Filming an optimization: images on their way from noise, kept for whoever asked. Nothing is drawn or changed for it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from torch import Tensor

FRAMES = 32
"""About so many frames show a whole optimization."""

Key = tuple[int | None, int]
"""Unit and copy of an image."""


class Film:
    """Frames of the images that are being optimized."""

    def __init__(self) -> None:
        self._frames: dict[Key, dict[int, np.ndarray]] = {}

    def begin(self, keys: Sequence[Key]) -> None:
        """These images are begun, perhaps anew: what was seen of them is forgotten."""
        self._frames |= {key: {} for key in keys}

    def see(self, keys: Sequence[Key], step: int, steps: int, images: Tensor) -> None:
        """Keeps images (n c h w) as they are before step `step` of `steps`, if it is time for a frame."""
        if step % max(1, steps // FRAMES):
            return
        pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().cpu().numpy()
        for key, image in zip(keys, pixels, strict=True):
            self._frames[key][step] = image

    def frames(self, key: Key) -> list[np.ndarray]:
        """The frames of an image in order, each (c h w) uint8; they grow where a recipe enlarges the image."""
        return [frame for _, frame in sorted(self._frames[key].items())]


_film: ContextVar[Film | None] = ContextVar("convscope_film", default=None)


@contextmanager
def filming() -> Generator[Film]:
    """Within the block, feature visualizations are filmed."""
    film = Film()
    token = _film.set(film)
    try:
        yield film
    finally:
        _film.reset(token)


def current() -> Film | None:
    """The film that is being shot, if any."""
    return _film.get()
