"""Result of `alarm`: scores of single images against thresholds, and where in each image the score comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Group, Image, Interval, Intervals, Panel, Signed, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.detector import METHODS, NAMES
from convscope.results.table import Rows

_MOST, _SIDE, _LISTED = 24, 232, 40
_WITH_EVIDENCE = ("maps", "probe")


@dataclass(frozen=True, eq=False)
class Alarm(ImageResult):
    """What a detector says of each image.

    Attributes:
        scores: Score of each image for each class by each method of the detector, (method n label).
        alarms: Whether the score is above the threshold, (method n label).
        thresholds: The detector's, (method label).
        spread: Standard deviation of the scores of its validation images, (method label).
        evidence: What each position adds to the score, by maps and probe, (linear n label y x); the score is the mean over positions.
        images: The images as the network was fed them, (n c h w) in [0,1].
        names: Names of the images.
        classes: The classes that alarms are for.
        layer: The layer's name.
        method: The method that decides, an index into maps, output, probe.
        place: Where on the image the evidence lies, y0 x0 y1 x1 in its pixels; () for all of it.
    """

    tabled: ClassVar[Rows] = Rows("method n label", method=METHODS, image="n:names", label="label:classes")

    scores: Array = axes("method n label", unit="score")
    alarms: Array = axes("method n label")
    thresholds: Array = axes("method label", unit="score")
    spread: Array = axes("method label", unit="score")
    evidence: Array = axes("linear n label y x", "signed", unit="score")
    images: Array = axes("n c h w", "image")
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    layer: str = ""
    method: int = 0
    place: tuple[float, ...] = ()

    def sounded(self) -> tuple[tuple[str, ...], ...]:
        """The classes that each image raises an alarm for, by the method that decides."""
        return tuple(tuple(name for name, on in zip(self.classes, row, strict=True) if on) for row in self.alarms[self.method])

    def summary(self) -> str:
        """For each image and class, whether there is an alarm, and the score against the threshold."""
        lines: list[str] = []
        for image, name in enumerate(self.names):
            said = [f"{self._said(image, column)} ({self._against(image, column)})" for column in range(len(self.classes))]
            lines.append(f"{name}: {'; '.join(said)}")
        return self.with_skipped("\n".join(lines), "\n")

    def view(self) -> View:
        """A row of the image and its evidence for each class; how far scores are above thresholds; a table of all methods."""
        shown = min(len(self.names), _MOST)
        panels: list[Panel] = [Group(tuple(self._tiles(shown)), len(self.classes) + 1, side=_SIDE), _margins(self, shown), _table(self)]
        linear = "probe" if METHODS[self.method] == "probe" else "maps"
        note = words.note(
            f"An alarm is a score above the threshold, by the {NAMES[METHODS[self.method]]}.",
            f"Over the image: what each position adds to the score by the {NAMES[linear]}, less the threshold; its mean over positions is",
            "score - threshold, so red argues for the alarm and blue against it.",
            "Thresholds are those of the detector, chosen on its validation images.",
            channels.note(self, self.images.shape[1]),
            f"Shown: the first {shown} of {len(self.names)} images." if shown < len(self.names) else "",
        )
        subtitle = words.subtitle(self, f"decided by the {NAMES[METHODS[self.method]]}")
        return View("Alarm", tuple(panels), subtitle=subtitle, note=self.with_skipped(note))

    def _said(self, image: int, column: int) -> str:
        return f"{'ALARM' if self.alarms[self.method, image, column] else 'no alarm'} for {self.classes[column]}"

    def _against(self, image: int, column: int) -> str:
        return f"score {number(self.scores[self.method, image, column])}, threshold {number(self.thresholds[self.method, column])}"

    def _tiles(self, shown: int) -> list[Image]:
        row = _WITH_EVIDENCE.index("probe" if METHODS[self.method] == "probe" else "maps")
        above = self.evidence[row] - self.thresholds[METHODS.index(_WITH_EVIDENCE[row])][:, None, None]
        tiles: list[Image] = []
        for image in range(shown):
            pixels = channels.backdrop(self, self.images[image])
            tiles.append(Image(pixels, self.names[image]))
            for column in range(len(self.classes)):
                heat = Signed(above[image, column], unit="evidence less threshold", place=self.place)
                marked = f"alarm: {self.classes[column]}" if self.alarms[self.method, image, column] else None
                tiles.append(Image(pixels, self._said(image, column), self._against(image, column), marked, heat))
        return tiles


def _margins(result: Alarm, shown: int) -> Intervals:
    """How far each score is above its threshold, by each method, in standard deviations of the detector's validation scores."""
    spread = np.where(result.spread > 0, result.spread, 1)
    margins = ((result.scores - result.thresholds[:, None]) / spread[:, None])[:, :shown].reshape(len(METHODS), -1)
    rows = tuple(f"{name}: {label}" for name in result.names[:shown] for label in result.classes)[:_LISTED]
    order = [result.method, *(place for place in range(len(METHODS)) if place != result.method)]
    nothing = np.full((len(rows), 2), np.nan)
    series = tuple(
        Interval(
            NAMES[METHODS[place]], np.concatenate([margins[place, : len(rows), None], nothing], 1), 1 if place == result.method else color
        )
        for color, place in zip((1, 0, 7), order, strict=True)
    )
    return Intervals(rows, series, "scores above (right) or below their thresholds", "standard deviations of validation scores", zero=True)


def _table(result: Alarm) -> Table:
    rows: list[tuple[str, ...]] = []
    for image, name in enumerate(result.names):
        for column, label in enumerate(result.classes):
            cells = [name, label]
            for place in range(len(METHODS)):
                on = "ALARM" if result.alarms[place, image, column] else "no"
                cells += [f"{on}: {number(result.scores[place, image, column])} / {number(result.thresholds[place, column])}"]
            rows.append(tuple(cells))
    header = ("image", "class", *(f"{NAMES[name]}: score / threshold" for name in METHODS))
    return Table(header, tuple(rows[:_LISTED]), words.first(_LISTED, len(rows), "rows"))
