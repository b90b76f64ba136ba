"""Contact sheets: many images with titles and captions on one sheet, as an array, without matplotlib's figures (fast)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from convscope.render import colors, fonts
from convscope.render.overlay import laid_over
from convscope.render.panels import Image

GAP = 12
_SMALLEST, _LARGEST, _AREA = 112, 320, 16e6
_FEW, _FEW_SMALLEST = 24, 192
_TITLED = 480
_SWATCH = 11
"""Side of a colour in a legend, in pixels."""


@dataclass(frozen=True, eq=False)
class SheetLayout:
    """Where everything on a contact sheet lies, in pixels.

    Attributes:
        size: Width and height of the sheet.
        boxes: (n 4) where each image lies: y0 x0 y1 x1, end exclusive.
        columns: Tiles in a row.
        cell: Width of a tile.
        head: The lines of the sheet's title.
        titles: The lines above each image.
        captions: The lines below each image.
        legends: The names of colours below that.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    columns: int
    cell: int
    head: tuple[str, ...]
    titles: tuple[tuple[str, ...], ...]
    captions: tuple[tuple[str, ...], ...]
    legends: tuple[tuple[str, ...], ...]


def contact_sheet(tiles: Sequence[Image], *, title: str = "", columns: int | None = None, side: int | None = None) -> np.ndarray:
    """Draws images with their titles, captions and marks on one white sheet.

    Images keep their pixels, or are repeated a whole number of times where they are tiny; where there are many, larger ones are
    shrunk so that the sheet stays below about 20 million pixels.

    Args:
        tiles: The images, each (rgb h w) in [0,1]; sizes may differ, all are shown on one scale.
        title: The first line of the sheet.
        columns: Tiles in a row; None chooses so that the sheet is about 4:3.
        side: The longer side of the largest image as shown, in pixels; None chooses.

    Returns:
        The sheet (h w 3), uint8.
    """
    layout = sheet_layout(tiles, title=title, columns=columns, side=side)
    width, height = layout.size
    sheet = Pillow.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    _lines(draw, 0, 0, layout.head, fonts.TITLE, colors.INK, bold=True)
    for index, tile in enumerate(tiles):
        y0, x0, y1, x1 = (int(edge) for edge in layout.boxes[index])
        above = layout.titles[index]
        _lines(draw, x0, y0 - 3 - len(above) * fonts.line(fonts.BODY), above, fonts.BODY, colors.INK)
        image = _shown(tile.pixels, (x1 - x0, y1 - y0))
        sheet.paste(image if tile.heat is None else laid_over(image, tile.heat, tile.pixels.shape[1:]), (x0, y0))
        _frames(draw, (x0, y0, x1, y1), tile)
        _lines(draw, x0, y1 + 2, layout.captions[index], fonts.SMALL, colors.FAINT)
        below = y1 + 2 + _room(layout.captions[index : index + 1], fonts.SMALL)
        _lines(draw, x0 + _SWATCH + 6, below, layout.legends[index], fonts.SMALL, colors.INK)
        for row, (paint, _) in enumerate(tile.legend):
            top = below + row * fonts.line(fonts.SMALL) + 2
            draw.rectangle((x0, top, x0 + _SWATCH - 1, top + _SWATCH - 1), fill=paint)
        if tile.marked is not None:
            _mark(draw, (x0, y0, x1, y1), tile.marked)
    return np.array(sheet)


def sheet_layout(tiles: Sequence[Image], *, title: str = "", columns: int | None = None, side: int | None = None) -> SheetLayout:
    """Where everything on the contact sheet will lie; arguments as :func:`contact_sheet`."""
    sizes = shown_sizes(tiles, side)
    cell = max((width for _, width in sizes), default=0)
    tallest = max((height for height, _ in sizes), default=0)
    cell = max(cell, _SMALLEST) if any(tile.title or tile.caption for tile in tiles) else cell
    titles = tuple(tuple(fonts.wrap(tile.title, fonts.BODY, cell, 2)) if tile.title else () for tile in tiles)
    captions = tuple(tuple(fonts.wrap(tile.caption, fonts.SMALL, cell, 2)) if tile.caption else () for tile in tiles)
    legends = tuple(tuple(fonts.shorten(fonts.legible(name), fonts.SMALL, cell - _SWATCH - 6) for _, name in tile.legend) for tile in tiles)
    words = tuple((*above, *below) for above, below in zip(captions, legends, strict=True))
    across, down = cell + GAP, tallest + _room(titles, fonts.BODY) + _room(words, fonts.SMALL) + GAP
    count = columns or best_columns(len(tiles), across / down)
    width = max(min(count, max(len(tiles), 1)) * across - GAP, _TITLED if title else 1)
    head = tuple(fonts.wrap(title, fonts.TITLE, width, bold=True)) if title else ()
    y0 = len(head) * fonts.line(fonts.TITLE) + (GAP if head else 0)
    boxes = np.zeros((len(tiles), 4), dtype=np.int64)
    for first in range(0, len(tiles), count):
        row = slice(first, first + count)
        y0 += _room(titles[row], fonts.BODY)
        for column, (shown_height, shown_width) in enumerate(sizes[row]):
            x0 = column * across
            boxes[first + column] = (y0, x0, y0 + shown_height, x0 + shown_width)
        y0 += max(shown_height for shown_height, _ in sizes[row]) + _room(words[row], fonts.SMALL) + GAP
    return SheetLayout((width, max(y0 - GAP, 1)), boxes, count, cell, head, titles, captions, legends)


def _room(texts: Sequence[tuple[str, ...]], size: int) -> int:
    """The height that the tallest of the texts takes, with a margin."""
    lines = max(map(len, texts), default=0)
    return lines * fonts.line(size) + 3 if lines else 0


def best_columns(count: int, aspect: float, wanted: float = 4 / 3) -> int:
    """The number of columns that brings `count` tiles nearest to the wanted shape without many empty places.

    Args:
        count: Number of tiles.
        aspect: Width over height of a tile.
        wanted: Width over height of the whole.
    """

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * aspect / rows / wanted)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=cost) if count else 1


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """(rgb h w) in [0,1] to (h w 3) uint8; what lies outside is clipped, what is not finite is black."""
    values = np.nan_to_num(np.asarray(pixels, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.ascontiguousarray(np.moveaxis(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), 0, -1))


def shown_sizes(tiles: Sequence[Image], side: int | None) -> list[tuple[int, int]]:
    """(height, width) of each image as shown, all on one scale."""
    longest = max((max(tile.pixels.shape[1:]) for tile in tiles), default=0)
    if not longest:
        return [(1, 1) for _ in tiles]
    limit = min(max(math.sqrt(_AREA / len(tiles)), _SMALLEST), _LARGEST)
    wanted = _FEW_SMALLEST if len(tiles) <= _FEW else _SMALLEST
    natural = math.ceil(wanted / longest) if longest < wanted else min(1.0, limit / longest)
    factor = natural if side is None else side / longest
    return [(max(round(tile.pixels.shape[1] * factor), 1), max(round(tile.pixels.shape[2] * factor), 1)) for tile in tiles]


def _shown(pixels: np.ndarray, size: tuple[int, int]) -> Pillow.Image:
    if 0 in pixels.shape:
        return Pillow.new("RGB", size, "lightgrey")
    image = Pillow.fromarray(to_bytes(pixels))
    if image.size == size:
        return image
    return image.resize(size, Pillow.Resampling.NEAREST if size[0] >= image.width else Pillow.Resampling.LANCZOS)


def _frames(draw: ImageDraw.ImageDraw, place: tuple[int, int, int, int], tile: Image) -> None:
    """The tile's own frame, and its boxes, dark on light, so that they are seen on any image."""
    x0, y0, x1, y1 = place
    if tile.frame is not None:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colors.CLASSES[tile.frame % len(colors.CLASSES)], width=4)
    height, width = tile.pixels.shape[1:]
    for top, left, bottom, right in tile.boxes:
        zoom_y, zoom_x = (y1 - y0) / height, (x1 - x0) / width
        box = [max(x0 + left * zoom_x, x0), max(y0 + top * zoom_y, y0), min(x0 + right * zoom_x, x1) - 1, min(y0 + bottom * zoom_y, y1) - 1]
        edges = [round(edge) for edge in box]
        if edges[0] <= edges[2] and edges[1] <= edges[3]:
            draw.rectangle(edges, outline="white", width=3)
            draw.rectangle(edges, outline=colors.STRONG, width=2)


def _lines(draw: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int, fill: str, *, bold: bool = False) -> None:
    for index, text in enumerate(lines):
        draw.text((x, y + index * fonts.line(size)), text, font=fonts.font(size, bold), fill=fill)


def _mark(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], text: str) -> None:
    """A red frame over the image and, along its lower edge, a red band that says why."""
    x0, y0, x1, y1 = box
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colors.WARN, width=4)
    room = max((y1 - y0) // fonts.line(fonts.SMALL) - 1, 1)
    lines = fonts.wrap(text, fonts.SMALL, x1 - x0 - 12, min(room, 4)) if text else []
    if lines:
        top = y1 - len(lines) * fonts.line(fonts.SMALL) - 6
        draw.rectangle((x0, top, x1 - 1, y1 - 1), fill=colors.WARN)
        _lines(draw, x0 + 6, top + 2, lines, fonts.SMALL, "white")
