"""The image files that a site makes itself: photographs as the network was fed them, and sheets of thumbnails."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image as Pillow

from convscope.errors import BadImage
from convscope.names import OUTPUT
from convscope.receipts import published_bytes
from convscope.site import addresses
from convscope.site.content import SHEET, Content

TILE, ACROSS = 112, 8
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
        sheet = Pillow.new("RGB", (ACROSS * TILE, ACROSS * TILE), (_BLANK,) * 3)
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


def thumbnail_class(content: Content, layer: str, unit: int) -> str:
    """The classes that show a unit's thumbnail: its sheet's, and that of its place on it; see :func:`sheet_styles`."""
    sheet, place = divmod(content.place_of(layer, unit), SHEET)
    return f"s{content.first_sheets[layer] + sheet} p{place}"


def sheet_styles(content: Content) -> str:
    """The styles that cut thumbnails from the sheets, and what else depends on the size of images.

    A link to a unit names its sheet and its place on it by two short classes: a page has dozens of such links, a site thousands of pages.
    """
    options, size = content.options, content.survey.preprocessing
    rules = [f".crops image{{width:{size.width}px;height:{size.height}px}}.crops circle{{r:{int(size.width * 0.06)}px}}"]
    for place in range(SHEET):
        y, x = divmod(place, ACROSS)
        rules.append(f".p{place}::before{{background-position:{100 * x / (ACROSS - 1):.3f}% {100 * y / (ACROSS - 1):.3f}%}}")
    for name, first in content.first_sheets.items():
        for sheet in range(-(-len(options.units[name]) // SHEET)):
            rules.append(f".s{first + sheet}::before{{background-image:url(../{addresses.layer_sheet(name, sheet, options.suffix)})}}")
    return "\n".join(rules) + "\n"
