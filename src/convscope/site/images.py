"""The image files that a site makes itself: photographs as the network was fed them, and sheets of thumbnails."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image as Pillow

from convscope.errors import BadImage
from convscope.names import OUTPUT
from convscope.receipts import published_bytes
from convscope.site.content import Content

TILE, ACROSS = 112, 8
SHEET = ACROSS * ACROSS
"""Thumbnails on a sheet."""
_PHOTO_QUALITY = 75
_BLANK = 210


def photograph_bytes(content: Content, row: int) -> bytes | None:
    """An image as the network was fed it, as WebP without any metadata; None if its file is gone."""
    try:
        pixels = _pixels(content, row)
    except BadImage:
        return None
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "WEBP", quality=_PHOTO_QUALITY, method=4)
    return buffer.getvalue()


def _pixels(content: Content, row: int) -> np.ndarray:
    """An image as the network was fed it, (h w 3) uint8."""
    values = content.survey.read_image(int(content.survey.ids[row]))
    return np.rint(np.moveaxis(values, 0, -1) * 255).astype(np.uint8)


class Thumbnails:
    """Makes the sheets of thumbnails: a unit's image by feature visualization, until then its strongest photograph's crop."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._photograph = lru_cache(maxsize=1024)(self._read)

    def sheet(self, layer: str, number: int) -> bytes:
        """A sheet of 8 x 8 thumbnails."""
        units = self._content.options.units[layer][number * SHEET : (number + 1) * SHEET]
        rows = -(-len(units) // ACROSS)
        sheet = Pillow.new("RGB", (ACROSS * TILE, rows * TILE), (_BLANK,) * 3)
        for place, unit in enumerate(units):
            sheet.paste(self._tile(layer, unit), (place % ACROSS * TILE, place // ACROSS * TILE))
        return published_bytes(np.asarray(sheet), None, self._content.options.suffix)

    def _tile(self, layer: str, unit: int) -> Pillow.Image:
        made = self._content.unit_images(layer, unit)
        if made:
            with Pillow.open(self._content.site / made[0]) as image:
                return image.convert("RGB").resize((TILE, TILE), Pillow.Resampling.LANCZOS)
        known = self._content.layer(layer)
        crops = known.strongest(unit)[:1] if self._content.options.photographs else []
        if not crops or (crops[0].value <= 0 and layer != OUTPUT) or (pixels := self._photograph(crops[0].row)) is None:
            return Pillow.new("RGB", (TILE, TILE), (_BLANK,) * 3)
        x, y, width, height = crops[0].box
        cut = Pillow.new("RGB", (width, height), (_BLANK,) * 3)
        cut.paste(pixels, (-x, -y))
        return cut.resize((TILE, TILE), Pillow.Resampling.LANCZOS)

    def _read(self, row: int) -> Pillow.Image | None:
        try:
            return Pillow.fromarray(_pixels(self._content, row))
        except BadImage:
            return None


def thumbnail_place(content: Content, layer: str, unit: int) -> tuple[int, int, int]:
    """The sheet of a unit's thumbnail, and x and y on it in pixels."""
    place = content.place_of(layer, unit)
    within = place % SHEET
    return place // SHEET, within % ACROSS * TILE, within // ACROSS * TILE
