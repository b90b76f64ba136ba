"""What an atlas will take: its files, its size, and the time for its images, forecast before it is made.

How much a page shows is chosen in ``site/content.py`` and ``site/pages.py``; the sizes here were measured with that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.errors import BadInput
from convscope.galleries.atlas import chosen_layers, shown_units
from convscope.galleries.atlas_tables import LARGEST_FOLDER
from convscope.names import OUTPUT, Units
from convscope.optimize.ascent import Job, ascend
from convscope.optimize.recipes import DEFAULT, Recipe, RecipeName, find_recipe
from convscope.results.occlusion import patch_for
from convscope.scope import Scope
from convscope.techniques.feature_visualization import goal_of
from convscope.techniques.occlusion import occlusion

_TIMED, _STEPS = 4, 3
"""Images whose optimization is timed for a forecast, and for how many steps in each stage."""
_PLACES = 169
"""Of the patch of an occlusion map."""
_IMAGE_BYTES, _PHOTO_BYTES, _THUMB_BYTES, _PAGE_BYTES = 10_500, 9_000, 2_600, 9_000
"""Measured on SqueezeNet with the recipe `crops`, for the forecast."""


@dataclass(frozen=True)
class Forecast:
    """What an atlas will take.

    Attributes:
        units: Units with a page, classes included.
        files: Number of files.
        size: Bytes, the survey's tables left out.
        seconds: For all images by feature visualization; the scan is not counted.
        occlusion: Seconds for the occlusion maps.
    """

    units: int
    files: int
    size: int
    seconds: float
    occlusion: float = 0.0

    def __str__(self) -> str:
        line = f"{self.units:,} units and classes, about {self.files:,} files, {self.size / 2**20:.0f} MB and {_duration(self.seconds)}"
        more = f", {_duration(self.occlusion)} for occlusion maps" if self.occlusion else ""
        return f"{line} for images by feature visualization{more}"


def forecast(
    scope: Scope,
    count: int,
    *,
    layers: str | Sequence[str] | None = None,
    units: Units | Mapping[str, Units] = None,
    classes: Units = None,
    recipe: RecipeName | Recipe = DEFAULT,
    copies: int = 1,
    occlusions: int = 0,
    **changes: Any,
) -> Forecast:
    """What an atlas over `count` images will take, by timing one step of optimization here; the rest as for :func:`~convscope.atlas`."""
    names, plan = chosen_layers(scope, layers), find_recipe(recipe, **changes)
    shown = shown_units(scope, names, units, classes)
    total = sum(map(len, shown.values()))
    images = min(count, LARGEST_FOLDER)
    files = total * (1 + copies) + (total - len(shown[OUTPUT])) + 2 * images + 2 * len(shown) + total // 64 + 20
    size = total * copies * _IMAGE_BYTES + images * _PHOTO_BYTES + total * _THUMB_BYTES + (total + images) * _PAGE_BYTES
    hidden = _occlusion_seconds(scope) * min(occlusions, count) if occlusions else 0.0
    return Forecast(total, files, size, _optimization_seconds(scope, shown, plan) * copies, hidden)


def _occlusion_seconds(scope: Scope) -> float:
    """Seconds of the occlusion map of an image, from a coarser one."""
    image = np.full((1, scope.inputs.channel_count, scope.inputs.height, scope.inputs.width), 0.5, np.float32)
    patch = patch_for(image.shape[2], image.shape[3])

    def timed(steps: int) -> tuple[float, int]:
        began = time.monotonic()
        found = occlusion(scope, image, 0, score="logit", patch=patch, stride=steps * patch, verify=0)
        return time.monotonic() - began, found.map.size

    try:
        timed(4)  # the first run makes what later ones reuse
        seconds, places = timed(2)
    except BadInput:  # no classes
        return 0.0
    return seconds / places * _PLACES


def _optimization_seconds(scope: Scope, shown: Mapping[str, Sequence[int]], plan: Recipe) -> float:
    """Seconds for the images of all units: a few steps of each stage, timed at the deepest layer and shared out by work."""
    deepest = max((name for name in shown if shown[name]), key=lambda name: scope.layers[name].position)
    units = list(shown[deepest][:_TIMED])

    def work(name: str) -> float:
        return float(scope.graph.macs(0, (scope.layers[name].node or 0) + 1)) or 1.0

    goal = goal_of(scope, deepest, units, None, None, 1, 0.0, plan)
    jobs = [Job.of(0, deepest, unit) for unit in units]

    def timed(steps: int) -> float:
        began = time.monotonic()
        ascend(scope, jobs, goal.objective_of, plan.changed(steps=steps))
        return time.monotonic() - began

    timed(1)  # the first run makes what later ones reuse
    each = timed(_STEPS) / _STEPS * plan.steps / len(units)
    return sum(len(units) * each * work(name) / work(deepest) for name, units in shown.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
