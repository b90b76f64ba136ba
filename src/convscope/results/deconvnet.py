"""Result of `deconvnet`: a unit's activation projected back to pixels, beside the image inside its receptive field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from convscope.render import colors, fonts
from convscope.render.contact_sheet import to_bytes
from convscope.render.panels import Group, Image, Panel, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

NOTE = "Feature illustration, not class evidence."
QUANTILE = 0.995
"""Share of a projection's values that its grey scale holds. Single outliers would leave all others grey."""
SCALE = "each projection is scaled by the 99.5 % quantile of its absolute values, and larger ones are clipped"

_MOST, _SIDE, _COLUMNS, _GAP = 96, 396, 3, 4
_OVERVIEW, _LARGE, _TAGGED = 320, 0.4, 3
_LISTED = 8


@dataclass(frozen=True, eq=False)
class Deconvnet(ImageResult):
    """A projection per image and unit. It illustrates what a unit responded to; it is no evidence for a class.

    Attributes:
        projection: The signed projections, (n unit c h w), per value that the network is fed: as it leaves the first layer, before the
            normalization of the image; divided by ``Inputs.std``, per pixel value.
        values: The activation A[unit, y, x] that is projected, (n unit).
        positions: Its position on the layer's map: y, x, (n unit 2).
        boxes: The pixels that it can depend on: y0 x0 y1 x1, end exclusive, clipped to the image, (n unit 4). Outside, the
            projection is zero.
        images: The input images, (n c h w) in [0,1].
        layer: The layer's name.
        units: Unit numbers.
        unit_names: Class names on the output layer, "" elsewhere.
        names: Names of the images.
        rule: "deconvnet", "guided" or "gradient".
    """

    tabled: ClassVar[Rows] = Rows("n unit", image="n:names", unit="unit:units", unit_name="unit:unit_names")

    projection: Array = axes("n unit c h w", "signed", unit="projected activation")
    values: Array = axes("n unit", unit="activation")
    positions: Array = axes("n unit yx")
    boxes: Array = axes("n unit edge", "boxes", unit="pixels")
    images: Array = axes("n c h w", "image")
    layer: str = ""
    units: tuple[int, ...] = ()
    unit_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    rule: str = "deconvnet"

    def summary(self) -> str:
        """What was projected, a line per image."""
        lines: list[str] = []
        for name, values, positions in zip(self.names, self.values, self.positions, strict=True):
            parts = zip(self.units, self.unit_names, values, positions, strict=True)
            named = [f"{words.named(unit, label)} ({value:.3g} at {y}, {x})" for unit, label, value, (y, x) in parts]
            lines.append(f"{name}: {words.listed(named, _LISTED)}")
        return self.with_skipped("\n".join([*lines, NOTE]), "\n")

    def view(self) -> View:
        """For each image, a tile per unit: the projection on the left, the image inside the same box on the right."""
        count, units = self.values.shape
        across, down = min(units, _MOST), min(count, max(1, _MOST // units))
        panels: list[Panel] = []
        for image in range(down):
            pairs = Group(tuple(_pair(self, image, unit) for unit in range(across)), _COLUMNS, side=_SIDE)
            where = _overview(self, image, across)
            rows = (pairs,) if where is None else (where, pairs)
            panels.append(Group(rows, len(rows), title=str(self.names[image])))
        note = words.note(
            f"{NOTE} Each tile: left the projection, right the image inside the unit's receptive field. Grey is zero; {SCALE}.",
            "Below a tile: the activation, its (y, x) on the map, and that scale.",
            channels.note(self, self.images.shape[1]),
            f"Shown are {across * down} of {count * units} tiles." if count * units > across * down else "",
        )
        subtitle = words.subtitle(self, f"rule {self.rule}")
        return View("Deconvnet: units projected to pixels", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))


def on_grey(projection: np.ndarray) -> tuple[np.ndarray, float]:
    """A signed projection as an image in [0,1] whose grey is zero, and the value that is white.

    Args:
        projection: (rgb h w); NaN, where there is no pixel, becomes grey.

    Returns:
        0.5 + 0.5 * projection / scale, clipped; and the scale: the 99.5 % quantile of the absolute values, the largest of them where that
        is zero, zero where all are.
    """
    sizes = np.abs(projection[np.isfinite(projection)])
    reach = float(np.quantile(sizes, QUANTILE) or sizes.max()) if sizes.size else 0.0
    return np.clip(0.5 + 0.5 * np.nan_to_num(projection) / (reach or 1.0), 0, 1), reach


def _pair(result: Deconvnet, image: int, unit: int) -> Image:
    """Projection and patch side by side; a projection that is zero everywhere is marked."""
    y0, x0, y1, x1 = (int(edge) for edge in result.boxes[image, unit])
    inside = result.projection[image, unit, :, y0:y1, x0:x1]
    tile, reach = on_grey(inside)
    tiles = [channels.shown(result, one) for one in (tile, result.images[image, :, y0:y1, x0:x1])]
    widest = int((result.boxes[..., 2:] - result.boxes[..., :2]).max(initial=1))
    zoom = -(-_SIDE // (2 * widest))  # small fields in whole steps, so that a pixel stays a square
    large = [tile.repeat(zoom, 1).repeat(zoom, 2) for tile in tiles]
    gap = np.ones((3, large[0].shape[1], max(1, _GAP * widest * zoom * 2 // _SIDE)))
    value, (y, x) = result.values[image, unit], result.positions[image, unit]
    whole = tuple(result.boxes[image, unit]) == (0, 0, *result.images.shape[-2:])
    caption = number(value) + ("" if whole else f" at ({y}, {x})") + (f" · scale ±{number(reach)}" if reach else "")
    marked = None if reach else "not active here" if value == 0 else "projection is zero"
    return Image(
        np.concatenate([large[0], gap, large[1]], 2), f"unit {words.named(result.units[unit], result.unit_names[unit])}", caption, marked
    )


def _overview(result: Deconvnet, image: int, units: int) -> Image | None:
    """The whole image with the boxes of its active units, where they are small enough to be told apart."""
    height, width = result.images.shape[-2:]
    boxes = [tuple(int(edge) for edge in box) for box in result.boxes[image, :units]]
    active = [unit for unit in range(units) if np.any(result.projection[image, unit])]
    area = sum((boxes[unit][2] - boxes[unit][0]) * (boxes[unit][3] - boxes[unit][1]) for unit in active)
    if not active or area > _LARGE * height * width * len(active):
        return None
    scale = _OVERVIEW / max(height, width)
    size = round(width * scale), round(height * scale)
    sheet = Pillow.fromarray(to_bytes(channels.backdrop(result, result.images[image]))).resize(size, Pillow.Resampling.LANCZOS)
    draw = ImageDraw.Draw(sheet)
    tagged: dict[tuple[int, int], list[int]] = {}
    for unit in active:
        y0, x0, y1, x1 = (round(edge * scale) for edge in boxes[unit])
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colors.WARN, width=2)
        tagged.setdefault((y0, x0), []).append(result.units[unit])
    taken: list[tuple[int, int, int]] = []
    for (y0, x0), members in tagged.items():
        tag = ", ".join(map(str, members[:_TAGGED])) + (f" +{len(members) - _TAGGED}" if len(members) > _TAGGED else "")
        across, down = fonts.width(tag, fonts.SMALL) + 6, fonts.line(fonts.SMALL)
        x0, y0 = max(min(x0, sheet.width - across), 0), max(y0 - down, 0)
        while any(abs(y0 - y) < down and x0 < right and left < x0 + across for y, left, right in taken):
            y0 += down
        taken.append((y0, x0, x0 + across))
        draw.rectangle((x0, y0, x0 + across, y0 + down), fill=colors.WARN)
        draw.text((x0 + 3, y0), tag, font=fonts.font(fonts.SMALL), fill="white")
    return Image(np.moveaxis(np.asarray(sheet, np.float32) / 255, -1, 0), "where they are")
