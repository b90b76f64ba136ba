"""Batched minimization loop for inversion and style transfer. Images share each pass; each has its own optimizer state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Generator, Tensor

from convscope.errors import BadInput
from convscope.fast.memory import reusing_memory, trimming_heap
from convscope.ops.denoise import tv_denoised
from convscope.optimize.minimizers import Minimizer, find_minimizer
from convscope.optimize.parameterizations import PARAMETERIZATIONS, Fourier, MeanSubtracted, NormalizedPixels, Parameterization, started
from convscope.optimize.recipes import DescentRecipe
from convscope.progress import task
from convscope.scope import Inputs, Scope
from convscope.seeding import derive_seed

_T = TypeVar("_T")

History: TypeAlias = list[list[dict[str, float]]]
"""Of each image, every term of the loss at every evaluation."""


class Loss(Protocol):
    """What is minimized: the sum of named terms."""

    def __call__(self, images: Tensor, *, items: Sequence[int], step: int) -> Mapping[str, Tensor]:
        """{term: (m)} of images (m 3 h w), which are some of the items, at the evaluation number `step`."""
        ...


@dataclass(frozen=True)
class Minimized:
    """What came of a minimization.

    Attributes:
        images: The last images (n c h w), not clipped unless they are denoised, on the network's device.
        history: See :data:`History`.
    """

    images: Tensor
    history: History


def tabulated(history: History, value: Callable[[int, dict[str, float]], float]) -> Tensor:
    """A value of (item, terms) at every evaluation, (n steps), NaN after an item's last one."""
    table = torch.full((len(history), max(map(len, history))), torch.nan, dtype=torch.float32, device="cpu")
    for item, steps in enumerate(history):
        table[item, : len(steps)] = torch.tensor([value(item, terms) for terms in steps], dtype=torch.float32, device="cpu")
    return table


def minimize(
    scope: Scope,
    technique: str,
    recipe: DescentRecipe,
    size: tuple[int, int],
    count: int,
    loss: Loss,
    *,
    seed: int,
    content: Tensor | None = None,
    title: str = "",
) -> Minimized:
    """Minimizes a loss for many images at once; none depends on the others.

    Args:
        scope: The network.
        technique: Name of the technique, from which the start noise is drawn.
        recipe: All parameters.
        size: Height and width of the images.
        count: How many images.
        loss: What is minimized.
        seed: Seed of the start noise, the same for all images.
        content: The images that a recipe with start "content" begins at, (n c h w).
        title: Title of the progress bar.
    """
    more = recipe.jitter - 1
    canvas = size[0] + more, size[1] + more
    form = _form(recipe, scope.inputs)
    bands = {"groups": form.bands(*canvas).to(scope.device)} if recipe.banded and isinstance(form, Fourier) else {}
    if recipe.start == "content" and content is not None and isinstance(form, NormalizedPixels | MeanSubtracted):
        starts = form.parameters(content).to(scope.device)
    else:
        starts = started(form, *canvas, [Generator("cpu").manual_seed(derive_seed(seed, technique, "start")) for _ in range(count)], scope)
    make = find_minimizer(recipe.optimizer, recipe.steps, **recipe.options, **bands)
    with task(title, count * recipe.steps) as advance:

        def work(part: slice) -> tuple[Tensor, History]:
            return _run_batch(form, canvas, starts, list(range(count))[part], loss, make, advance)

        with reusing_memory(scope.fast), scope.session(scope.resolve("optimize"), lean=True):
            batches = list(trimming_heap(scope.in_parts(count, scope.fitting(canvas[0] * canvas[1]), work), scope.fast))
    with torch.no_grad():
        images = torch.cat([form.image(one[None], *canvas) for parameters, _ in batches for one in parameters])
        edge = more // 2
        images = images[..., edge : edge + size[0], edge : edge + size[1]]
        if recipe.denoise:
            images = tv_denoised(images.float().clamp(0, 1), recipe.denoise)
    return Minimized(images, [steps for _, history in batches for steps in history])


def in_float32(scope: Scope, images: Tensor, work: Callable[[Tensor, Sequence[int]], _T]) -> list[_T]:
    """What `work` makes of parts of a batch (m 3 h w) and their numbers, without gradients, in float32."""
    items = range(len(images))
    at_once = scope.fitting(images.shape[-2] * images.shape[-1])
    with scope.session("float32"), torch.no_grad():
        return list(scope.in_parts(len(images), at_once, lambda part: work(images[part].to(scope.device), items[part])))


def _form(recipe: DescentRecipe, inputs: Inputs) -> Parameterization:
    if recipe.parameterization == "fourier":
        return Fourier(inputs, recipe.start_range, recipe.decay)
    return PARAMETERIZATIONS[recipe.parameterization](inputs, recipe.start_range)


def _run_batch(
    form: Parameterization,
    size: tuple[int, int],
    starts: Tensor,
    items: list[int],
    loss: Loss,
    make: Callable[[Tensor], Minimizer],
    advance: Callable[[int], None],
) -> tuple[Tensor, History]:
    """Some of the items from beginning to end, in one batch that shrinks as they finish: parameters and history."""
    running = {item: make(starts[item]) for item in items}
    points = {item: next(minimizer) for item, minimizer in running.items()}
    ended: dict[int, Tensor] = {}
    history: dict[int, list[dict[str, float]]] = {item: [] for item in items}
    step = 0
    while points:
        alive = list(points)
        terms, gradients = _evaluate(form, size, torch.stack([points[item] for item in alive]), partial(loss, items=alive, step=step))
        if not step and not all(math.isfinite(value) for values in terms.values() for value in values):
            raise BadInput(f"the loss is not finite at the start: { ({name: values[0] for name, values in terms.items()}) }")
        step += 1
        for row, item in enumerate(alive):
            history[item].append({name: values[row] for name, values in terms.items()})
            try:
                points[item] = running[item].send((sum(history[item][-1].values()), gradients[row]))
            except StopIteration as done:
                ended[item] = done.value
                del points[item]
        advance(len(alive))
    return torch.stack([ended[item] for item in items]), [history[item] for item in items]


def _evaluate(
    form: Parameterization, size: tuple[int, int], points: Tensor, loss: Callable[[Tensor], Mapping[str, Tensor]]
) -> tuple[dict[str, list[float]], Tensor]:
    """The terms of the loss for each item, and the gradient of their sum with respect to the parameters."""
    with torch.enable_grad():
        parameters = points.requires_grad_()
        terms = loss(form.image(parameters, *size).contiguous(memory_format=torch.channels_last))  # the faster layout, here
        (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters)
    return {name: values.detach().double().tolist() for name, values in terms.items()}, gradient
