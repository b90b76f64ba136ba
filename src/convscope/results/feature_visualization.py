"""Feature visualizations: for each unit an image optimized from noise that maximizes its activation."""

from __future__ import annotations

from dataclasses import dataclass

from convscope.render.panels import Image, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes

_SPELLED = 12
"""Most units that are listed by number in the note."""

_LINES = 12
"""Most units with a line of their own in the summary."""


@dataclass(frozen=True, eq=False)
class FeatureVisualization(Result):
    """One image per unit.

    Attributes:
        images: The images, (unit rgb h w) in [0,1].
        scores: What the recipe maximizes (the mean over the unit's map), at the final image, in float32, (unit).
        before_relu: Mean over the map before rectification, (unit): the ReLU's input where the layer is a ReLU, else the value itself.
        after_relu: Mean over the map after rectification, (unit).
        history: The objective at every step of the optimization, of the transformed image, (unit step).
        layer: The layer's name.
        units: Unit numbers.
        labels: Class names on the output layer, "" elsewhere.
        status: "converged"; "rescued": it took redirected ReLUs or another start; "stuck": the image means nothing.
        reasons: Why, where the status is not "converged".
    """

    images: Array = axes("unit rgb h w", "image")
    scores: Array = axes("unit", unit="activation")
    before_relu: Array = axes("unit", unit="activation")
    after_relu: Array = axes("unit", unit="activation")
    history: Array = axes("unit step", "series", unit="activation")
    layer: str = ""
    units: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def summary(self) -> str:
        """How many units converged, and the score of each of the first units."""
        counts = ", ".join(f"{self.status.count(status)} {status}" for status in dict.fromkeys(self.status))
        lines = [f"{words.plural(len(self.units), 'unit')} of {self.layer}: {counts}"]
        for row in range(min(len(self.units), _LINES)):
            reason = f" ({self.reasons[row]})" if self.reasons[row] else ""
            lines.append(f"{_title(self, row)}: {self.scores[row]:.3g}, {self.status[row]}{reason}")
        if len(self.units) > _LINES:
            lines.append(f"... and {len(self.units) - _LINES} more units")
        return "\n".join(lines)

    def view(self) -> View:
        """A tile per unit with its score; units that are stuck are marked with the reason."""
        tiles = tuple(_tile(self, row) for row in range(len(self.images)))
        stuck = [unit for unit, status in zip(self.units, self.status, strict=True) if status == "stuck"]
        rescued = self.status.count("rescued")
        listed = f" ({', '.join(map(str, stuck))})" if len(stuck) <= _SPELLED else ""
        counts = [
            f"{len(tiles)} units",
            f"{rescued} rescued" if rescued else "",
            f"{len(stuck)} stuck{listed}: not optimized, the image means nothing" if stuck else "",
        ]
        note = f"Number below a tile: the mean of the unit's map at the final image. {'; '.join(filter(None, counts))}."
        return View(words.title(self), tiles, columns=None, subtitle=words.subtitle(self), note=note)


def _title(result: FeatureVisualization, row: int) -> str:
    label = result.labels[row] if row < len(result.labels) else ""
    return words.named(result.units[row], label) if label else f"unit {result.units[row]}"


def _tile(result: FeatureVisualization, row: int) -> Image:
    status, reason = result.status[row], result.reasons[row]
    caption = number(result.scores[row]) + (" · rescued" if status == "rescued" else "")
    marked = (f"stuck: {reason}" if reason else "stuck") if status == "stuck" else None
    return Image(result.images[row], _title(result, row), caption, marked)
