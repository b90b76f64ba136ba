"""Result of `top_patches`: for each unit the images that activate it most, as deconvnet projections beside the same crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render import fonts
from convscope.render.panels import Group, Heat, Image, Panel, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes
from convscope.results.deconvnet import NOTE, SCALE, on_grey
from convscope.results.table import Rows

_MOST, _SIDE, _CELLS, _IN_SUMMARY = 36, 120, 28, 4


@dataclass(frozen=True, eq=False)
class TopPatches(Result):
    """The strongest images of each unit, highest first. Where there are fewer than asked for, `images` is -1.

    Attributes:
        projection: What the activation at the maximum's position projects back to, cropped, (unit top rgb h w); as
            :attr:`~convscope.Deconvnet.projection`. NaN beyond the border of the image, and where the image cannot be read.
        crops: The same crops of the images, (unit top rgb h w) in [0,1]; white beyond the border.
        values: The maximum of the unit's map on each image, as the survey holds it, (unit top).
        images: The images' numbers in the survey, (unit top).
        positions: Where on the map the maximum is: y, x, (unit top 2).
        boxes: The receptive field of that position, or its middle, clipped to the image: y0 x0 y1 x1, end exclusive, (unit top 4).
        layer: The layer's name.
        units: The units' numbers.
        unit_names: Class names of the units on "output", else "".
        label: The label whose images were searched; "" for all.
        names: Name of each image, unit by unit.
        image_labels: Label of each image, "" for none, unit by unit.
        missing: Images whose file cannot be read any more.
        changed: Images that no longer have the activation that the survey recorded: their files have changed since.
        rule: "deconvnet", "guided" or "gradient".
        evidence: Whether the figure shows :meth:`evidence_map` as well.
        of: How many images were searched.
        middle: Share of the receptive field's sides that is shown.
    """

    tabled: ClassVar[Rows] = Rows(
        "unit top", unit="unit:units", unit_name="unit:unit_names", rank="top", image="unit top:names", label="unit top:image_labels"
    )

    projection: Array = axes("unit top rgb h w", "signed", unit="projected activation")
    crops: Array = axes("unit top rgb h w", "image")
    values: Array = axes("unit top", unit="activation")
    images: Array = axes("unit top")
    positions: Array = axes("unit top yx")
    boxes: Array = axes("unit top edge", "boxes", unit="pixels")
    layer: str = ""
    units: tuple[int, ...] = ()
    unit_names: tuple[str, ...] = ()
    label: str = ""
    names: tuple[tuple[str, ...], ...] = ()
    image_labels: tuple[tuple[str, ...], ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    rule: str = "deconvnet"
    evidence: bool = False
    of: int = 0
    middle: float = 1.0

    def evidence_map(self, row: int, place: int) -> np.ndarray:
        """Where in a crop the projection is: its absolute values, summed over colours, divided by the largest, (h w) in [0,1].

        Args:
            row: Index of the unit.
            place: Rank of the image.
        """
        total = np.abs(np.nan_to_num(self.projection[row, place])).sum(0)
        return total / (total.max(initial=0) or 1.0)

    def summary(self) -> str:
        """The four highest images of each unit."""
        lines: list[str] = []
        for row, (names, values) in enumerate(zip(self.names, self.values, strict=True)):
            found = [f"{words.stem(name)} ({number(value)})" for name, value in zip(names, values, strict=False)]
            lines.append(f"unit {words.named(self.units[row], self.unit_names[row])}: {words.listed(found, _IN_SUMMARY)}")
        return "\n".join([*lines, *_problems(self), NOTE])

    def view(self) -> View:
        """For each unit a square of projections, beside it a square of the same crops."""
        shown = min(len(self.units), _MOST)
        units: tuple[Panel, ...] = tuple(_unit(self, row) for row in range(shown))
        size = " x ".join(str(length) for length in self.crops.shape[-2:])
        middle = "" if self.middle == 1 else f"the middle {self.middle:.0%} of the sides of "
        note = words.note(
            f"{NOTE} Left: the unit's strongest activation on each image, projected back to pixels from that position alone.",
            f"Grey is zero; {SCALE}.",
            f"Right: the same crops of the images, {middle}the unit's receptive field ({size} pixels; grey beyond the border).",
            "With heat: the projection's absolute values, all colours together." if self.evidence else "",
            "Below the tiles: the activation, and the image's label or name.",
            words.first(shown, len(self.units), "units"),
            *_problems(self),
        )
        whose = f"images of {self.label}" if self.label else "images"
        subtitle = words.subtitle(self, f"rule {self.rule}", f"the highest of {self.of} {whose}")
        return View("Top patches and their projections", units, 1 if self.evidence or shown == 1 else 2, subtitle=subtitle, note=note)


def _problems(result: TopPatches) -> list[str]:
    lines = [(result.missing, "cannot be read"), (result.changed, "changed since the scan")]
    return [f"{words.plural(len(names), 'image file')} {what}, e.g. {names[0]}." for names, what in lines if names]


def _unit(result: TopPatches, row: int) -> Group:
    makers: list[tuple[str, Callable[[TopPatches, int, int], Image]]] = [("projections", _projection), ("images", _crop)]
    makers += [("evidence", _evidence)] if result.evidence else []
    places = range(len(result.names[row]))
    across = int(np.ceil(np.sqrt(len(places))))
    name = f"unit {words.named(result.units[row], result.unit_names[row])}"
    grids = tuple(
        Group(tuple(make(result, row, place) for place in places), across, f"{name}: {what}", side=_SIDE) for what, make in makers
    )
    return Group(grids, len(grids))


def _projection(result: TopPatches, row: int, place: int) -> Image:
    pixels, reach = on_grey(result.projection[row, place])
    value = result.values[row, place]
    marked = None if reach or result.names[row][place] in result.missing else "not active" if value == 0 else "projection is zero"
    return Image(pixels, caption=number(value), marked=marked)


def _crop(result: TopPatches, row: int, place: int) -> Image:
    name, label = result.names[row][place], result.image_labels[row][place]
    marked = "cannot be read" if name in result.missing else "changed since the scan" if name in result.changed else None
    shown = label if label and not result.label else words.stem(name)
    return Image(_filled(result, row, place), caption=fonts.shorten(fonts.legible(shown), fonts.SMALL, _SIDE), marked=marked)


def _evidence(result: TopPatches, row: int, place: int) -> Image:
    total = result.evidence_map(row, place)
    cells = max(-(-max(total.shape) // _CELLS), 1)  # coarse enough to be seen on the image
    height, width = (-(-length // cells) * cells for length in total.shape)
    padded = np.pad(total, ((0, height - total.shape[0]), (0, width - total.shape[1])), mode="edge")
    coarse = padded.reshape(height // cells, cells, width // cells, cells).mean((1, 3))
    heat = Heat(coarse / (coarse.max() or 1.0), unit="|projection| / its maximum", limits=(0, 1))
    return Image(_filled(result, row, place), caption=number(result.values[row, place]), heat=heat)


def _filled(result: TopPatches, row: int, place: int) -> np.ndarray:
    """A crop, grey beyond the border of the image, as its projection is."""
    return np.where(np.isnan(result.projection[row, place]), 0.5, result.crops[row, place])
