"""Result of `watch`: what chosen units looked for in a training, and how many units were dead, from look to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from convscope.render.panels import Curves, Group, Image, Line, Panel, Table, View, number
from convscope.results import channels, words
from convscope.results.base import Array, Result, axes
from convscope.results.table import Rows

_MOST_LINES, _MOST_ROWS, _SIDE = 8, 60, 96


@dataclass(frozen=True, eq=False)
class Watch(Result):
    """A training as it was watched: a column for each look. The full images, exemplars and filter health are in the folder of each step.

    Attributes:
        steps: The training step of each look, (look).
        seconds: How long each look took, in seconds, (look).
        scores: Mean over each unit's map at its feature visualization, (unit look).
        dead: Number of units of each layer that are never above zero on the images, (layer look); -1 in layers without a ReLU.
        images: Feature visualizations, reduced, (unit shown c h w) in [0,1], of the looks that the figure shows.
        shown: The training steps of these, (shown).
        names: The units, as layer and number, with class names on "output".
        layers: The layers whose filter health was taken.
        sizes: Their numbers of units.
        trained: Seconds since watching began, looks included.
        failed: Looks that failed, as (step, reason).
        of: How many images the filter health is of.
    """

    tabled: ClassVar[Rows] = Rows("unit look", unit="unit:names", step="look:steps")

    steps: Array = axes("look")
    seconds: Array = axes("look", unit="s")
    scores: Array = axes("unit look", unit="activation")
    dead: Array = axes("layer look")
    images: Array = axes("unit shown c h w", "image")
    shown: Array = axes("shown")
    names: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    trained: float = 0.0
    failed: tuple[tuple[int, str], ...] = ()
    of: int = 0

    @property
    def share(self) -> float:
        """The share of the time since watching began that went into looks, in [0,1]."""
        return float(self.seconds.sum() / self.trained) if self.trained > 0 else 0.0

    def cost(self) -> str:
        """What watching took, in a line."""
        looks = words.plural(len(self.steps), "look")
        return f"{looks} in {self.seconds.sum():.1f} s: {100 * self.share:.1f} % of the {self.trained:.0f} s since watching began"

    def summary(self) -> str:
        """What watching took, the dead units at the last look, and looks that failed."""
        lines = [self.cost()]
        counts = [(name, int(self.dead[row, -1]), int(self.dead[row, 0])) for row, name in enumerate(self.layers)]
        lines += [f"{name}: {last} dead, {first} at step {self.steps[0]}" for name, last, first in counts if max(last, first) > 0]
        if not any(max(last, first) > 0 for _, last, first in counts):
            lines.append(f"no unit is dead on {self.of} images")
        lines += [f"step {step} was not looked at: {reason}" for step, reason in self.failed]
        return "\n".join(lines)

    def view(self) -> View:
        """A row of images for each unit, a column for each look; then dead units by step."""
        rows: list[Panel] = []
        place = {int(step): index for index, step in enumerate(self.steps)}
        for unit, name in enumerate(self.names):
            tiles = [
                Image(channels.shown(self, self.images[unit, column]), f"step {step}", number(self.scores[unit, place[int(step)]]))
                for column, step in enumerate(self.shown)
            ]
            rows.append(Group(tuple(tiles), max(len(tiles), 1), name, side=_SIDE))
        note = words.note(
            "Number below an image: mean of the unit's map at it.",
            f"{len(self.shown)} of {len(self.steps)} looks are shown." if len(self.shown) < len(self.steps) else "",
            f"Dead: never above zero on these {words.plural(self.of, 'image')}.",
            f"{self.cost()}.",
            f"{words.plural(len(self.failed), 'look')} failed." if self.failed else "",
            channels.note(self, self.images.shape[2]),
        )
        return View("Watched training", (*rows, *_health(self)), subtitle=words.subtitle(self, words.recipe(self.manifest)), note=note)


def _health(result: Watch) -> list[Panel]:
    """Dead units by step, of the layers with most of them, and a table of first and last look."""
    most = result.dead.max(1, initial=0)
    concerned = [int(row) for row in np.argsort(-most, kind="stable") if most[row] > 0]
    rows = [
        (result.layers[row], str(result.sizes[row]), str(result.dead[row, 0]), str(result.dead[row, -1])) for row in concerned[:_MOST_ROWS]
    ]
    if not rows:
        return []
    table = Table(("layer", "units", f"dead at step {result.steps[0]}", f"at step {result.steps[-1]}"), tuple(rows), "dead units")
    if len(result.steps) < 2:
        return [table]
    drawn = concerned[:_MOST_LINES]
    lines = tuple(
        Line(result.layers[row], result.steps, 100 * result.dead[row] / result.sizes[row], color) for color, row in enumerate(drawn)
    )
    return [Curves(lines, "dead units", "training step", "% of the layer's units", width=620), table]
