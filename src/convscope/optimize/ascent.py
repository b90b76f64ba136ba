"""The loop that every optimized picture goes through: look at the picture, ask the objective, climb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from convscope.fast.memory import reusing_memory, trimming_heap
from convscope.optimize.objectives import Objective
from convscope.optimize.parameterizations import PARAMETERIZATIONS, Parameterization
from convscope.optimize.recipes import Recipe
from convscope.optimize.transforms import look
from convscope.scope import Scope
from convscope.scope.edits import redirected_relu
from convscope.seeding import derive_seed

REDIRECTED_STEPS = 16
"""For so many steps a blocked picture climbs through redirected ReLUs (Lucid's number)."""


@dataclass
class Climber:
    """One picture on its way: what it is to maximize, and its own two streams of draws.

    Attributes:
        unit: The unit that it is for.
        start: Draws the start picture.
        views: Draws how it is looked at, step by step.
    """

    unit: int
    start: Generator
    views: Generator

    @classmethod
    def of(cls, seed: int, layer: str, unit: int, attempt: int = 0) -> Climber:
        """The climber of a unit. Its draws depend on nothing but these names, so not on its batch mates."""

        def stream(purpose: str) -> Generator:
            return Generator().manual_seed(derive_seed(seed, "feature_visualization", layer, unit, attempt, purpose))

        return cls(unit, stream("start"), stream("views"))


@dataclass(frozen=True)
class Climbed:
    """Finished pictures (n 3 h w), clipped to [0,1], on the CPU, and the objective at every step, (n steps)."""

    pictures: Tensor
    history: Tensor


def ascend(
    scope: Scope,
    climbers: Sequence[Climber],
    objective_of: Callable[[list[int]], Objective],
    recipe: Recipe,
    *,
    redirect: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Climbed:
    """Optimizes one picture per climber.

    All pictures go through a stage together before the next begins; inside a stage they are taken in batches that suit its size.

    Args:
        scope: The network.
        climbers: The pictures to make.
        objective_of: The objective for a batch, given its units in order.
        recipe: All numbers.
        redirect: Send the gradient of the first steps through redirected ReLUs.
        advance: Called with the number of picture-steps done.
    """
    form = PARAMETERIZATIONS[recipe.image](scope.inputs, recipe.start_range)
    sides = recipe.sides(max(scope.inputs.height, scope.inputs.width))
    numbers = form.start(sides[0], sides[0], [climber.start for climber in climbers]).to(scope.device)
    history: list[Tensor] = []
    with reusing_memory(scope.fast), scope.session(scope.resolve("optimize"), lean=not redirect):
        for stage, side in enumerate(sides):
            if stage:
                numbers = form.enlarge(numbers, side, recipe.blur)
            view = recipe.looking()
            redirected = REDIRECTED_STEPS if redirect and stage == 0 else 0
            work = partial(_part, scope, form, numbers, climbers, objective_of, recipe, side, redirected, advance)
            parts = scope.in_parts(len(climbers), scope.fitting((view.side(side) if view else side) ** 2), work)
            history.append(torch.cat(list(trimming_heap(parts, scope.fast))))
    with torch.no_grad():
        pictures = torch.cat([form.picture(part[None], sides[-1], sides[-1]) for part in numbers])
    return Climbed(pictures.float().clamp(0, 1).cpu(), torch.cat(history, 1))


@dataclass(frozen=True)
class Start:
    """Where climbers begin.

    Attributes:
        scores: The objective at the start pictures, (n).
        blocked: Whether a start picture has no gradient at all, so that no step could move it.
    """

    scores: list[float]
    blocked: list[bool]


def look_at_start(scope: Scope, climbers: Sequence[Climber], objective_of: Callable[[list[int]], Objective], recipe: Recipe) -> Start:
    """The objective and its gradient at the start pictures as a whole. Uses up none of the climbers' draws."""
    form = PARAMETERIZATIONS[recipe.image](scope.inputs, recipe.start_range)
    side = recipe.sides(max(scope.inputs.height, scope.inputs.width))[0]
    at_once = scope.fitting(side * side)
    scores: list[float] = []
    blocked: list[bool] = []
    with scope.session(scope.resolve("optimize")), torch.enable_grad():
        for first in range(0, len(climbers), at_once):
            mates = climbers[first : first + at_once]
            twins = [Generator().manual_seed(climber.start.initial_seed()) for climber in mates]
            numbers = form.start(side, side, twins).to(scope.device).requires_grad_()
            score = objective_of([climber.unit for climber in mates])(scope, form.picture(numbers, side, side))
            (gradient,) = torch.autograd.grad(score.sum(), numbers)
            scores += score.tolist()
            blocked += (gradient.flatten(1).abs().amax(1) == 0).tolist()
    return Start(scores, blocked)


def _part(
    scope: Scope,
    form: Parameterization,
    numbers: Tensor,
    climbers: Sequence[Climber],
    objective_of: Callable[[list[int]], Objective],
    recipe: Recipe,
    side: int,
    redirected_steps: int,
    advance: Callable[[int], None],
    part: slice,
) -> Tensor:
    """A stage for some of the climbers; writes their numbers back. What runs out of memory can be asked for again."""
    mates = climbers[part]
    streams = [climber.views.get_state() for climber in mates]
    own = numbers[part].clone().requires_grad_()
    objective = objective_of([climber.unit for climber in mates])
    try:
        trace = _stage(scope, form, own, mates, objective, recipe, side, redirected_steps, advance)
    except RuntimeError:
        for climber, stream in zip(mates, streams, strict=True):
            climber.views.set_state(stream)
        raise
    numbers[part] = own.detach()
    return trace


def _stage(
    scope: Scope,
    form: Parameterization,
    numbers: Tensor,
    climbers: Sequence[Climber],
    objective: Objective,
    recipe: Recipe,
    side: int,
    redirected_steps: int,
    advance: Callable[[int], None],
) -> Tensor:
    """Optimizes `numbers` in place for one stage; returns the objective at every step, (n steps)."""
    adam = torch.optim.Adam([numbers], lr=recipe.rate, weight_decay=recipe.weight_decay) if recipe.optimizer == "adam" else None
    view = recipe.looking()
    trace = torch.empty(len(climbers), recipe.steps)
    for step in range(recipe.steps):
        with torch.enable_grad(), redirected_relu() if step < redirected_steps else nullcontext():
            pictures = form.picture(numbers, side, side)
            if view is not None:
                done = step / max(1, recipe.steps - 1)
                matrices = torch.stack([view.draw(climber.views, done, side) for climber in climbers])
                pictures = look(pictures, matrices, view.side(side))
            if recipe.noise:
                shape = pictures.shape[1:]
                noise = torch.stack([torch.randn(shape, generator=climber.views) for climber in climbers])
                pictures = pictures + recipe.noise * noise.to(pictures)
            score = objective(scope, pictures.contiguous(memory_format=torch.channels_last))  # the faster layout, here
            numbers.grad = None
            (-score.sum()).backward()
        trace[:, step] = score.detach()
        if adam is not None:
            adam.step()
        else:
            gradient = torch.zeros_like(numbers) if numbers.grad is None else numbers.grad
            rms = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-30).view(-1, 1, 1, 1)
            numbers.data.sub_(recipe.rate / 255 * gradient / rms)
        advance(len(climbers))
    return trace
