"""Result of `occlusion`: the score of a class or unit with a patch of the image hidden, at every position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import ImageColor

from convscope.names import OUTPUT
from convscope.render import colors
from convscope.render.panels import Group, Heat, Image, Panel, Signed, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_SIDE, _MOST, _NAMED = 300, 24, 6
_LITTLE = 0.1
"""Where no patch takes away this share of the probability, the summary says how to see more."""
_SURE = 0.95
"""A probability above this that no patch takes as far down as one minus it hides what patches do."""
_UNITS = {"probability": "probability", "logit": "logit", "log-odds": "log-odds", "mean": "mean activation"}


def patch_for(height: int, width: int) -> int:
    """Side of the patch that is suggested for images of a size: a fifth of the shorter side."""
    return max(min(height, width) // 5, 1)


@dataclass(frozen=True, eq=False)
class Occlusion(ImageResult):
    """The score with each patch hidden.

    Attributes:
        map: The score with the patch at each position, (n y x).
        base: The score of the image as it is, (n).
        drop: How much is lost where a pixel is hidden: base - score, the mean over the patches that cover it, (n h w); NaN where none does.
        label: Most probable class with the patch at each position, as `map`; -1 on layers other than the output.
        boxes: Where the patches are, (y x edge): y0 x0 y1 x1, end exclusive; axes as `map`, the same for every image.
        images: The images, (n c h w) in [0,1].
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

    tabled: ClassVar[Rows] = Rows("n y x", image="n:names", target="n:targets", target_name="n:target_names", y="y", x="x")

    map: Array = axes("n y x", "heat", unit="score")
    base: Array = axes("n", unit="score")
    drop: Array = axes("n h w", "signed", unit="drop of the score")
    label: Array = axes("n y x")
    boxes: Array = axes("y x edge", "boxes", unit="pixels")
    images: Array = axes("n c h w", "image")
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
        """For each image, the score, the patch whose occlusion lowers it most, and at how many positions another class wins."""
        lines: list[str] = []
        for index, name in enumerate(self.names):
            (y0, x0, y1, x1), drop = _worst(self, index)
            worst = f"largest drop {drop:.3g} where rows {y0}-{y1 - 1}, columns {x0}-{x1 - 1} are hidden"
            others = self.label[index][(self.label[index] != self.targets[index]) & (self.label[index] >= 0)]
            turned = (
                f"; class {self._class(int(np.bincount(others).argmax()))} wins at {words.plural(len(others), 'position')}"
                if len(others)
                else ""
            )
            sure = self.score == "probability" and self.base[index] > _SURE and drop < 1 - _SURE
            hint = "; the probability is near 1 all over: score log-odds shows more" if sure else ""
            if self.score == "probability" and not sure and drop < _LITTLE * self.base[index]:
                hint = "; hiding so little changes little: try a larger patch, or score log-odds"
            if not hint and (self.label[index] == self.targets[index]).all():
                hint = "; the prediction changes nowhere: a larger patch hides more"
            lines.append(f"{name}: {self.score} of {_target(self, index)} {self.base[index]:.3g}; {worst}{turned}{hint}")
        check = f", {self.checked} positions checked in full: largest difference {self.largest_difference:.2g}" if self.checked else ""
        return self.with_skipped("\n".join([*lines, f"{self.map[0].size} positions each, {self.method}{check}"]), "\n")

    def _class(self, number: int) -> str:
        return words.named(number, (self.classes or {}).get(str(number), ""))

    def view(self) -> View:
        """A row per image: the image, the drop over it, the scores, and the most probable class at each position."""
        shown = min(len(self.base), _MOST)
        panels = tuple(_row(self, index) for index in range(shown))
        patch = self.boxes[0, 0] if self.boxes.size else np.zeros(4, int)
        how = f"patch of {patch[2] - patch[0]}x{patch[3] - patch[1]} px", _strides(self.boxes), f"{self.map[0].size} positions"
        exact = f"{self.method} inference"
        if self.checked:
            exact += f"; {self.checked} positions computed in full as well: largest difference {number(self.largest_difference)}"
        note = words.note(
            "Drop: how much of the score is lost where a pixel is hidden, the mean over the patches that cover it; negative (blue) where",
            "hiding it helps. Frame: the patch with the largest drop. Where patches overlap, each is drawn to the middle of the overlap.",
            "The scale of probabilities ends at that of the image as it is." if self.score == "probability" else "",
            channels.note(self, self.images.shape[1]),
            f"Shown: the first {shown} of {len(self.base)} images." if shown < len(self.base) else "",
        )
        subtitle = words.subtitle(self, ", ".join(filter(None, how)), exact)
        return View("Occlusion sensitivity", panels, subtitle=subtitle, note=self.with_skipped(note))


def _target(result: Occlusion, index: int) -> str:
    return words.named(result.targets[index], result.target_names[index])


def _worst(result: Occlusion, index: int) -> tuple[tuple[int, int, int, int], float]:
    """The patch with the largest drop, y0 x0 y1 x1, and the drop; zeros where no position fits."""
    loss = result.base[index] - result.map[index]
    if not loss.size:
        return (0, 0, 0, 0), 0.0
    y0, x0, y1, x1 = result.boxes[np.unravel_index(int(loss.argmax()), loss.shape)].tolist()
    return (y0, x0, y1, x1), float(loss.max(initial=0))


def _row(result: Occlusion, index: int) -> Group:
    """The panels of an image, all of one size and in register with it."""
    pixels, scores, drop, unit = (
        channels.backdrop(result, result.images[index]),
        result.map[index],
        result.drop[index],
        _UNITS[result.score],
    )
    title = f"{result.names[index]}: {unit} of {_target(result, index)} {number(result.base[index])}"
    if not scores.size:
        return Group((Image(pixels, "", "", "no position fits"),), title=title)
    panels: list[Panel] = [
        Image(pixels, "the image", f"least when hidden: {number(scores.min())}", boxes=(_worst(result, index)[0],)),
        Image(pixels, "drop, laid over the image", _extent(drop), heat=Signed(np.nan_to_num(drop), unit=f"drop of {unit}")),
        Heat(painted(scores, result.boxes, pixels.shape[1:]), f"{unit}, patch there", unit=unit, limits=_limits(result, index)),
    ]
    if (result.label[index] >= 0).all():
        panels.append(_classes(result, index))
    return Group(tuple(Group((panel,), side=_SIDE) for panel in panels), 4, title)


def _extent(drop: np.ndarray) -> str:
    """From where to where the drop goes, and how much of the image it is negative on."""
    known = drop[np.isfinite(drop)]
    below = 100 * float((known < 0).mean())
    return f"{number(known.min())} to {number(known.max())}; negative on {below:.0f} % of the pixels"


def _limits(result: Occlusion, index: int) -> tuple[float, float] | None:
    """The ends of the scale of an image's scores; None leaves them to the values."""
    base = float(result.base[index])
    return (0.0, base) if result.score == "probability" and base > 0 else None


def _strides(boxes: np.ndarray) -> str:
    """How far apart the patches are, down and across; nothing where there is one alone."""
    starts = boxes[:, :1, 0].ravel(), boxes[:1, :, 1].ravel()
    steps = [str(axis[1] - axis[0]) if len(axis) > 1 else "-" for axis in starts]
    return f"stride {'x'.join(steps)} px" if any(step != "-" for step in steps) else ""


def painted(values: np.ndarray, boxes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The values of the patches as a map of the image's pixels; NaN where no patch is.

    Each patch is drawn as wide as it is; where neighbours overlap, both end in the middle of the overlap.

    Args:
        values: Of each patch, (y x).
        boxes: (y x 4): y0 x0 y1 x1, end exclusive.
        size: Of the image, (height, width).
    """
    if not boxes.size:
        return np.full(size, np.nan)
    rows, columns = (
        _owners(firsts, ends, length)
        for firsts, ends, length in zip((boxes[:, 0, 0], boxes[0, :, 1]), (boxes[:, 0, 2], boxes[0, :, 3]), size, strict=True)
    )
    drawn = np.asarray(values, np.float64)[np.ix_(rows, columns)]
    drawn[rows < 0] = np.nan
    drawn[:, columns < 0] = np.nan
    return drawn


def _owners(firsts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """For each pixel along an axis, the number of the patch that is drawn there, -1 for none."""
    owners = np.full(length, -1)
    middles = [0, *((end + first) // 2 for end, first in zip(ends[:-1], firsts[1:], strict=True)), length]
    for place, (first, end) in enumerate(zip(firsts, ends, strict=True)):
        owners[max(first, middles[place]) : min(end, middles[place + 1])] = place
    return owners


def _classes(result: Occlusion, index: int) -> Image:
    """The most probable class at each position, the target's first, then by how often."""
    label, names = result.label[index], result.classes or {}
    found, counts = np.unique(label, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    order = np.concatenate([order[order == result.targets[index]], order[order != result.targets[index]]])
    rank = np.searchsorted(found, order).argsort()[np.searchsorted(found, label)]
    ranks = painted(np.minimum(rank, _NAMED), result.boxes, result.images.shape[2:])
    paints = np.array([*map(ImageColor.getrgb, (*colors.CLASSES[:_NAMED], colors.CLASSES[-1])), (153, 153, 153)]) / 255
    rgb = paints[np.where(np.isfinite(ranks), ranks, -1).astype(int)]
    legend = [(colors.CLASSES[place], words.named(unit, names.get(str(unit), ""))) for place, unit in enumerate(order[:_NAMED].tolist())]
    shares = [100 * float((label == unit).mean()) for unit in order[:_NAMED]]
    legend = [
        (paint, f"{name}: at {share:.0f} % of the positions" if share >= 1 else f"{name}: at < 1 %")
        for (paint, name), share in zip(legend, shares, strict=True)
    ]
    if len(order) > _NAMED:
        legend.append((colors.CLASSES[-1], f"{len(order) - _NAMED} more"))
    return Image(np.moveaxis(rgb, -1, 0), "most probable class, patch there", legend=tuple(legend))
