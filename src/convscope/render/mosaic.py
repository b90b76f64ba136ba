"""Mosaics: many small maps as one image, by array operations alone, so that twelve thousand kernels are fast."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from convscope.render import colors, fonts
from convscope.render.panels import Mosaic

_CAPTION, _APART = 6, 6
_SHADES = 256


def mosaic_size(panel: Mosaic) -> tuple[int, int]:
    """Width and height of the mosaic with its names and caption, in pixels."""
    height, width = _tile_size(panel)
    rows = -(-len(panel.tiles) // panel.columns)
    left, top = margins(panel)
    across = left + _lefts(panel, width)[-1] + width
    below = len(_caption(panel, across)) * fonts.line(fonts.SMALL)
    return across, top + rows * (height + panel.gap) - panel.gap + (below + _CAPTION if below else 0)


def margins(panel: Mosaic) -> tuple[int, int]:
    """Room for the names of rows (left) and columns (top)."""
    left = max((fonts.width(name, fonts.SMALL) for name in panel.row_names), default=-8) + 8
    return left, fonts.line(fonts.SMALL) if panel.column_names else 0


def mosaic(panel: Mosaic) -> np.ndarray:
    """The mosaic with its names and caption, (h w 3) uint8."""
    gap, (height, width) = panel.gap, _tile_size(panel)
    across, down = mosaic_size(panel)
    (left, top), lefts = margins(panel), _lefts(panel, width)
    body = mosaic_body(panel)[..., :3]
    sheet = np.full((down, across, 3), 255, np.uint8)
    sheet[top : top + body.shape[0], left : left + body.shape[1]] = body
    image = Pillow.fromarray(sheet)
    draw = ImageDraw.Draw(image)
    small = fonts.font(fonts.SMALL)
    for place, name in _legible(panel.row_names, height + gap, fonts.line(fonts.SMALL)):
        draw.text((left - 8, top + place * (height + gap) + height / 2), name, font=small, fill=colors.FAINT, anchor="rm")
    widest = max((fonts.width(name, fonts.SMALL) for name in panel.column_names), default=0) + 6
    for place, name in _legible(panel.column_names, width + gap, widest):
        draw.text((left + lefts[place] + width / 2, 0), name, font=small, fill=colors.FAINT, anchor="ma")
    for index, line in enumerate(_caption(panel, across)):
        draw.text((left, top + body.shape[0] + _CAPTION + index * fonts.line(fonts.SMALL)), line, font=small, fill=colors.FAINT)
    return np.asarray(image)


def mosaic_body(panel: Mosaic) -> np.ndarray:
    """The tiles alone, crossed out where asked for: (h w 4) uint8, white and transparent between the tiles and after the last."""
    (height, width), gap = _tile_size(panel), panel.gap
    body, lefts = _body(panel, height, width), _lefts(panel, width)
    image = Pillow.fromarray(body)
    draw = ImageDraw.Draw(image)
    for tile in panel.crossed:
        y, x = tile // panel.columns * (height + gap), lefts[tile % panel.columns]
        draw.line((x, y, x + width - 1, y + height - 1), fill="white")
        draw.line((x, y + height - 1, x + width - 1, y), fill="white")
    filled = np.zeros((*body.shape[:2], 1), np.uint8)
    for tile in range(len(panel.tiles)):
        y, x = tile // panel.columns * (height + gap), lefts[tile % panel.columns]
        filled[y : y + height, x : x + width] = 255
    return np.concatenate([np.asarray(image), filled], 2)


def tile_centres(panel: Mosaic) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each row and of each column of tiles, in pixels of the body."""
    height, width = _tile_size(panel)
    rows = -(-len(panel.tiles) // panel.columns)
    return np.arange(rows) * (height + panel.gap) + height / 2, np.array(_lefts(panel, width)) + width / 2


def _tile_size(panel: Mosaic) -> tuple[int, int]:
    height, width = (max(length, 1) for length in panel.tiles.shape[-2:])
    zoom = panel.side / max(height, width)
    return max(round(height * zoom), 1), max(round(width * zoom), 1)


def _lefts(panel: Mosaic, width: int) -> list[int]:
    """Where each column begins."""
    wide = panel.gap + _APART if panel.together > 1 else 0
    return [column * (width + panel.gap) + column // panel.together * wide for column in range(panel.columns)]


def _body(panel: Mosaic, height: int, width: int) -> np.ndarray:
    """The tiles alone, (h w 3) uint8: coloured at their own size, enlarged or shrunk all at once, then moved apart."""
    shades = _shaded(panel)
    count, h, w, _ = shades.shape
    rows, columns, gap = -(-count // panel.columns), panel.columns, panel.gap
    full = np.full((rows * columns, h, w, 3), 255, np.uint8)
    full[:count] = shades
    grid = full.reshape(rows, columns, h, w, 3).swapaxes(1, 2).reshape(rows * h, columns * w, 3)
    if (height, width) != (h, w):
        larger = height >= h and width >= w
        resampling = Pillow.Resampling.NEAREST if larger else Pillow.Resampling.BOX
        grid = np.asarray(Pillow.fromarray(grid).resize((columns * width, rows * height), resampling))
    lefts = _lefts(panel, width)
    places = (np.array(lefts)[:, None] + np.arange(width)).ravel()
    apart = np.full((rows, height + gap, lefts[-1] + width, 3), 255, np.uint8)
    apart[:, :height, places] = grid.reshape(rows, height, columns * width, 3)
    return apart.reshape(-1, *apart.shape[2:])[: rows * (height + gap) - gap]


def _shaded(panel: Mosaic) -> np.ndarray:
    """Each tile in its colours, (tile h w 3) uint8."""
    if panel.limits is None:
        return np.rint(np.clip(np.moveaxis(panel.tiles, 1, -1), 0, 1) * 255).astype(np.uint8)
    low, high = (panel.limits[:, end, None, None].astype(np.float64) for end in (0, 1))
    share = (panel.tiles - low) / np.where(high > low, high - low, 1)
    table = np.rint(colors.table(panel.scale, _SHADES) * 255).astype(np.uint8)
    found = np.isfinite(share)
    shades = table[np.clip(np.where(found, share, 0) * (_SHADES - 1) + 0.5, 0, _SHADES - 1).astype(np.uint8)]
    shades[~found] = 153
    return shades


def _legible(names: tuple[str, ...], step: int, room: int) -> list[tuple[int, str]]:
    """As many of the names as find room, at equal distances."""
    every = max(-(-room // max(step, 1)), 1)
    return [(place, name) for place, name in enumerate(names) if place % every == 0]


def _caption(panel: Mosaic, width: int) -> list[str]:
    return fonts.wrap(panel.caption, fonts.SMALL, max(width, 400)) if panel.caption else []
