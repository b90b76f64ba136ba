"""Occlusion: the picture, what hiding costs laid over it, the scores, and the class that wins at each position."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from convscope.render import colors, fonts, words
from convscope.render.panels import Group, Heat, Image, Panel, View, number

_SIDE, _MOST, _NAMED = 300, 24, 6
_PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d")
_UNITS = {"probability": "probability", "logit": "logit", "log-odds": "log-odds", "mean": "mean activation"}


def view(result: Any) -> View:
    """A row per picture.

    Args:
        result: ``Occlusion``, fresh or loaded: map, label (n y x), base (n), drop (n h w), boxes (y x 4), images (n rgb h w).
    """
    shown = min(len(result.base), _MOST)
    panels: list[Panel] = [Group(_row(result, number), 4, title=str(result.names[number])) for number in range(shown)]
    patch = result.boxes[0, 0] if result.boxes.size else np.zeros(4, int)
    how = f"patch of {patch[2] - patch[0]}x{patch[3] - patch[1]} px, {result.map[0].size} positions, {result.method} inference"
    if result.checked:
        how += f"; {result.checked} positions computed in full as well: largest difference {number(result.largest_difference)}"
    note = (
        "Drop: how much of the score is lost where a pixel is hidden, the mean over the patches that cover it; negative where hiding it "
        "helps. Frame: the patch that costs most."
    )
    if result.compat:
        note += " Map and classes in the article's orientation: transposed."
    if shown < len(result.base):
        note += f" Shown: the first {shown} of {len(result.base)} pictures."
    return View("Occlusion: what the score rests on", tuple(panels), subtitle=f"{words.provenance(result)} · {how}", note=note)


def _row(result: Any, index: int) -> tuple[Panel, ...]:
    picture, drop, unit = result.images[index], result.drop[index], _UNITS[result.score]
    target = f"{result.targets[index]} {result.labels[index]}".strip()
    if not result.map[index].size:
        return (Image(picture, f"{unit} of {target}", f"base {number(result.base[index])}", "no position fits"),)
    loss = result.base[index] - result.map[index]
    y0, x0, y1, x1 = (int(edge) for edge in result.boxes[np.unravel_index(int(loss.argmax()), loss.shape)])
    high = float(np.nanmax(drop, initial=0.0)) or 1.0
    over = Heat(np.nan_to_num(np.maximum(drop, 0)), unit=f"drop of {unit}", limits=(0.0, high))
    limits = (0.0, 1.0) if result.score == "probability" and result.base[index] > 0.5 else None
    panels: tuple[Panel, ...] = (
        Image(
            picture,
            f"{unit} of {target}: {number(result.base[index])}",
            f"least when hidden: {number(result.map[index].min())}",
            boxes=((y0, x0, y1, x1),),
        ),
        Image(picture, "drop, laid over the picture", f"up to {number(high)}", heat=over),
        Heat(result.map[index], f"{unit} with the patch there", unit=unit, limits=limits),
    )
    if (result.label[index] >= 0).all():
        panels = (*panels, _classes(result, index))
    return tuple(Group((panel,), side=_SIDE) for panel in panels)


def _classes(result: Any, index: int) -> Image:
    """The most probable class at each position, with its legend below."""
    label = result.label[index]
    found, counts = np.unique(label, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    order = np.concatenate([order[order == result.targets[index]], order[order != result.targets[index]]])
    paints = {int(number): _PALETTE[min(place, _NAMED)] for place, number in enumerate(order)}
    rgb = np.array([[_rgb(paints[int(number)]) for number in row] for row in label], np.uint8)
    height = max(1, round(_SIDE * label.shape[0] / label.shape[1]))
    line = fonts.line(fonts.SMALL) + 2
    named = [int(number) for number in order[:_NAMED]]
    rest = len(order) - len(named)
    sheet = Pillow.new("RGB", (_SIDE, height + line * (len(named) + (rest > 0)) + 4), "white")
    sheet.paste(Pillow.fromarray(rgb).resize((_SIDE, height), Pillow.Resampling.NEAREST), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for place, unit in enumerate(named):
        share = 100 * float((label == unit).mean())
        _legend(
            draw,
            height + 4 + place * line,
            paints[unit],
            f"{_named(result, unit)}: {share:.0f} %" if share >= 1 else f"{_named(result, unit)}: < 1 %",
        )
    if rest:
        _legend(draw, height + 4 + len(named) * line, _PALETTE[_NAMED], f"{rest} further classes")
    return Image(np.moveaxis(np.asarray(sheet, np.float32) / 255, -1, 0), "most probable class there")


def _named(result: Any, unit: int) -> str:
    """A class as its number and name."""
    return f"{unit} {(result.classes or {}).get(str(unit), '')}".strip()


def _legend(draw: ImageDraw.ImageDraw, y: int, paint: str, text: str) -> None:
    draw.rectangle((0, y, 10, y + 10), fill=paint)
    draw.text((16, y - 2), fonts.shorten(text, fonts.SMALL, _SIDE - 16), fill=colors.INK, font=fonts.font(fonts.SMALL))


def _rgb(paint: str) -> tuple[int, int, int]:
    return int(paint[1:3], 16), int(paint[3:5], 16), int(paint[5:7], 16)
