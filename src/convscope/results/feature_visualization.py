"""Feature visualizations as a contact sheet: unit and class, picture, score; units that found nothing are marked with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from convscope.render.panels import Image, View, number
from convscope.results import words
from convscope.results.base import Array, Result, axes


@dataclass(frozen=True, eq=False)
class FeatureVisualization(Result):
    """One picture per unit.

    Attributes:
        images: The pictures, (unit rgb h w) in [0,1].
        scores: What the recipe maximizes (the mean over the unit's map), at the final picture, in float32, (unit).
        before_relu: Mean over the map before rectification, (unit): the ReLU's input where the layer is a ReLU, else the value itself.
        after_relu: Mean over the map after rectification, (unit).
        history: The objective at every step of the optimization, as it saw the picture, (unit step).
        layer: The layer's name.
        units: Unit numbers.
        labels: Class names on the output layer, "" elsewhere.
        status: "converged"; "rescued": the start had no gradient, but a detour helped; "stuck": the picture means nothing.
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

    def view(self) -> View:
        """A tile per unit."""
        tiles = tuple(_tile(self, index) for index in range(len(self.images)))
        stuck = [unit for unit, status in zip(self.units, self.status, strict=True) if status == "stuck"]
        rescued = sum(status == "rescued" for status in self.status)
        parts = [f"{len(tiles)} units"]
        if rescued:
            parts.append(f"{rescued} rescued")
        if stuck:
            named = f" ({', '.join(map(str, stuck))})" if len(stuck) <= _SPELLED else ""
            parts.append(f"{len(stuck)} stuck{named}: the picture is not what the unit looks for")
        note = "Number below a tile: the mean of the layer's value at the final picture. " + "; ".join(parts) + "."
        return View(words.title(self), tiles, columns=None, subtitle=words.provenance(self), note=note)


_SPELLED = 12


def _tile(result: FeatureVisualization, index: int) -> Image:
    label = result.labels[index] if index < len(result.labels) else ""
    title = f"{result.units[index]} {label}" if label else f"unit {result.units[index]}"
    status, reason = result.status[index], result.reasons[index]
    caption = number(result.scores[index]) + (" · rescued" if status == "rescued" else "")
    marked = (f"stuck: {reason}" if reason else "stuck") if status == "stuck" else None
    return Image(result.images[index], title, caption, marked)
