"""Result of `receptive_field`: size, jump and start for each layer; for one layer also every unit's box and the effective field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.errors import BadInput
from convscope.render.colors import CLASSES
from convscope.render.panels import Group, Heat, Image, Interval, Intervals, Panel, Table, View
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_GREY, _MOST = 0.75, 400
"""Brightness where no image is given; most rows of the table."""
_DECADES = -4.0
"""Where the logarithmic scale of the effective field ends."""
_LARGEST, _SIDE, _STEPS = 24, 320, 32
"""Largest field that is drawn pixel by pixel, the side of that drawing, and most layers of the funnel."""


@dataclass(frozen=True, eq=False)
class ReceptiveField(ImageResult):
    """Receptive fields of layers; of one layer also every unit's box and the effective field.

    Attributes:
        size: Height and width of the field in pixels, (layer 2); of the whole image where `whole`.
        jump: Pixels between the fields of neighbouring units, (layer 2).
        start: First pixel of the first unit's field, (layer 2); negative: it begins in the padding.
        whole: 1 where units see the whole image whatever its size (global pooling, dense layers), (layer 2).
        rows: First and last row of pixels seen by each row of units of the asked layer, not clipped; then the same without what lies in
            padding, (y 4); empty for several layers.
        columns: The same for columns, (x 4).
        effective: Gradient energy of the asked layer's unit at `position` with respect to the image, all colours together, divided by its
            maximum, (h w); empty for several layers.
        spans: How the field grows: first and last row and column of pixels of one field of each of `steps`, not clipped, (step span).
        image: The image it is drawn on, (c h w) in [0,1].
        layers: Names of the layers.
        steps: The layers on the way to the asked one, or to the last, whose fields are larger than all before.
        position: (y, x) of the unit that is drawn; empty for several layers.
        height, width: Size of the image in pixels.
        share: Share of the image's pixels whose energy is above 4.55 % of the peak (two standard deviations, if it were Gaussian).
    """

    tabled: ClassVar[Rows] = Rows("layer", layer="layer:layers")

    size: Array = axes("layer yx", unit="pixels")
    jump: Array = axes("layer yx", unit="pixels")
    start: Array = axes("layer yx", unit="pixels")
    whole: Array = axes("layer yx")
    rows: Array = axes("y end", unit="pixels")
    columns: Array = axes("x end", unit="pixels")
    effective: Array = axes("h w", "heat", unit="gradient energy / maximum")
    spans: Array = axes("step span", unit="pixels")
    image: Array = axes("c h w", "image")
    layers: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    position: tuple[int, ...] = ()
    height: int = 0
    width: int = 0
    share: float = 0.0

    def box(self, y: int, x: int, *, clipped: bool = True) -> tuple[int, int, int, int]:
        """The pixels that the unit at (y, x) of the asked layer sees: (y0, x0, y1, x1), end exclusive.

        Args:
            y, x: Position on the layer's map.
            clipped: Leave out what lies in padding, of the image or of a map in between. A unit that sees only padding has an empty
                box.

        Raises:
            BadInput: Several layers were asked for, or there is no such position.
        """
        if len(self.layers) != 1:
            raise BadInput(f"a box belongs to one layer; these are the fields of {len(self.layers)}: ask for receptive_field(scope, layer)")
        if not (0 <= y < len(self.rows) and 0 <= x < len(self.columns)):
            raise BadInput(f"layer {self.layers[0]} has positions to ({len(self.rows) - 1}, {len(self.columns) - 1}), got ({y}, {x})")
        ends = slice(2, 4) if clipped else slice(0, 2)
        (y0, y1), (x0, x1) = self.rows[y, ends], self.columns[x, ends]
        return int(y0), int(x0), int(y1) + 1, int(x1) + 1

    def summary(self) -> str:
        """A line per layer."""
        lines: list[str] = []
        for name, size, jump, start, whole in zip(self.layers, self.size, self.jump, self.start, self.whole, strict=True):
            seen = "the whole image" if whole.all() else f"{_pair(size)} px, every {_pair(jump)} px, from {_pair(start)}"
            lines.append(f"{name}: {seen}")
        if self.effective.size:
            where = f"the unit at ({', '.join(map(str, self.position))})" if self.position else "the unit"
            lines.append(f"effective field of {where}: {100 * self.share:.1f} % of the image above 4.55 % of its peak")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """For one layer, the field of the unit asked about on the image beside its effective field; how the field grows; the table."""
        note = words.note(
            "field: pixels seen by a unit; jump: pixels between neighbouring units; start: first pixel of the first unit (below 0:",
            "padding).",
        )
        growth = (Group(tuple(filter(None, [_nested(self), _funnel(self)])), 2, "How the field grows"),) if len(self.steps) else ()
        if not self.effective.size:
            return View("Receptive fields", (*growth, _table(self)), subtitle=words.subtitle(self), note=self.with_skipped(note))
        panels: tuple[Panel, ...] = (_fields(self), *growth, _table(self))
        return View(f"Receptive field of {self.layers[0]}", panels, subtitle=words.subtitle(self), note=self.with_skipped(note))


def _table(result: ReceptiveField) -> Table:
    rows = [
        (name, *(("all",) * 3 if whole.all() else (_pair(size), _pair(jump), _pair(start))))
        for name, size, jump, start, whole in zip(result.layers[:_MOST], result.size, result.jump, result.start, result.whole, strict=False)
    ]
    return Table(("layer", "field", "jump", "start"), tuple(rows), "in pixels")


def _fields(result: ReceptiveField) -> Group:
    """The unit's field as a box on the image, and the effective field, on the image and inside that box."""
    at = (*result.position, 0, 0)
    y0, x0, y1, x1 = result.box(at[0], at[1])
    pixels = channels.backdrop(result, result.image) if result.image.size else np.full((3, result.height, result.width), _GREY)
    unit = f"unit at ({at[0]}, {at[1]})" if result.position else "the unit"
    where = f"{unit}: pixels y {y0} to {y1 - 1}, x {x0} to {x1 - 1}"
    box = Image(pixels, "receptive field", where, boxes=((y0, x0, y1, x1),))
    energy = np.log10(np.maximum(result.effective, 10.0**_DECADES))
    share = f"{100 * result.share:.1f} % of the image above 4.55 % of the peak"
    unit, limits = "log10(gradient energy / maximum)", (_DECADES, 0.0)
    over = Image(pixels, "effective receptive field", share, heat=Heat(energy, unit=unit, limits=limits), boxes=((y0, x0, y1, x1),))
    inside = Heat(energy[y0:y1, x0:x1], "effective receptive field, inside the box", unit=unit, limits=limits)
    return Group((box, over, inside), 3)


def _nested(result: ReceptiveField) -> Image | None:
    """The first fields inside one another, pixel by pixel, smallest on top."""
    sizes = result.spans[:, 1::2] - result.spans[:, ::2] + 1
    shown = [step for step in range(len(sizes)) if sizes[step].max() <= _LARGEST][: len(CLASSES)]
    if not shown:
        return None
    (top, _, left, _), (_, bottom, _, right) = result.spans[shown].min(0), result.spans[shown].max(0)
    top, bottom, left, right = top - 1, bottom + 1, left - 1, right + 1
    paint = np.full((bottom - top + 1, right - left + 1, 3), 1.0)
    for step in reversed(shown):
        y0, y1, x0, x1 = result.spans[step]
        color = np.array([int(CLASSES[step][place : place + 2], 16) for place in (1, 3, 5)]) / 255
        paint[y0 - top : y1 - top + 1, x0 - left : x1 - left + 1] = color
    zoom = max(_SIDE // max(paint.shape[:2]), 2)
    drawn = paint.repeat(zoom, 0).repeat(zoom, 1)
    drawn[::zoom], drawn[:, ::zoom] = 0.8, 0.8  # lines between pixels
    legend = tuple((CLASSES[step], f"{result.steps[step]}: {_by(sizes[step])}") for step in shown)
    return Image(np.moveaxis(drawn, -1, 0), "the first layers, in pixels", "Each square is a pixel of the image.", legend=legend)


def _funnel(result: ReceptiveField) -> Intervals:
    """The rows of pixels that the field spans, layer by layer."""
    places = np.unique(np.linspace(0, len(result.steps) - 1, min(_STEPS, len(result.steps))).round().astype(int))
    spans = result.spans[places].astype(float)
    names = tuple(f"{result.steps[step]}  {_by(result.spans[step, 1::2] - result.spans[step, ::2] + 1)}" for step in places)
    values = np.stack([(spans[:, 0] + spans[:, 1]) / 2, spans[:, 0] - 0.5, spans[:, 1] + 0.5], 1)
    ends = (min(0.0, float(spans[:, 0].min())) - 1, max(float(result.height), float(spans[:, 1].max())) + 1)
    return Intervals(names, (Interval("rows of pixels seen", values),), "", "row of the image (below 0: padding)", ends, zero=True)


def _by(size: np.ndarray) -> str:
    return f"{size[0]:g}x{size[1]:g}"


def _pair(values: np.ndarray) -> str:
    return f"{values[0]:g}" if values[0] == values[1] else " x ".join(f"{value:g}" for value in values)
