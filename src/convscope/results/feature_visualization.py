"""Result of `feature_visualization`: images optimized from noise that maximize a unit's activation, or another objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from convscope.render.panels import Image, View, number
from convscope.results import channels, words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

_SPELLED = 12
"""Most units that are listed by number in the note."""

_LINES = 12
FLAT = "flat: no pattern was found that excites the unit more than one colour"
"""Said of an image that is nearly of one colour."""
"""Most images with a line of their own in the summary."""


@dataclass(frozen=True, eq=False)
class FeatureVisualization(Result):
    """An image per unit and copy, unit by unit.

    Attributes:
        images: The images, (image c h w) in [0,1].
        scores: The objective (by default the mean over the unit's map) at the final image, without penalties, in float32, (image).
        before_relu: Mean over the unit's map before the ReLU, (image): the ReLU's input where the layer is a ReLU, else the value itself;
            NaN where the objective is not of one unit.
        after_relu: Mean over the unit's map after the ReLU, (image).
        history: The whole objective at every step of the optimization, of the transformed image, (image step).
        layer: The layer's name.
        units: Unit of each image; None where the objective is not of one unit.
        copies: Copy number of each image, from 0; empty where there is one copy only.
        unit_names: Class names on the output layer, "" elsewhere.
        objectives: The whole objective of each image, as text.
        verdicts: On the layer "output", the class that the network takes each image for, and its probability (softmax).
        verdict_names: Names of these classes.
        status: "converged"; "rescued": it took redirected ReLUs or another start; "stuck": the image means nothing.
        reasons: Why, where the status is not "converged".
    """

    tabled: ClassVar[Rows] = Rows(
        "image",
        unit="image:units",
        copy="image:copies",
        unit_name="image:unit_names",
        objective="image:objectives",
        status="image:status",
        reason="image:reasons",
        seen_as="image:verdict_names",
    )

    images: Array = axes("image c h w", "image")
    scores: Array = axes("image", unit="activation")
    before_relu: Array = axes("image", unit="activation")
    after_relu: Array = axes("image", unit="activation")
    history: Array = axes("image step", "series", unit="activation")
    layer: str = ""
    units: tuple[int | None, ...] = ()
    copies: tuple[int, ...] = ()
    unit_names: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    verdicts: tuple[tuple[int, float], ...] = ()
    verdict_names: tuple[str, ...] = ()

    def summary(self) -> str:
        """How many images converged, and the score of each of the first."""
        counts = ", ".join(f"{self.status.count(status)} {status}" for status in dict.fromkeys(self.status))
        lines = [f"{self._counted()} of {self.layer}: {counts}"]
        for row in range(min(len(self.units), _LINES)):
            reason = f" ({self.reasons[row]})" if self.reasons[row] else ""
            verdict = f"; {_verdict(self, row)}" if self.verdicts else ""
            lines.append(f"{_title(self, row)}: {self.scores[row]:.3g}, {self.status[row]}{reason}{verdict}")
        if len(self.units) > _LINES:
            lines.append(f"... and {len(self.units) - _LINES} more images")
        if flat := self.flat():
            lines.append(f"{FLAT}: {words.listed(flat, 12)}")
        return "\n".join(lines)

    def flat(self) -> tuple[int, ...]:
        """Units of which no pattern was found that excites them more than one colour does: often they fire for any image."""
        return tuple(
            dict.fromkeys(unit for unit, reason in zip(self.units, self.reasons, strict=True) if unit is not None and FLAT in reason)
        )

    def _counted(self) -> str:
        """ "3 units", or "3 units, 12 images" with copies."""
        units = words.plural(len(set(self.units)), "unit")
        return f"{units}, {words.plural(len(self.units), 'image')}" if any(self.copies) else units

    def view(self) -> View:
        """A tile per image with its score; images that are stuck are marked with the reason."""
        tiles = tuple(_tile(self, row) for row in range(len(self.images)))
        stuck = [unit for unit, status in zip(self.units, self.status, strict=True) if status == "stuck"]
        rescued = self.status.count("rescued")
        listed = f" ({', '.join(map(str, stuck))})" if len(stuck) <= _SPELLED else ""
        counts = [
            self._counted(),
            f"{rescued} rescued" if rescued else "",
            f"{len(stuck)} stuck{listed}: not optimized, the image means nothing" if stuck else "",
        ]
        score = "the objective" if self.manifest.get("objective") else "the mean of the unit's map"
        seen_at: list[int] = self.manifest.get("seen_at", [])
        note = words.note(
            f"Number below a tile: {score} at the final image. {'; '.join(filter(None, counts))}.",
            "Percent: the probability of the class that the network takes the image for." if self.verdicts else "",
            f"The network takes no images of this size: it saw them at {'x'.join(map(str, seen_at))} px." if seen_at else "",
            channels.note(self, self.images.shape[1]),
        )
        return View(words.title(self), tiles, columns=None, subtitle=words.subtitle(self, words.recipe(self.manifest)), note=note)


def _title(result: FeatureVisualization, row: int) -> str:
    label = result.unit_names[row] if row < len(result.unit_names) else ""
    unit, copy = result.units[row], result.copies[row] if row < len(result.copies) else 0
    name = result.objectives[row] if unit is None else words.named(unit, label) if label else f"unit {unit}"
    return f"{name}, copy {copy}" if any(result.copies) else name


def _verdict(result: FeatureVisualization, row: int) -> str:
    """ "98 %", or "network: scales 62 %" where that is another class."""
    return words.verdict(result.units[row], *result.verdicts[row], result.verdict_names[row])


def _tile(result: FeatureVisualization, row: int) -> Image:
    status, reason = result.status[row], result.reasons[row]
    caption = (
        number(result.scores[row])
        + (f" · {_verdict(result, row)}" if result.verdicts else "")
        + (" · rescued" if status == "rescued" else "")
        + (" · flat" if FLAT in reason else "")
    )
    marked = (f"stuck: {reason}" if reason else "stuck") if status == "stuck" else None
    return Image(channels.shown(result, result.images[row]), _title(result, row), caption, marked)
