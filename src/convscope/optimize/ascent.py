"""Batched gradient ascent of feature visualization: images share each pass; each has its own random generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from convscope.fast.memory import reusing_memory, trimming_heap
from convscope.optimize.minimizers import adam_of
from convscope.optimize.objective import Objective
from convscope.optimize.parameterizations import PARAMETERIZATIONS, Parameterization, started
from convscope.optimize.recipes import Recipe
from convscope.optimize.transforms import warp
from convscope.progress import hand_on
from convscope.scope import Scope
from convscope.scope.edits import redirected_relu
from convscope.seeding import derive_seed

REDIRECTED_STEPS = 16
"""Steps through redirected ReLUs of an image whose gradient is blocked (Lucid's number)."""


@dataclass
class Job:
    """State of one image being optimized: its unit and two random generators.

    Attributes:
        unit: The unit that it is for; None: an objective that is not of one unit.
        start: Draws the start image.
        transforms: Draws the transforms and the noise, step by step.
    """

    unit: int | None
    start: Generator
    transforms: Generator

    @classmethod
    def of(cls, seed: int, layer: str, unit: int | None, copy: int = 0, attempt: int = 0) -> Job:
        """The job of one copy of a unit. Its draws depend on nothing but these arguments, so not on the other images of the batch."""
        name = "objective" if unit is None else unit
        copies = ("copy", copy) if copy else ()

        def generator(purpose: str) -> Generator:
            return Generator("cpu").manual_seed(derive_seed(seed, "feature_visualization", layer, name, attempt, purpose, *copies))

        return cls(unit, generator("start"), generator("views"))


ObjectiveOf: TypeAlias = Callable[[Sequence[Job]], Objective]
"""The objective for a batch, given its jobs in order."""


@dataclass(frozen=True)
class Optimized:
    """Finished images.

    Attributes:
        images: (n c h w), clipped to [0,1], on the CPU.
        history: The objective at every step, (n steps).
        followed: The part of it that was followed, e.g. without penalties, at every step, (n steps).
    """

    images: Tensor
    history: Tensor
    followed: Tensor

    def row(self, index: int) -> Optimized:
        """One of the images, with the axis kept."""
        return Optimized(self.images[index : index + 1], self.history[index : index + 1], self.followed[index : index + 1])


def ascend(
    scope: Scope,
    jobs: Sequence[Job],
    objective_of: ObjectiveOf,
    recipe: Recipe,
    *,
    followed_of: ObjectiveOf | None = None,
    group: int = 1,
    redirect: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Optimized:
    """Optimizes one image per job.

    All images go through a stage together before the next begins; inside a stage they are taken in batches that suit its size.

    Args:
        scope: The network.
        jobs: The images to make.
        objective_of: The objective for a batch.
        recipe: All parameters.
        followed_of: The part of the objective that is recorded beside it; None: the whole.
        group: So many consecutive jobs always share a batch, because their objective compares them.
        redirect: Send the gradient of the first steps through redirected ReLUs.
        advance: Called with the number of image-steps done.
    """
    form = PARAMETERIZATIONS[recipe.parameterization](scope.inputs, recipe.start_range)
    sides = recipe.sides(max(scope.inputs.height, scope.inputs.width))
    parameters = started(form, sides[0], sides[0], [job.start for job in jobs], scope)
    history: list[Tensor] = []
    with reusing_memory(scope.fast), scope.session(scope.resolve("optimize"), lean=not redirect):
        for stage, side in enumerate(sides):
            if stage:
                parameters = form.enlarge(parameters, side, recipe.blur)
            transform = recipe.random_transform()
            redirected = REDIRECTED_STEPS if redirect and stage == 0 else 0
            work = partial(_run_batch, scope, form, parameters, jobs, objective_of, followed_of, recipe, side, redirected, advance, group)
            at_once = scope.fitting((transform.output_side(side) if transform else side) ** 2)
            batches = scope.in_parts(len(jobs) // group, max(1, at_once // group), work)
            history.append(torch.cat(list(trimming_heap(batches, scope.fast)), 1))
    with torch.no_grad():
        images = torch.cat([form.image(one[None], sides[-1], sides[-1]) for one in parameters])
    whole, followed = torch.cat(history, 2)
    return Optimized(images.float().clamp(0, 1).cpu(), whole, followed)


@dataclass(frozen=True)
class Start:
    """The start images.

    Attributes:
        scores: The objective at each, (n).
        blocked: Whether it has no gradient at all, so that no step could change the image.
    """

    scores: list[float]
    blocked: list[bool]


def score_start(scope: Scope, jobs: Sequence[Job], objective_of: ObjectiveOf, recipe: Recipe, *, group: int = 1) -> Start:
    """The objective and its gradient at the untransformed start images. Uses up none of the jobs' draws."""
    form = PARAMETERIZATIONS[recipe.parameterization](scope.inputs, recipe.start_range)
    side = recipe.sides(max(scope.inputs.height, scope.inputs.width))[0]
    at_once = group * max(1, scope.fitting(side * side) // group)
    scores: list[float] = []
    blocked: list[bool] = []
    with scope.session(scope.resolve("optimize")), torch.enable_grad():
        for first in range(0, len(jobs), at_once):
            batch = jobs[first : first + at_once]
            generators = [Generator("cpu").manual_seed(job.start.initial_seed()) for job in batch]
            parameters = started(form, side, side, generators, scope).requires_grad_()
            score = objective_of(batch)(scope, form.image(parameters, side, side))
            (gradient,) = torch.autograd.grad(score.sum(), parameters)
            scores += score.tolist()
            blocked += (gradient.flatten(1).abs().amax(1) == 0).tolist()
    return Start(scores, blocked)


def _run_batch(
    scope: Scope,
    form: Parameterization,
    parameters: Tensor,
    jobs: Sequence[Job],
    objective_of: ObjectiveOf,
    followed_of: ObjectiveOf | None,
    recipe: Recipe,
    side: int,
    redirected_steps: int,
    advance: Callable[[int], None],
    group: int,
    part: slice,
) -> Tensor:
    """One stage for some groups of jobs, see :func:`_run_stage`; writes their parameters back. Can run again when memory ran out."""
    part = slice(part.start * group, part.stop * group)
    batch = jobs[part]
    states = [job.transforms.get_state() for job in batch]
    own = parameters[part].clone().requires_grad_()
    objective = objective_of(batch)
    followed = None if followed_of is None else followed_of(batch)
    try:
        trace = _run_stage(scope, form, own, batch, objective, followed, recipe, side, redirected_steps, advance)
    except RuntimeError:
        for job, state in zip(batch, states, strict=True):
            job.transforms.set_state(state)
        raise
    parameters[part] = own.detach()
    return trace


def _run_stage(
    scope: Scope,
    form: Parameterization,
    parameters: Tensor,
    jobs: Sequence[Job],
    objective: Objective,
    followed: Objective | None,
    recipe: Recipe,
    side: int,
    redirected_steps: int,
    advance: Callable[[int], None],
) -> Tensor:
    """Optimizes `parameters` in place for one stage; returns the objective and its followed part at every step, (2 n steps)."""
    adam = None
    if recipe.optimizer == "adam":
        adam = adam_of(parameters, recipe.learning_rate, recipe.weight_decay)
    transform = recipe.random_transform()
    trace = torch.empty(2, len(jobs), recipe.steps, dtype=parameters.dtype, device="cpu")
    for step in range(recipe.steps):
        with torch.enable_grad(), redirected_relu() if step < redirected_steps else nullcontext():
            images = form.image(parameters, side, side)
            if transform is not None:
                progress = step / max(1, recipe.steps - 1)
                matrices = torch.stack([transform.draw(job.transforms, progress, side) for job in jobs])
                images = warp(images, matrices, transform.output_side(side))
            if recipe.noise:
                shape = images.shape[1:]
                noise = torch.stack([torch.randn(shape, generator=job.transforms, dtype=torch.float32, device="cpu") for job in jobs])
                images = images + recipe.noise * noise.to(images)
            images = images.contiguous(memory_format=torch.channels_last)  # the faster layout, here
            values = objective.read(scope, images)
            score = objective.score(values, images)
            parameters.grad = None
            (-score.sum()).backward()
        trace[:, :, step] = score.detach()
        if followed is not None:
            with torch.no_grad():
                trace[1, :, step] = followed.score(values, images)
        if adam is not None:
            adam.step()
        else:
            gradient = torch.zeros_like(parameters) if parameters.grad is None else parameters.grad
            rms = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-30).view(-1, 1, 1, 1)
            parameters.data.sub_(recipe.learning_rate / 255 * gradient / rms)
        hand_on("image", lambda: form.image(parameters.detach(), side, side).detach().float().cpu().numpy())
        advance(len(jobs))
    return trace
