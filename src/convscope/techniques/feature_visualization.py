"""Feature visualization: images optimized from noise to excite a unit, or any other objective."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.graph.operations import DIPS
from convscope.names import OUTPUT, Units, is_whole
from convscope.optimize.ascent import Job, Optimized, ascend, score_start
from convscope.optimize.objective import Objective, Values, grouped, relative
from convscope.optimize.objectives import class_evidence, diversity, unit
from convscope.optimize.recipes import DEFAULT, Recipe, RecipeName, find_recipe
from convscope.progress import task
from convscope.results.feature_visualization import FLAT, FeatureVisualization
from convscope.results.provenance import technique
from convscope.scope import Layer, Scope
from convscope.scope.layers import INPUT

AT_ONCE = 16
"""Images that go through the stages together: enough to fill the small stages, few enough to be soon finished."""
MOST_COPIES, MOST_DIVERSITY = 1000, 1e9
"""Largest values that are taken."""


_FLAT = 0.01
"""Standard deviation over pixels below which an image is of one colour, in all its channels."""
ATTEMPTS = 3
"""Start images tried through redirected ReLUs for a unit whose gradient is blocked."""


RELUS = ("ReLU", "ReLU6")


ObjectiveLike: TypeAlias = Objective | Callable[[int], Objective] | None
"""An objective, a function of a unit number that makes one, or None: the unit's own activation."""


@technique
def feature_visualization(
    scope: Scope,
    layer: str,
    units: Units = None,
    *,
    objective: ObjectiveLike = None,
    penalty: Objective | None = None,
    copies: int = 1,
    diversity: float = 0.0,
    recipe: RecipeName | Recipe = DEFAULT,
    seed: int = 0,
    **changes: Any,
) -> FeatureVisualization:
    """Images optimized from noise to excite units (feature visualization).

    x* = argmax over x of mean over positions of A_unit(T(x)), with x parameterized and transformed (T) as the recipe says.

    Args:
        scope: The network.
        layer: Layer name; convolution, batch norm, ReLU, block, or "output" for classes.
        units: Unit numbers, or class names on "output"; None: all of them.
        objective: What is maximized instead: a function unit -> objective, or one objective, which makes images of its own and takes no
            `units`; see docs/objectives.md.
        penalty: An objective to subtract, e.g. ``1e-4 * objectives.total_variation()``.
        copies: Images per unit, each from its own random draws.
        diversity: Weight of the term that makes the copies of a unit different from one another (Lucid's diversity, at `layer`), relative
            to the unit's activation.
        recipe: "crops" (default), "fourier", "multiscale", "multiscale-sigmoid", "pixels", or a
            :class:`~convscope.optimize.recipes.Recipe`.
        seed: Seed of all draws. A unit's images do not depend on what else is asked for.
        changes: Recipe parameters to replace, e.g. ``steps=64``.

    Returns:
        An image per unit and copy, unit by unit, with scores re-evaluated in float32 on the final image as a whole, clipped to [0,1].

    Raises:
        LayerNotFound: Unknown layer.
        UnitNotFound: A unit that the layer does not have.
        BadInput: Unknown recipe or parameter, an objective that is none, or copies that make no sense.

    Source:
        Erhan et al. 2009 (activation maximization); Graetz 2019 ("multiscale"); Chollet 2016 ("pixels"); Olah, Mordvintsev, Schubert
        2017 ("fourier", objectives, diversity; deviation: its weight is relative to the activation, which is 0.1 in one network and 1000 in
        another). "crops" takes the shrinking random crops and noise of Fel et al. 2023 (MACO) to the Fourier image.

    Example:
        >>> import convscope as cs
        >>> seen = cs.feature_visualization(cs.open("textures"), "output", [0], steps=2)
        >>> seen.images.shape
        (1, 3, 224, 224)

    Command line:
        convscope feature-visualization textures output --units 0-3 --set steps=32 --set size=64 --set crop_size=48
        convscope feature-visualization textures output --units chains,spirals --recipe fourier --set steps=16 --set size=64 --out images
        convscope feature-visualization textures features.20 --units 3 --objective neuron:4,4 --set steps=16 --set size=64 --out neurons
        convscope feature-visualization textures features.20 --units 3 --copies 3 --diversity 0.5 --set steps=8 --set size=64 --out copies
        convscope feature-visualization textures features.13 --objective deepdream --set steps=16 --set size=64 --out dream
    """
    chosen = scope.layers[layer]
    plan = find_recipe(recipe, **changes)
    goal = goal_of(scope, layer, units, objective, penalty, copies, diversity, plan)
    rows = [(number, copy) for number in goal.units for copy in range(copies)]
    batch = at_once(copies) * copies
    parts: list[_Part] = []
    with task(f"{layer}: {len(rows)} images", len(rows) * plan.stages * plan.steps) as advance:
        for first in range(0, len(rows), batch):
            parts.append(_visualize(scope, chosen, rows[first : first + batch], goal, plan, seed, advance))
    numbers = [number for number, _ in rows]
    size = parts[0].images.shape[-2], parts[0].images.shape[-1]
    seen_at = scope.seen_at(size, [layer, *(name for one in (goal.objectives or {}).values() for name in one.layers)])
    return FeatureVisualization(
        images=torch.cat([part.images for part in parts]),
        scores=torch.cat([part.scores[0] for part in parts]),
        before_relu=torch.cat([part.scores[1] for part in parts]),
        after_relu=torch.cat([part.scores[2] for part in parts]),
        history=torch.cat([part.history for part in parts]),
        layer=layer,
        units=tuple(numbers),
        copies=tuple(copy for _, copy in rows),
        unit_names=tuple("" if number is None else scope.unit_names(layer, [number])[0] for number in numbers),
        verdicts=(verdicts := tuple(verdict for part in parts for verdict in _verdicts(part.scores))),
        verdict_names=scope.unit_names(OUTPUT, [winner for winner, _ in verdicts]) if verdicts else (),
        objectives=tuple(str(goal.full(number)) for number in numbers),
        status=tuple(status for part in parts for status in part.status),
        reasons=tuple(reason for part in parts for reason in part.reasons),
        manifest={
            "recipe": plan.describe(),
            "changed": plan.changes(),
            "precision": scope.resolve("optimize"),
            "objective": goal.describe(),
            "penalty": None if penalty is None else penalty.describe(),
        }
        | ({} if seen_at == size else {"seen_at": list(seen_at)})
        | ({"steps_taken": [steps for part in parts for steps in part.taken]} if plan.patience else {}),
    )


@dataclass(frozen=True)
class Goal:
    """What images are optimized for.

    Attributes:
        layer: The layer's name.
        units: The units; a single None for an objective that is not of one unit.
        objectives: The caller's objective for each unit; None: the unit's own activation.
        penalty: See :func:`feature_visualization`.
        copies: See :func:`feature_visualization`.
        diversity: See :func:`feature_visualization`.
        recipe: The recipe.
    """

    layer: str
    units: tuple[int | None, ...]
    objectives: dict[int | None, Objective] | None
    penalty: Objective | None
    copies: int
    diversity: float
    recipe: Recipe

    @property
    def group(self) -> int:
        """So many consecutive images share one objective that compares them: all copies of a unit, or each image by itself."""
        given = [*(self.objectives or {}).values(), *([self.penalty] if self.penalty else [])]
        return self.copies if self.diversity or not all(one.independent for one in given) else 1

    @property
    def penalized(self) -> bool:
        """Whether the objective has a penalty or a diversity term."""
        return self.penalty is not None or self.diversity > 0

    def describe(self) -> list[dict[str, Any]] | None:
        """The caller's objective for each of the units, as JSON holds it."""
        return None if self.objectives is None else [self.objectives[number].describe() for number in self.units]

    def full(self, number: int | None) -> Objective:
        """The whole objective of one unit, for printing."""
        own = unit(self.layer, number or 0, reduce=self.recipe.reduce) if self.objectives is None else self.objectives[number]
        return self._penalized(self._with_evidence(own, number or 0), lambda term: term)

    def score_of(self, jobs: Sequence[Job]) -> Objective:
        """What finished images are scored by, for a batch: the objective without class evidence, penalty and diversity."""
        if self.objectives is None:
            return unit(self.layer, _units(jobs), reduce=self.recipe.reduce)
        return self._grouped([self.objectives[job.unit] for job in jobs[:: self.group]])

    def unpenalized_of(self, jobs: Sequence[Job]) -> Objective:
        """What must rise, for a batch: the objective without penalty and diversity."""
        return self._with_evidence(self.score_of(jobs), _units(jobs))

    def objective_of(self, jobs: Sequence[Job]) -> Objective:
        """What is maximized, for a batch."""
        groups = len(jobs) // self.group
        return self._penalized(self.unpenalized_of(jobs), lambda term: self._grouped([term] * groups))

    def _with_evidence(self, objective: Objective, units: int | list[int]) -> Objective:
        if self.objectives is None and self.layer == OUTPUT and self.recipe.class_weight:
            return objective + self.recipe.class_weight * class_evidence(units)
        return objective

    def _penalized(self, objective: Objective, per_group: Callable[[Objective], Objective]) -> Objective:
        full = objective if self.penalty is None else objective - per_group(self.penalty)
        return full + self.diversity * relative(per_group(diversity(self.layer)), objective) if self.diversity else full

    def _grouped(self, objectives: Sequence[Objective]) -> Objective:
        """One objective for a batch of groups; as it is where it is the same for all and compares no images."""
        first = objectives[0]
        return first if first.independent and all(one is first for one in objectives) else grouped(objectives, self.group)


def goal_of(
    scope: Scope,
    layer: str,
    units: Units,
    objective: ObjectiveLike,
    penalty: Objective | None,
    copies: int,
    diversity: float,
    recipe: Recipe,
) -> Goal:
    """What :func:`feature_visualization` optimizes images for.

    Raises:
        UnitNotFound: A unit that the layer does not have.
        BadInput: An objective that is none, units beside one objective, or copies that make no sense.
    """
    if not is_whole(copies) or not 1 <= copies <= MOST_COPIES:
        raise BadInput(f"copies must be a whole number from 1 to {MOST_COPIES}, got {copies!r}")
    if not isinstance(diversity, (int, float)) or not 0 <= diversity <= MOST_DIVERSITY:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"diversity must be a number from 0 to {MOST_DIVERSITY:g}, got {diversity!r}")
    if diversity and copies == 1:
        raise BadInput(f"diversity={diversity:g} makes the copies of a unit different, so it needs copies=2 or more")
    if not (penalty is None or isinstance(penalty, Objective)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"penalty must be an objective such as 1e-4 * objectives.total_variation(), got {type(penalty).__name__}")
    if isinstance(objective, Objective):
        if units is not None:
            raise BadInput(f"units: {objective} makes images of its own; for images per unit pass a function of the unit as `objective`")
        own = sorted(objective.units.get(layer, ()))
        numbers: tuple[int | None, ...] = (own[0],) if len(own) == 1 else (None,)
        objectives: dict[int | None, Objective] | None = {numbers[0]: objective}
    else:
        numbers = tuple(scope.units(layer, units))
        objectives = None if objective is None else {number: _called(objective, number) for number in scope.units(layer, units)}
    for each in [*(objectives or {}).values(), *([penalty] if penalty else [])]:
        for name in each.layers:
            _ = scope.layers[name]
    return Goal(layer, numbers, objectives, penalty, copies, float(diversity), recipe)


def at_once(copies: int) -> int:
    """Units whose images go through the stages together."""
    return max(1, AT_ONCE // copies)


def _called(function: Callable[[int], Objective], number: int) -> Objective:
    wanted = "objective must be an objective or a function unit -> objective"
    if not callable(function):
        raise BadInput(f"{wanted}, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(number)
    except TypeError as error:
        raise BadInput(f"{wanted}: it cannot be called with a unit number ({error})") from None
    except ValueError:  # a signature that cannot be known beforehand
        pass
    made: Any = function(number)
    if not isinstance(made, Objective):
        raise BadInput(f"{wanted}: for unit {number} it gave {type(made).__name__}")
    return made


def _units(jobs: Sequence[Job]) -> list[int]:
    return [0 if job.unit is None else job.unit for job in jobs]


@dataclass
class _Part:
    """Images that were optimized together, clipped to [0,1], on the CPU; scores as of :func:`_scores`; steps that each took."""

    images: Tensor
    history: Tensor
    taken: list[int]
    scores: Tensor
    status: list[str]
    reasons: list[str]


def _visualize(
    scope: Scope, layer: Layer, rows: list[tuple[int | None, int]], goal: Goal, recipe: Recipe, seed: int, advance: Callable[[int], None]
) -> _Part:
    """Optimizes some images. Those without gradient at the start, or whose objective does not rise, try again through redirected ReLUs.

    So do those of units behind SiLU, GELU, hardswish or Mish that stay below zero: there a value also rises as its input falls. Images
    that share an objective (a group) are tried again together.
    """
    group = goal.group
    operation = "" if layer.node is None else scope.graph.nodes[layer.node].operation
    bends = goal.objectives is None and operation.removesuffix("_") in DIPS
    finished: dict[int, Optimized] = {}
    scored: list[Tensor] = []
    status: dict[int, tuple[str, str]] = {}
    reasons: dict[int, str] = {}

    def attempt(asked: list[int], number: int, detour: str) -> list[int]:
        """One attempt for the images with these row numbers, whole groups; returns those of the groups that failed."""
        jobs = [Job.of(seed, layer.name, *rows[row], number) for row in asked]
        start = score_start(scope, jobs, goal.score_of, recipe, group=group)  # without penalty: that has a gradient where the unit has none
        blocked = {index // group for index in range(len(asked)) if start.blocked[index] and not detour}
        going = [index for index in range(len(asked)) if index // group not in blocked]
        failed = [row for index, row in enumerate(asked) if index // group in blocked]
        reasons.update(dict.fromkeys(failed, "no gradient at the start"))
        if not going:
            return failed
        jobs = [jobs[index] for index in going]
        followed_of = goal.unpenalized_of if goal.penalized else None
        done = ascend(scope, jobs, goal.objective_of, recipe, followed_of=followed_of, group=group, redirect=bool(detour), advance=advance)
        scored.append(_scores(scope, layer, done.images, jobs, goal))
        stuck: set[int] = set()
        for position, index in enumerate(going):
            row = asked[index]
            finished[row] = done.row(position)
            below = bends and float(scored[-1][2, position]) == 0
            reason = reasons.setdefault(row, "the unit stayed below zero everywhere" if below else "the objective did not rise")
            status[row] = ("rescued", f"{reason}; {detour}") if detour else ("converged", "")
            score = float(scored[-1][0, position])
            if not math.isfinite(score):
                status[row] = "stuck", f"the unit's value at the final image is {score}: the network overflows"
            elif below or (score <= start.scores[index] and not rose(done.followed[position])):
                status[row] = (
                    "stuck",
                    f"{reason}, from {ATTEMPTS} starts, also through redirected ReLUs: no image was found that excites the unit",
                )
                stuck.add(row // group)
        return failed + [asked[index] for index in going if asked[index] // group in stuck]

    failed = attempt(list(range(len(rows))), 0, "")
    for number in range(ATTEMPTS):
        failed = attempt(failed, number, f"redirected ReLUs for the first steps, start {number + 1}") if failed else []
    images = torch.cat([finished[row].images for row in range(len(rows))])
    spread: list[float] = images.float().std((2, 3)).amax(1).tolist()
    for row, (kind, reason) in status.items():
        if kind != "stuck" and spread[row] < _FLAT:
            status[row] = kind, "; ".join(filter(None, [reason, FLAT]))
    at_first = len(scored) == 1 and scored[0].shape[1] == len(rows)
    jobs = [Job.of(seed, layer.name, *row) for row in rows]
    return _Part(
        images=images,
        history=torch.cat([finished[row].history for row in range(len(rows))]),
        taken=[int(finished[row].taken) for row in range(len(rows))],
        scores=scored[0] if at_first else _scores(scope, layer, images, jobs, goal),
        status=[status[row][0] for row in range(len(rows))],
        reasons=[status[row][1] for row in range(len(rows))],
    )


def rose(history: Tensor) -> bool:
    """Whether the objective without penalties was higher in the last tenth of the optimization than in the first, (steps)."""
    tenth = max(1, len(history) // 10)
    return float(history[-tenth:].mean()) > float(history[:tenth].mean())


def _scores(scope: Scope, layer: Layer, images: Tensor, jobs: Sequence[Job], goal: Goal) -> Tensor:
    """Of images, in float32, NaN where there is none: their score, their unit's mean before and after rectification, and on "output" the
    class that the network takes them for and its probability, (5 n).
    """
    before = layer.name + INPUT if layer.is_a(*RELUS) and layer.pointwise else layer.name
    group = goal.group

    def measure(part: slice) -> Tensor:
        part = slice(part.start * group, part.stop * group)
        batch = jobs[part]
        objective = goal.score_of(batch)
        names = list(dict.fromkeys([layer.name, before, *sorted(objective.layers)]))
        values = scope.run(images[part], names, channels_first=True, resize=True)
        index = torch.arange(len(batch), dtype=torch.int64, device="cpu"), torch.tensor(_units(batch), dtype=torch.int64, device="cpu")
        own, raw = (
            values[name][index].flatten(1) if values[name].ndim > 2 else values[name][index][:, None] for name in (layer.name, before)
        )
        scored = objective.score(Values(values), images[part])
        means = torch.stack([raw.mean(1), (own if layer.is_a(*RELUS) else own.relu()).mean(1)])
        without = torch.tensor([job.unit is None for job in batch], dtype=torch.bool, device="cpu")
        seen = values[layer.name]
        if layer.name == OUTPUT and seen.ndim == 2 and seen.shape[1] > 1:
            likely, winner = _probabilities(seen.double()).max(1)
            verdict = torch.stack([winner.to(likely), likely]).to(means)
        else:
            verdict = torch.full_like(means, torch.nan)
        return torch.cat([scored[None], torch.where(without.to(means.device), torch.nan, means), verdict])

    batches = max(1, scope.fitting(images.shape[-2] * images.shape[-1]) // group)
    with scope.session("float32"), torch.no_grad():
        return torch.cat([row.float().cpu() for row in scope.in_parts(len(jobs) // group, batches, measure)], 1)


def _probabilities(outputs: Tensor) -> Tensor:
    """Softmax of outputs (n class); outputs that are probabilities already stay as they are."""
    already = bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-3).all())
    return outputs if already else outputs.softmax(1)


def _verdicts(scores: Tensor) -> list[tuple[int, float]]:
    """The class that the network takes each image for, and its probability; nothing on other layers than "output"."""
    if bool(scores[3:].isnan().any()):
        return []
    return [(int(winner), float(likely)) for winner, likely in zip(*scores[3:], strict=True)]
