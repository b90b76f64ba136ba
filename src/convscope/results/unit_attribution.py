"""Result of `unit_attribution`: what each unit of a layer adds to a class's score, estimated and measured."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np

from convscope.render.panels import Group, Image, Interval, Intervals, Signed, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, ImageResult, axes
from convscope.results.table import Rows

SHOWN = 6
"""Images that a result keeps for its figure."""

_SIDE, _TILES, _TARGETS = 150, 6, 3
_LEAST = 0.25
"""Differences between two groups of images are told from this share of the largest effect on."""


@dataclass(frozen=True, eq=False)
class UnitAttribution(ImageResult):
    """What units of a layer add to a class's score, in log-odds (natural logarithm), or in logits against one class.

    Attributes:
        attribution: Activation times derivative of the score, summed over positions, (n unit): an estimate for every unit of the layer.
        activation: Mean over positions, (n unit).
        score: The class's log-odds, or its logit less that of the class it is compared with, (n).
        probability: Of the class, (n).
        effect: The score lost when a unit's map is set to zero, (n measured): positive where the unit raises the class.
        together: The score lost without all units that raise it at once, (n).
        predicted: The predicted class, (n).
        predicted_without: The same without all units that raise the score, (n).
        images: The first images, those predicted as the class before others, (shown c h w) in [0,1].
        maps: Activation times derivative at each position, (shown measured y x); nothing on the last axes for a layer without maps.
        shown: Which images these are, (shown).
        place: Where on the image the maps lie, y0 x0 y1 x1 in its pixels; () for all of it.
        units: The units measured, (measured): those that raise the score first, the strongest effect first; then those that lower it.
        raising: How many of them raise it.
        targets: The class of each image.
        target_names: Names of these classes, "" where they are not known.
        predicted_names: Names of the predicted classes, likewise.
        names: Names of the images.
        layer: The layer's name.
        against: The class compared with; "" for all others.
        method: "cached" (the part above the layer alone was run again) or "full".
        notices: What a reader must know, a sentence each.
    """

    tabled: ClassVar[Rows] = Rows("n measured", image="n:names", unit="measured:units", target="n:targets", target_name="n:target_names")

    attribution: Array = axes("n unit", unit="log-odds")
    activation: Array = axes("n unit", unit="activation")
    score: Array = axes("n", unit="log-odds")
    probability: Array = axes("n")
    effect: Array = axes("n measured", unit="log-odds")
    together: Array = axes("n", unit="log-odds")
    predicted: Array = axes("n")
    predicted_without: Array = axes("n")
    images: Array = axes("shown c h w", "image")
    maps: Array = axes("shown measured y x", "signed", unit="log-odds per position")
    shown: Array = axes("shown")
    place: tuple[float, ...] = ()
    units: tuple[int, ...] = ()
    raising: int = 0
    targets: tuple[int, ...] = ()
    target_names: tuple[str, ...] = ()
    predicted_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    layer: str = ""
    against: str = ""
    method: str = "cached"
    notices: tuple[str, ...] = ()

    @property
    def own(self) -> np.ndarray:
        """Which images are predicted as the class, (n)."""
        return self.predicted == np.array(self.targets)

    def mean(self, own: bool = True) -> np.ndarray:
        """Mean effect of the units measured over the images predicted as the class, or over all others, (measured); NaN without any."""
        rows = self.own if own else ~self.own
        return self.effect[rows].mean(0) if rows.any() else np.full(len(self.units), np.nan)

    def summary(self) -> str:
        """The units that raise and lower the class, with the score lost without each, and what is predicted without all that raise it."""
        lines = [f"{self._question()}: score lost without a unit of {self.layer} ({self._measure()})"]
        for title, chosen in (("raised by", range(self.raising)), ("lowered by", range(self.raising, len(self.units)))):
            lines += [f"  {title} unit {self.units[place]}: {self._effects(place)}" for place in chosen]
        if not self.raising:
            lines.append("  no unit of the layer raises it")
        else:
            lines += [*self._differences(), self._without()]
        return self.with_skipped("\n".join([*lines, *self.notices, *self._next()]), "\n")

    def _next(self) -> list[str]:
        """Commands that ask the next questions about the units that raise the class."""
        network: Mapping[str, Any] = self.manifest.get("network", {})
        name, weights = str(network.get("name", "")), str(network.get("weights") or "")
        if not self.raising or not name:
            return []
        given = f" --weights {shlex.quote(weights)}" if weights not in ("", "pretrained") else ""
        about = f"{shlex.quote(name)} {shlex.quote(self.layer)}"
        units = ",".join(map(str, self.units[: self.raising]))
        return [
            "which images of a scan they fire on, and what a labelled folder loses without them:",
            f"  convscope exemplars SURVEY {shlex.quote(self.layer)} --units {units}",
            f"  convscope knockout {about} {shlex.quote(self._labelled())} --units {units}{given}",
            f"what they look for: convscope feature-visualization {about} --units {units}{given}",
        ]

    def _labelled(self) -> str:
        """The folder that the folder of a label lies in; a placeholder where the images were given otherwise."""
        parameters: Mapping[str, Any] = self.manifest.get("parameters", {})
        given = parameters.get("images")
        if not isinstance(given, str) or len(self.names) < 2 or "://" in given or PurePath(given).suffix:
            return "PHOTOS"
        return str(PurePath(given).parent)

    def _target(self) -> str:
        found = list(dict.fromkeys(words.named(*each) for each in zip(self.targets, self.target_names, strict=True)))
        return words.listed(found, _TARGETS)

    def _question(self) -> str:
        return self._target() + (f" rather than {self.against}" if self.against else "")

    def _measure(self) -> str:
        own, count = int(self.own.sum()), len(self.names)
        what = "logit difference" if self.against else "log-odds"
        if own == count:
            return f"{what}; {self.names[0]}" if count == 1 else f"{what}; mean over {count} images, all predicted as it"
        if own == 0:
            return f"{what}; mean over {words.plural(count, 'image')}, none predicted as it"
        return f"{what}; mean over the {own} of {count} images predicted as it | over the other {count - own}"

    def _effects(self, place: int) -> str:
        base, rest = (self.mean(each)[place] for each in (True, False))
        if not self.own.any():
            return f"{rest:.2f}"
        return f"{base:.2f}" + ("" if self.own.all() else f" | {rest:.2f}")

    def _differences(self) -> list[str]:
        """Which units that raise the class do so more on the images predicted as it, and which more on the others; a line each."""
        if not self.own.any() or self.own.all():
            return []
        more = self.mean()[: self.raising] - self.mean(own=False)[: self.raising]
        order = np.argsort(-np.abs(more), kind="stable")
        least, lines = _LEAST * float(np.abs(self.mean()[: self.raising]).max()), list[str]()
        for where, sign in (("the images predicted as it (the others lack what they see)", 1), ("the other images", -1)):
            units = [self.units[place] for place in order if sign * more[place] > least]
            if units:
                lines.append(f"  more on {where}: {words.listed(units, 12)}")
        return lines

    def _without(self) -> str:
        rows = self.own if self.own.any() else np.ones(len(self.names), bool)
        count, still = int(rows.sum()), int((self.predicted_without == np.array(self.targets))[rows].sum())
        units = words.listed(self.units[: self.raising], 12)
        text = f"without units {units} together {self.together[rows].mean():.2f} is lost"
        if not self.own.any():
            return text
        if count == 1:
            return f"{text}: the prediction {'stays' if still else 'changes'}"
        return f"{text}: {still} of these {count} images are still predicted as it"

    def view(self) -> View:
        """For each image the maps of the units that raise the class; effects of all units measured, as a chart and a table."""
        height = self.maps.shape[2]
        tiles: list[Image] = []
        shown = min(self.raising, _TILES)
        reach = float(np.abs(self.maps[:, :shown]).max(initial=0)) or 1.0
        for place, row in enumerate(self.shown.tolist()):
            pixels = channels.backdrop(self, self.images[place])
            said = words.named(int(self.predicted[row]), self.predicted_names[row])
            tiles.append(Image(pixels, words.stem(self.names[row]), f"predicted: {said}"))
            for unit in range(shown if height else 0):
                heat = Signed(self.maps[place, unit], unit="log-odds per position", limits=(-reach, reach), place=self.place)
                tiles.append(Image(pixels, f"unit {self.units[unit]}", f"{self.effect[row, unit]:+.2f}", heat=heat))
        sheet = Group(tuple(tiles), (shown if height else 0) + 1 if height else None, side=_SIDE)
        note = words.note(
            f"Score: {'the logit of the class less that of ' + self.against if self.against else 'log-odds of the class, log p/(1-p)'}.",
            "Number below a tile: the score lost when the unit is set to zero, measured. Colour: activation times slope at each place;"
            f" red raises the class, blue lowers it, full at {number(reach)} in all tiles."
            if height
            else "",
            "Estimate: activation times slope, summed over positions; lost without it: measured by setting the unit to zero.",
            *self.notices,
            channels.note(self, self.images.shape[1]),
            f"Shown: {len(self.shown)} of {len(self.names)} images." if len(self.shown) < len(self.names) else "",
        )
        title = f"Units of {self.layer} behind {self._question()}"
        return View(title, (sheet, *self._effects_panels()), subtitle=words.subtitle(self), note=self.with_skipped(note))

    def _effects_panels(self) -> tuple[Intervals | Table, ...]:
        if not self.units:
            return ()
        rows = tuple(f"unit {unit}" for unit in self.units)
        groups = [("predicted as it", self.own, 1), ("other images", ~self.own, 0)]
        groups = [(name, chosen, color) for name, chosen, color in groups if chosen.any()]
        series = tuple(
            Interval(f"{name} ({words.plural(int(chosen.sum()), 'image')})", _middle(self.effect[chosen]), color)
            for name, chosen, color in groups
        )
        spread = "; bar: the middle half of the images" if len(self.names) > 1 else ""
        chart = Intervals(
            rows, series, "score lost without each unit", f"{'logit difference' if self.against else 'log-odds'}, mean{spread}", zero=True
        )
        cells: list[tuple[str, ...]] = []
        for place, unit in enumerate(self.units):
            found = [(self.attribution[chosen, unit].mean(), self.effect[chosen, place].mean()) for _, chosen, _ in groups]
            cells.append((str(unit), *(f"{value:.2f}" for pair in found for value in pair)))
        header = ("unit", *(f"{word}, {name}" for name, _, _ in groups for word in ("estimate", "lost without it")))
        return chart, Table(header, tuple(cells))


def _middle(values: np.ndarray) -> np.ndarray:
    """Mean and quartiles over images, (n unit) -> (unit 3); of one image the value alone."""
    ends = np.quantile(values, [0.25, 0.75], axis=0) if len(values) > 1 else np.full((2, values.shape[1]), np.nan)
    return np.stack([values.mean(0), *ends], 1)
