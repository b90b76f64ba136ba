"""Result of `integrated_gradients`: how much each pixel adds to a class's logit on the way from a baseline to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Group, Image, Panel, Signed, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

_SIDE, _MOST = 260, 24
_FULL = 99.0
"""Percentile of a map's magnitudes that is drawn in full colour: a few pixels far above all others would leave the rest white."""


@dataclass(frozen=True, eq=False)
class IntegratedGradients(ImageResult):
    """Attributions of images, in logits.

    Attributes:
        map: What each pixel adds to the logit, summed over colour channels, (n h w).
        images: The images as the network was fed them, (n c h w) in [0,1].
        logit: The class's logit at the image, (n).
        baseline_logit: The same at the baseline, (n).
        probability: The probability of the class, (n).
        targets: The class of each image.
        names: Names of the images.
        target_names: Names of the classes, "" where they are not known.
        baseline: The baseline.
        steps: Points at which the derivative was taken.
    """

    tabled: ClassVar[Rows] = Rows("n", image="n:names", target="n:targets", target_name="n:target_names")

    map: Array = axes("n h w", "signed", unit="logit")
    images: Array = axes("n c h w", "image")
    logit: Array = axes("n")
    baseline_logit: Array = axes("n")
    probability: Array = axes("n")
    targets: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    baseline: str = "mean"
    steps: int = 32

    def gap(self) -> np.ndarray:
        """How far the map's sum is from logit - baseline_logit, which it equals for infinitely many steps, as a share of that; (n)."""
        rise = (self.logit - self.baseline_logit).astype(np.float64)
        return np.abs(self.map.sum((1, 2), dtype=np.float64) - rise) / np.maximum(np.abs(rise), 1e-12)

    def summary(self) -> str:
        """For each image the class, its logit at the image and at the baseline, and how far the map's sum is off."""
        lines = [
            f"{name}: {self._target(index)} {100 * self.probability[index]:.1f} %, logit {number(self.baseline_logit[index])} at the "
            f"baseline, {number(self.logit[index])} at the image; the map's sum is {100 * self.gap()[index]:.1f} % off"
            for index, name in enumerate(self.names)
        ]
        return self.with_skipped("\n".join(lines), "\n")

    def _target(self, index: int) -> str:
        return words.named(self.targets[index], self.target_names[index])

    def view(self) -> View:
        """A group for each image: the image and the map."""
        shown = min(len(self.map), _MOST)
        rows = tuple(Group(self._row(index), 2, title=self.names[index], side=_SIDE) for index in range(shown))
        note = words.note(
            "Map: what each pixel adds to the class's logit on a straight way from the baseline to the image: the mean of the derivative "
            "on it, times the change of the pixel. Red raises the logit, blue lowers it; its sum is the logit's rise.",
            f"Off: how far the sum is from that rise; more steps than {self.steps} bring it down.",
            f"Full colour: the {_FULL:g}th percentile of each map's magnitudes. Single pixels are noisy: look at regions, "
            "and hold them against occlusion.",
            channels.note(self, self.images.shape[1]),
            f"Shown: the first {shown} of {len(self.map)} images." if shown < len(self.map) else "",
        )
        subtitle = f"{words.subtitle(self)} · baseline {self.baseline} · {self.steps} steps"
        return View("Integrated gradients", rows, 2, subtitle=subtitle, note=self.with_skipped(note))

    def _row(self, index: int) -> tuple[Panel, ...]:
        pixels, values = channels.backdrop(self, self.images[index]), self.map[index]
        full = float(np.percentile(np.abs(values), _FULL)) or float(np.abs(values).max()) or 1.0
        drawn = np.clip(values, -full, full)
        rise = f"logit {number(self.baseline_logit[index])} to {number(self.logit[index])}; off by {100 * self.gap()[index]:.1f} %"
        return (
            Image(pixels, f"{self._target(index)} {100 * self.probability[index]:.1f} %"),
            Image(np.ones_like(pixels), "integrated gradients", rise, heat=Signed(drawn, unit="logit")),
        )
