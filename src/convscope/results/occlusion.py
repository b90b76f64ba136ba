"""Occlusion sensitivity: the score of a class or unit with a patch of the image hidden, at every position."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageColor, ImageDraw

from convscope.names import OUTPUT
from convscope.render import colors, fonts
from convscope.render.panels import Group, Heat, Image, Panel, View, number
from convscope.results import words
from convscope.results.base import Array, ImageResult, axes

_SIDE, _MOST, _NAMED = 300, 24, 6
_PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d")
_UNITS = {"probability": "probability", "logit": "logit", "log-odds": "log-odds", "mean": "mean activation"}


@dataclass(frozen=True, eq=False)
class Occlusion(ImageResult):
    """The score with each patch hidden.

    Attributes:
        map: The score with the patch at each position, (n y x).
        base: The score of the image as it is, (n).
        drop: How much is lost where a pixel is hidden: base - score, the mean over the patches that cover it, (n h w); NaN where none does.
        label: Most probable class with the patch at each position, as `map`; -1 on layers other than the output.
        boxes: Where the patches are, (y x edge): y0 x0 y1 x1, end exclusive; axes as `map`, the same for every image.
        images: The images, (n rgb h w) in [0,1].
        targets: The class or unit whose score is measured, for each image.
        names: Names of the images.
        target_names: Names of the targets.
        classes: Names of all classes in `label`, {number: name}.
        layer: Where the score is read.
        score: "probability", "logit", "log-odds" or "mean".
        method: How it was computed: "incremental" or "full".
        checked: Positions that were computed in full as well.
        largest_difference: The largest difference found there, in the unit of the score; NaN if none was checked.
    """

    map: Array = axes("n y x", "heat", unit="score")
    base: Array = axes("n", unit="score")
    drop: Array = axes("n h w", "signed", unit="drop of the score")
    label: Array = axes("n y x")
    boxes: Array = axes("y x edge", "boxes", unit="pixels")
    images: Array = axes("n rgb h w", "image")
    targets: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    classes: dict[str, str] | None = None
    layer: str = OUTPUT
    score: str = "probability"
    method: str = "incremental"
    checked: int = 0
    largest_difference: float = math.nan

    def article_map(self) -> np.ndarray:
        """The scores as the article's (S1) function returns them, (n x y): the first axis of a map is the image's x."""
        return self.map.swapaxes(1, 2)

    def summary(self) -> str:
        """For each image, the score and the patch whose occlusion lowers it most."""
        lines: list[str] = []
        for index, name in enumerate(self.names):
            (y0, x0, y1, x1), drop = _worst(self, index)
            worst = f"largest drop {drop:.3g} where rows {y0}-{y1 - 1}, columns {x0}-{x1 - 1} are hidden"
            lines.append(f"{name}: {self.score} of {_target(self, index)} {self.base[index]:.3g}; {worst}")
        check = f", {self.checked} positions checked in full: largest difference {self.largest_difference:.2g}" if self.checked else ""
        return self.with_skipped("\n".join([*lines, f"{self.map[0].size} positions each, {self.method}{check}"]), "\n")

    def view(self) -> View:
        """A row per image: the image, the drop over it, the scores, and the most probable class at each position."""
        shown = min(len(self.base), _MOST)
        panels = tuple(Group(_row(self, index), 4, title=str(self.names[index])) for index in range(shown))
        patch = self.boxes[0, 0] if self.boxes.size else np.zeros(4, int)
        how = f"patch of {patch[2] - patch[0]}x{patch[3] - patch[1]} px, {self.map[0].size} positions, {self.method} inference"
        if self.checked:
            how += f"; {self.checked} positions computed in full as well: largest difference {number(self.largest_difference)}"
        note = words.note(
            "Drop: how much of the score is lost where a pixel is hidden, the mean over the patches that cover it; negative where hiding",
            "it helps. Frame: the patch with the largest drop.",
            f"Shown: the first {shown} of {len(self.base)} images." if shown < len(self.base) else "",
        )
        return View("Occlusion sensitivity", panels, subtitle=words.subtitle(self, how), note=self.with_skipped(note))


def _target(result: Occlusion, index: int) -> str:
    return words.named(result.targets[index], result.target_names[index])


def _worst(result: Occlusion, index: int) -> tuple[tuple[int, int, int, int], float]:
    """The patch with the largest drop, y0 x0 y1 x1, and the drop; zeros where no position fits."""
    loss = result.base[index] - result.map[index]
    if not loss.size:
        return (0, 0, 0, 0), 0.0
    y0, x0, y1, x1 = result.boxes[np.unravel_index(int(loss.argmax()), loss.shape)].tolist()
    return (y0, x0, y1, x1), float(loss.max(initial=0))


def _row(result: Occlusion, index: int) -> tuple[Panel, ...]:
    pixels, scores, drop, unit = result.images[index], result.map[index], result.drop[index], _UNITS[result.score]
    target, base = _target(result, index), number(result.base[index])
    if not scores.size:
        return (Image(pixels, f"{unit} of {target}", f"base {base}", "no position fits"),)
    high = float(np.nanmax(drop, initial=0.0)) or 1.0
    over = Heat(np.nan_to_num(np.maximum(drop, 0)), unit=f"drop of {unit}", limits=(0.0, high))
    limits = (0.0, 1.0) if result.score == "probability" and result.base[index] > 0.5 else None
    panels: list[Panel] = [
        Image(pixels, f"{unit} of {target}: {base}", f"least when hidden: {number(scores.min())}", boxes=(_worst(result, index)[0],)),
        Image(pixels, "drop, laid over the image", f"up to {number(high)}", heat=over),
        Heat(scores, f"{unit} with the patch there", unit=unit, limits=limits),
    ]
    if (result.label[index] >= 0).all():
        panels.append(_classes(result, index))
    return tuple(Group((panel,), side=_SIDE) for panel in panels)


def _classes(result: Occlusion, index: int) -> Image:
    """The most probable class at each position, with its legend below."""
    label = result.label[index]
    found, counts = np.unique(label, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    order = np.concatenate([order[order == result.targets[index]], order[order != result.targets[index]]])
    paints = {int(unit): _PALETTE[min(rank, _NAMED)] for rank, unit in enumerate(order)}
    rgb = np.array([[ImageColor.getrgb(paints[int(unit)]) for unit in row] for row in label], np.uint8)
    height = max(1, round(_SIDE * label.shape[0] / label.shape[1]))
    line = fonts.line(fonts.SMALL) + 2
    named = [int(unit) for unit in order[:_NAMED]]
    rest = len(order) - len(named)
    sheet = Pillow.new("RGB", (_SIDE, height + line * (len(named) + (rest > 0)) + 4), "white")
    sheet.paste(Pillow.fromarray(rgb).resize((_SIDE, height), Pillow.Resampling.NEAREST), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for row, unit in enumerate(named):
        share = 100 * float((label == unit).mean())
        name = words.named(unit, (result.classes or {}).get(str(unit), ""))
        _legend(draw, height + 4 + row * line, paints[unit], f"{name}: {share:.0f} %" if share >= 1 else f"{name}: < 1 %")
    if rest:
        _legend(draw, height + 4 + len(named) * line, _PALETTE[_NAMED], f"{rest} further classes")
    return Image(np.moveaxis(np.asarray(sheet, np.float32) / 255, -1, 0), "most probable class there")


def _legend(draw: ImageDraw.ImageDraw, y: int, paint: str, text: str) -> None:
    draw.rectangle((0, y, 10, y + 10), fill=paint)
    draw.text((16, y - 2), fonts.shorten(text, fonts.SMALL, _SIDE - 16), fill=colors.INK, font=fonts.font(fonts.SMALL))
