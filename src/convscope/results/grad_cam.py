"""Result of `grad_cam`: where the units that raise a class score are active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Group, Heat, Image, Panel, Signed, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.map_overlay import enlarged
from convscope.results.table import Rows

_SIDE, _MOST = 260, 24


@dataclass(frozen=True, eq=False)
class GradCam(ImageResult):
    """Grad-CAM maps of images.

    Attributes:
        map: The map of each image at the layer's own size, (n y x).
        images: The images as the network was fed them, (n c h w) in [0,1].
        probability: The probability of the class, (n).
        drop: Occlusion sensitivity of the same class, (shown h w); none if it was not asked for.
        place: Where on the image the maps lie, y0 x0 y1 x1 in its pixels; () for all of it.
        targets: The class of each image.
        names: Names of the images.
        target_names: Names of the classes, "" where they are not known.
        layer: The layer's name.
        relu: Whether negative values were cut off.
    """

    tabled: ClassVar[Rows] = Rows("n", image="n:names", target="n:targets", target_name="n:target_names")

    map: Array = axes("n y x", "heat", unit="weighted activation")
    images: Array = axes("n c h w", "image")
    probability: Array = axes("n")
    drop: Array = axes("shown h w", "signed", unit="drop of the probability")
    place: tuple[float, ...] = ()
    targets: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    layer: str = ""
    relu: bool = True

    def at_image_size(self) -> np.ndarray:
        """The maps enlarged bilinearly to the images, each cell where its receptive field is, (n h w)."""
        height, width = self.images.shape[2:]
        return enlarged(self.map, height, width, self.place)

    def agreement(self) -> np.ndarray:
        """Spearman's rank correlation of the map and occlusion's drop over the image's pixels, (n); NaN without occlusion."""
        from scipy.stats import rankdata

        if not len(self.drop):
            return np.full(len(self.map), np.nan)
        found: list[float] = []
        for one, two in zip(self.at_image_size(), self.drop, strict=True):
            there = np.isfinite(two)
            ranks = [rankdata(values[there]) for values in (one, two)]
            flat = min(values.std() for values in ranks) == 0
            found.append(float("nan") if flat else float(np.corrcoef(ranks[0], ranks[1])[0, 1]))
        return np.array(found)

    def summary(self) -> str:
        """For each image the class, its probability, where the map is highest, and how far occlusion agrees."""
        lines: list[str] = []
        for index, name in enumerate(self.names):
            agrees = f", rank agreement with occlusion {self.agreement()[index]:.2f}" if len(self.drop) else ""
            empty = " (the map is empty: no unit of the layer raises this class here)" if self.map[index].max() <= 0 else ""
            peak = "" if empty else f", highest in {self._peak(index)}"
            lines.append(f"{name}: {self._target(index)} {100 * self.probability[index]:.1f} %{peak}{agrees}{empty}")
        return self.with_skipped("\n".join(lines), "\n")

    def _peak(self, index: int) -> str:
        """The rows and columns of the image that the map's highest cell stands for."""
        cell = np.unravel_index(self.map[index].argmax(), self.map[index].shape)
        size = self.images.shape[2:]
        top, left, bottom, right = self.place or (0, 0, *size)
        sides = zip(cell, self.map.shape[1:], ((top, bottom), (left, right)), size, strict=True)
        (y0, y1), (x0, x1) = (_pixels(int(at), count, ends, side) for at, count, ends, side in sides)
        return f"rows {y0}-{y1}, columns {x0}-{x1}"

    def _target(self, index: int) -> str:
        return words.named(self.targets[index], self.target_names[index])

    def view(self) -> View:
        """A row for each image: the image, the map over it, and occlusion's drop if it was computed."""
        shown = min(len(self.map), _MOST)
        rows = tuple(Group(self._row(index), 3, title=self.names[index], side=_SIDE) for index in range(shown))
        width = 2 if not len(self.drop) else 1
        sign = "negative values are cut off" if self.relu else "blue lowers it"
        note = words.note(
            f"Map: units of {self.layer}, each weighted by the mean slope of the class's logit, summed; {sign}.",
            f"It is as coarse as the layer ({'x'.join(map(str, self.map.shape[1:]))}), enlarged bilinearly.",
            "Full colour: each map's own largest value.",
            "Occlusion measures what the probability loses where a patch hides the image; agreement is Spearman's over pixels."
            if len(self.drop)
            else "It is a local linear estimate: occlusion measures what really happens when parts are hidden.",
            channels.note(self, self.images.shape[1]),
            f"Shown: the first {shown} of {len(self.map)} images." if shown < len(self.map) else "",
        )
        return View("Grad-CAM", rows, width, subtitle=words.subtitle(self), note=self.with_skipped(note))

    def _row(self, index: int) -> tuple[Panel, ...]:
        pixels, heat = channels.backdrop(self, self.images[index]), Heat if self.relu else Signed
        over = heat(self.map[index], unit="weighted activation", place=self.place)
        caption = f"up to {number(self.map[index].max())}"
        tiles = [
            Image(pixels, f"{self._target(index)} {100 * self.probability[index]:.1f} %"),
            Image(pixels, "Grad-CAM", caption, marked="empty" if self.map[index].max() <= 0 else None, heat=over),
        ]
        if len(self.drop):
            drop = np.nan_to_num(self.drop[index])
            caption = f"up to {number(np.abs(drop).max())}; rank agreement {self.agreement()[index]:.2f}"
            tiles.append(Image(pixels, "occlusion: drop", caption, heat=Signed(drop, unit="drop of the probability")))
        return tuple(tiles)


def _pixels(cell: int, count: int, ends: tuple[float, float], side: int) -> tuple[int, int]:
    """First and last pixel of one of `count` cells between `ends`, inside an image of `side` pixels."""
    begin, end = (int(ends[0] + (cell + more) * (ends[1] - ends[0]) / count) for more in (0, 1))
    return min(max(begin, 0), side - 1), min(max(end - 1, 0), side - 1)
