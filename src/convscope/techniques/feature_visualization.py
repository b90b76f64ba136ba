"""What a unit looks for: a picture optimized from noise to excite it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from convscope.optimize.ascent import Climbed, Climber, ascend, look_at_start
from convscope.optimize.objectives import Objective, Values, class_evidence, unit
from convscope.optimize.recipes import Recipe, find_recipe
from convscope.progress import task
from convscope.results.feature_visualization import FeatureVisualization
from convscope.results.provenance import technique
from convscope.scope import OUTPUT, Layer, Scope, Units
from convscope.scope.layers import INPUT

AT_ONCE = 16
"""Units that go through the stages together: enough to fill the small stages, few enough to be soon finished."""


ATTEMPTS = 3
"""Starts tried for a unit whose gradient is blocked."""


RELUS = ("ReLU", "ReLU6")


_ObjectiveOf: TypeAlias = Callable[[list[int]], Objective]


@technique
def feature_visualization(
    scope: Scope,
    layer: str,
    units: Units = None,
    *,
    recipe: str | Recipe = "crops",
    seed: int = 0,
    penalty: Objective | None = None,
    **numbers: Any,
) -> FeatureVisualization:
    """What units look for, as pictures optimized from noise.

    x* = argmax over x of mean over positions of A_unit(T(x)), with x written as the recipe says and T its random looks at the picture.

    Args:
        scope: The network.
        layer: Layer name; convolution, batch norm, ReLU, block, or "output" for classes.
        units: Unit numbers (or class names, on "output"): one, a list, a slice, or None for all.
        recipe: "crops" (default), "fourier", "multiscale", "multiscale-sigmoid", "pixels", or a :class:`~convscope.optimize.recipes.Recipe`.
        seed: Seed of all draws. A unit's picture does not depend on what else is asked for.
        penalty: An objective to subtract, e.g. ``1e-4 * objectives.total_variation()``.
        numbers: Numbers of the recipe to replace, e.g. ``steps=64``.

    Returns:
        One picture per unit, with scores re-evaluated in float32 on the final picture as a whole, clipped to [0,1].

    Raises:
        LayerNotFound: Unknown layer.
        UnitNotFound: A unit that the layer does not have.
        BadInput: Unknown recipe or number.

    Source:
        Erhan et al. 2009 (activation maximization); Graetz 2019 ("multiscale"); Chollet 2016 ("pixels"); Olah, Mordvintsev, Schubert
        2017 ("fourier"). "crops" takes the shrinking random crops and noise of Fel et al. 2023 (MACO) to the Fourier image.

    Example:
        >>> import convscope as cs
        >>> seen = cs.feature_visualization(cs.open("textures"), "output", [0], steps=2)
        >>> seen.images.shape
        (1, 3, 224, 224)

    Command line:
        convscope feature-visualization textures output --units 0-3 --set steps=32 --set size=64 --set crop_size=48
        convscope feature-visualization textures output --units chains,spirals --recipe fourier --set steps=16 --set size=64 --out images
    """
    chosen = scope.layers[layer]
    wanted = scope.units(layer, units)
    plan = find_recipe(recipe, **numbers)

    def aim_of(mates: list[int]) -> Objective:
        return unit(layer, mates, reduce=plan.reduce)

    def objective_of(mates: list[int]) -> Objective:
        objective = aim_of(mates)
        if layer == OUTPUT and plan.class_weight:
            objective += plan.class_weight * class_evidence(mates)
        return objective if penalty is None else objective - penalty

    parts: list[_Part] = []
    with task(f"{layer}: {len(wanted)} pictures", len(wanted) * plan.stages * plan.steps) as advance:
        for first in range(0, len(wanted), AT_ONCE):
            parts.append(_visualize(scope, chosen, wanted[first : first + AT_ONCE], plan, seed, aim_of, objective_of, advance))
    return FeatureVisualization(
        images=torch.cat([part.pictures for part in parts]),
        scores=torch.cat([part.scores[0] for part in parts]),
        before_relu=torch.cat([part.scores[1] for part in parts]),
        after_relu=torch.cat([part.scores[2] for part in parts]),
        history=torch.cat([part.history for part in parts]),
        layer=layer,
        units=tuple(wanted),
        labels=scope.unit_labels(layer, wanted),
        status=tuple(status for part in parts for status in part.status),
        reasons=tuple(reason for part in parts for reason in part.reasons),
        manifest={"recipe": asdict(plan), "precision": scope.resolve("optimize")},
    )


@dataclass
class _Part:
    """What one group of units came to; pictures clipped to [0,1], on the CPU; scores as of :func:`_scores`."""

    pictures: Tensor
    history: Tensor
    scores: Tensor
    status: list[str]
    reasons: list[str]


def _visualize(
    scope: Scope, layer: Layer, units: list[int], plan: Recipe, seed: int, aim_of: _ObjectiveOf, objective_of: _ObjectiveOf, advance: Any
) -> _Part:
    """Optimizes a group of units. Those that start without gradient, or do not rise, try again through redirected ReLUs."""
    climbed: dict[int, Climbed] = {}
    scored: list[Tensor] = []
    status: dict[int, tuple[str, str]] = {}
    reasons: dict[int, str] = {}

    def climb(places: list[int], attempt: int, detour: str) -> list[int]:
        """One try for the units at these places of the group; returns the places that failed."""
        climbers = [Climber.of(seed, layer.name, units[place], attempt) for place in places]
        start = look_at_start(scope, climbers, aim_of, plan)  # without penalty: that has a gradient where the unit has none
        going = [index for index in range(len(places)) if detour or not start.blocked[index]]
        failed = [place for index, place in enumerate(places) if index not in going]
        reasons.update(dict.fromkeys(failed, "no gradient at the start"))
        if not going:
            return failed
        done = ascend(scope, [climbers[index] for index in going], objective_of, plan, redirect=bool(detour), advance=advance)
        scored.append(_scores(scope, layer, done.pictures, [units[places[index]] for index in going], plan.reduce))
        for row, index in enumerate(going):
            place = places[index]
            climbed[place] = Climbed(done.pictures[row : row + 1], done.history[row : row + 1])
            reason = reasons.setdefault(place, "the objective did not rise")
            status[place] = ("rescued", f"{reason}; {detour}") if detour else ("converged", "")
            score = float(scored[-1][0, row])
            if not math.isfinite(score):
                status[place] = "stuck", f"the unit's value at the final picture is {score}: the network overflows"
            elif score <= start.scores[index] and not rose(done.history[row]):
                status[place] = "stuck", f"{reason}, from {ATTEMPTS} starts, also through redirected ReLUs: nothing here excites the unit"
                failed.append(place)
        return failed

    failed = climb(list(range(len(units))), 0, "")
    for attempt in range(ATTEMPTS):
        failed = climb(failed, attempt, f"redirected ReLUs for the first steps, start {attempt + 1}") if failed else []
    places = range(len(units))
    pictures = torch.cat([climbed[place].pictures for place in places])
    at_once = len(scored) == 1 and scored[0].shape[1] == len(units)
    return _Part(
        pictures=pictures,
        history=torch.cat([climbed[place].history for place in places]),
        scores=scored[0] if at_once else _scores(scope, layer, pictures, units, plan.reduce),
        status=[status[place][0] for place in places],
        reasons=[status[place][1] for place in places],
    )


def rose(history: Tensor) -> bool:
    """Whether the objective, as the optimization saw it, was higher in the last tenth of the steps than in the first, (steps)."""
    tenth = max(1, len(history) // 10)
    return float(history[-tenth:].mean()) > float(history[:tenth].mean())


def _scores(scope: Scope, layer: Layer, pictures: Tensor, units: list[int], reduce: str) -> Tensor:
    """The recipe's measure of pictures, and their means before and after rectification, (3 unit), in float32."""
    before = layer.name + INPUT if layer.kind in RELUS and layer.pointwise else layer.name

    def measure(part: slice) -> Tensor:
        mates = units[part]
        values = {name: layer.channels_first(value) for name, value in scope.run(pictures[part], [layer.name, before]).items()}
        index = torch.arange(len(mates)), torch.tensor(mates)
        own, raw = (
            values[name][index].flatten(1) if values[name].ndim > 2 else values[name][index][:, None] for name in (layer.name, before)
        )
        scored = unit(layer.name, mates, reduce=reduce).score(Values(values), pictures[part])
        return torch.stack([scored, raw.mean(1), (own if layer.kind in RELUS else own.relu()).mean(1)])

    at_once = scope.fitting(pictures.shape[-2] * pictures.shape[-1])
    with torch.no_grad(), scope.session("float32"):
        return torch.cat([row.float().cpu() for row in scope.in_parts(len(units), at_once, measure)], 1)
