"""Batched gradient ascent of feature visualization, its optimizer included: images share each pass, each with its own random generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from convscope.fast.memory import reusing_memory, trimming_heap
from convscope.optimize.film import Key, current
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

PROBE, ALIKE = 16, 0.6
"""After so many steps views are mirrored for images that have, mirrored, at least this share of their objective."""


@dataclass
class Job:
    """State of one image being optimized: its unit and two random generators.

    Attributes:
        unit: The unit that it is for; None: an objective that is not of one unit.
        copy: The copy's number, from 0.
        start: Draws the start image.
        transforms: Draws the transforms and the noise, step by step.
    """

    unit: int | None
    copy: int
    start: Generator
    transforms: Generator

    @property
    def key(self) -> Key:
        """Unit and copy."""
        return self.unit, self.copy

    @classmethod
    def of(cls, seed: int, layer: str, unit: int | None, copy: int = 0, attempt: int = 0) -> Job:
        """The job of one copy of a unit. Its draws depend on nothing but these arguments, so not on the other images of the batch."""
        name = "objective" if unit is None else unit
        copies = ("copy", copy) if copy else ()

        def generator(purpose: str) -> Generator:
            return Generator("cpu").manual_seed(derive_seed(seed, "feature_visualization", layer, name, attempt, purpose, *copies))

        return cls(unit, copy, generator("start"), generator("views"))


ObjectiveOf: TypeAlias = Callable[[Sequence[Job]], Objective]
"""The objective for a batch, given its jobs in order."""


@dataclass(frozen=True)
class Optimized:
    """Finished images.

    Attributes:
        images: (n c h w), clipped to [0,1], on the CPU.
        history: The objective at every step, (n steps); after an early end its last value.
        followed: The part of it that was followed, e.g. without penalties, at every step, (n steps).
        taken: Steps that were taken, (n).
    """

    images: Tensor
    history: Tensor
    followed: Tensor
    taken: Tensor

    def row(self, index: int) -> Optimized:
        """One of the images, with the axis kept."""
        row = slice(index, index + 1)
        return Optimized(self.images[row], self.history[row], self.followed[row], self.taken[row])


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

    All images go through a stage together before the next begins; inside a stage they are taken in batches that suit its size. With
    patience, an image (or a group) ends a stage when its objective, without penalties, was no higher on average over the last `patience`
    steps than over as many before. Its own steps are the same as without, so the others are none the wiser.

    Where the recipe mirrors views, it does so for images that the network takes for the same when mirrored, measured after a few steps:
    those of a unit that falls further when its image is mirrored (a unit for one diagonal) keep their views.

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
    if (film := current()) is not None:
        film.begin([job.key for job in jobs])
    history: list[Tensor] = []
    taken = torch.zeros(len(jobs), dtype=torch.int64, device="cpu")
    with reusing_memory(scope.fast), scope.session(scope.resolve("optimize"), lean=not redirect):
        for stage, side in enumerate(sides):
            if stage:
                parameters = form.enlarge(parameters, side, recipe.blur)
            transform = recipe.random_transform()
            run = _Stage(scope, form, recipe, stage, side, objective_of, followed_of, redirect and stage == 0, advance, group)
            work = partial(_run_batch, run, parameters, jobs, taken)
            at_once = scope.fitting((transform.output_side(side) if transform else side) ** 2)
            batches = scope.in_parts(len(jobs) // group, max(1, at_once // group), work)
            history.append(torch.cat(list(trimming_heap(batches, scope.fast)), 1))
    with torch.no_grad():
        images = torch.cat([form.image(one[None], sides[-1], sides[-1]) for one in parameters])
    whole, followed = torch.cat(history, 2)
    return Optimized(images.float().clamp(0, 1).cpu(), whole, followed, taken)


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


@dataclass(frozen=True)
class _Stage:
    """What all batches of a stage have in common; see :func:`ascend`."""

    scope: Scope
    form: Parameterization
    recipe: Recipe
    number: int
    side: int
    objective_of: ObjectiveOf
    followed_of: ObjectiveOf | None
    redirected: bool
    advance: Callable[[int], None]
    group: int


def _run_batch(stage: _Stage, parameters: Tensor, jobs: Sequence[Job], taken: Tensor, part: slice) -> Tensor:
    """One stage for some groups of jobs, see :func:`_run_stage`; writes their parameters back. Can run again when memory ran out."""
    part = slice(part.start * stage.group, part.stop * stage.group)
    batch = jobs[part]
    states = [job.transforms.get_state() for job in batch]
    own = parameters[part].clone()
    try:
        trace, steps = _run_stage(stage, own, batch)
    except RuntimeError:
        for job, state in zip(batch, states, strict=True):
            job.transforms.set_state(state)
        raise
    parameters[part] = own
    taken[part] += steps
    return trace


def _run_stage(stage: _Stage, parameters: Tensor, jobs: Sequence[Job]) -> tuple[Tensor, Tensor]:
    """Optimizes `parameters` in place for one stage.

    Returns:
        The objective and its followed part at every step, (2 n steps), and how many steps each image took, (n).
    """
    recipe, patience = stage.recipe, stage.recipe.patience
    trace = torch.empty(2, len(jobs), recipe.steps, dtype=parameters.dtype, device="cpu")
    steps = torch.full((len(jobs),), recipe.steps, dtype=torch.int64, device="cpu")
    rows = torch.arange(len(jobs), dtype=torch.int64, device="cpu")
    going = _Going(stage, parameters.clone().requires_grad_(), list(jobs))
    for step in range(recipe.steps):
        trace[:, rows, step] = going.step(step).to(trace.dtype)  # a network may end in float64
        if patience and (step + 1) % patience == 0 and 2 * patience <= step + 1 < recipe.steps:
            still = _is_still(trace[1, rows, : step + 1], patience).view(-1, stage.group).all(1).repeat_interleave(stage.group)
            if not still.any():
                continue
            ended, kept = rows[still], torch.nonzero(~still).flatten()
            parameters[ended] = going.parameters.detach()[still]
            trace[:, ended, step + 1 :] = trace[:, ended, step, None]
            steps[ended] = step + 1
            stage.advance(len(ended) * (recipe.steps - step - 1))
            if not len(kept):
                return trace, steps
            rows, going = rows[kept], going.only(kept)
    parameters[rows] = going.parameters.detach()
    return trace, steps


def _is_still(followed: Tensor, patience: int) -> Tensor:
    """Whether what was followed has stopped rising, by its values at the steps so far, (n step) -> (n)."""
    last, before = followed[:, -patience:].mean(1), followed[:, -2 * patience : -patience].mean(1)
    return last <= before


def _coin(generator: Generator) -> Tensor:
    return torch.randint(2, (), generator=generator, dtype=torch.int64, device="cpu")


class _Going:
    """Images that are being optimized together."""

    def __init__(self, stage: _Stage, parameters: Tensor, jobs: Sequence[Job]) -> None:
        self.stage, self.parameters, self.jobs = stage, parameters, jobs
        recipe = stage.recipe
        self.adam = adam_of(parameters, recipe.learning_rate, recipe.weight_decay) if recipe.optimizer == "adam" else None
        self.transform = recipe.random_transform()
        self.objective = stage.objective_of(jobs)
        self.followed = None if stage.followed_of is None else stage.followed_of(jobs)
        self.mirrored = [False] * len(jobs)

    def only(self, rows: Tensor) -> _Going:
        """Some of the images, as they are."""
        parameters = self.parameters.detach()[rows].clone().requires_grad_()
        kept = _Going(self.stage, parameters, [self.jobs[row] for row in rows.tolist()])
        kept.mirrored = [self.mirrored[row] for row in rows.tolist()]
        if self.adam is not None and kept.adam is not None:
            old, new = self.adam.state[self.parameters], kept.adam.state[parameters]
            new |= {"step": old["step"], "exp_avg": old["exp_avg"][rows], "exp_avg_sq": old["exp_avg_sq"][rows]}
        return kept

    def step(self, step: int) -> Tensor:
        """One step; returns the objective and its followed part before it, (2 n)."""
        stage, recipe, jobs = self.stage, self.stage.recipe, self.jobs
        if step == PROBE and recipe.mirror:
            self.mirrored = self._alike()
        with torch.enable_grad(), redirected_relu() if stage.redirected and step < REDIRECTED_STEPS else nullcontext():
            images = stage.form.image(self.parameters, stage.side, stage.side)
            if (film := current()) is not None:
                film.see([job.key for job in jobs], stage.number * recipe.steps + step, recipe.stages * recipe.steps, images)
            if self.transform is not None:
                progress = step / max(1, recipe.steps - 1)
                matrices = torch.stack([self.transform.draw(job.transforms, progress, stage.side) for job in jobs])
                images = warp(images, matrices, self.transform.output_side(stage.side))
            if any(self.mirrored):
                turned = [yes and bool(_coin(job.transforms)) for yes, job in zip(self.mirrored, jobs, strict=True)]
                chosen = torch.tensor(turned, dtype=torch.bool, device=images.device)
                images = torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)
            if recipe.noise:
                shape = images.shape[1:]
                noise = torch.stack([torch.randn(shape, generator=job.transforms, dtype=torch.float32, device="cpu") for job in jobs])
                images = images + recipe.noise * noise.to(images)
            images = images.contiguous(memory_format=torch.channels_last)  # the faster layout, here
            values = self.objective.read(stage.scope, images)
            score = self.objective.score(values, images)
            self.parameters.grad = None
            (-score.sum()).backward()
        trace = torch.stack([score.detach()] * 2)
        if self.followed is not None:
            with torch.no_grad():
                trace[1] = self.followed.score(values, images)
        if self.adam is not None:
            self.adam.step()
        else:
            gradient = torch.zeros_like(self.parameters) if self.parameters.grad is None else self.parameters.grad
            rms = gradient.flatten(1).square().mean(1).sqrt().clamp(min=1e-30).view(-1, 1, 1, 1)
            self.parameters.data.sub_(recipe.learning_rate / 255 * gradient / rms)
        hand_on("image", lambda: stage.form.image(self.parameters.detach(), stage.side, stage.side).detach().float().cpu().numpy())
        stage.advance(len(jobs))
        return trace

    def _alike(self) -> list[bool]:
        """Which images the network takes for the same when they are mirrored."""
        scope, followed = self.stage.scope, self.followed or self.objective
        with torch.no_grad():
            images = self.stage.form.image(self.parameters, self.stage.side, self.stage.side)
            views = [one.contiguous(memory_format=torch.channels_last) for one in (images, images.flip(-1))]
            plain, turned = (followed.score(self.objective.read(scope, view), view) for view in views)
        return ((plain > 0) & (turned >= ALIKE * plain)).tolist()
