"""The loop that pictures of a wanted code or style come from: pictures of one size share every pass, each with a minimizer of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.fast.memory import reusing_memory, trimming_heap
from convscope.optimize.minimizers import Minimizer
from convscope.optimize.parameterizations import Parameterization
from convscope.scope import Scope


class Loss(Protocol):
    """What is made small: the sum of the named parts."""

    def __call__(self, pictures: Tensor, *, items: Sequence[int], turn: int) -> Mapping[str, Tensor]:
        """{part: (m)} of pictures (m 3 h w) of some of the items, at the `turn`-th evaluation."""
        ...


@dataclass
class Descended:
    """What became of the items.

    Attributes:
        numbers: Free numbers in the end, (n ...).
        history: Of each item, every part of the loss at every evaluation.
    """

    numbers: Tensor
    history: list[list[dict[str, float]]] = field(default_factory=list)


def descend(
    scope: Scope,
    form: Parameterization,
    size: tuple[int, int],
    starts: Tensor,
    loss: Loss,
    minimizer: Callable[[Tensor], Minimizer],
    *,
    precision: str,
    advance: Callable[[int], None] = lambda _: None,
) -> Descended:
    """Minimizes a loss for many pictures at once; none depends on the others.

    Args:
        scope: The network.
        form: How the pictures are written as free numbers.
        size: Height and width of the pictures.
        starts: Free numbers to start from, (n ...).
        loss: What is made small.
        minimizer: Makes a minimizer from an item's start.
        precision: What the passes run in, "float32" or "bfloat16".
        advance: Called with the number of evaluations done.
    """
    starts = starts.to(scope.device)

    def work(part: slice) -> Descended:
        return _together(form, size, starts, list(range(len(starts)))[part], loss, minimizer, advance)

    with reusing_memory(scope.fast), scope.session(precision, lean=True):
        parts = list(trimming_heap(scope.in_parts(len(starts), scope.fitting(size[0] * size[1]), work), scope.fast))
    return Descended(torch.cat([part.numbers for part in parts]), [trace for part in parts for trace in part.history])


def _together(
    form: Parameterization,
    size: tuple[int, int],
    starts: Tensor,
    items: list[int],
    loss: Loss,
    minimizer: Callable[[Tensor], Minimizer],
    advance: Callable[[int], None],
) -> Descended:
    """Some of the items from beginning to end, in one batch that shrinks as they finish."""
    running = {item: minimizer(starts[item]) for item in items}
    points = {item: next(one) for item, one in running.items()}
    ended: dict[int, Tensor] = {}
    history: dict[int, list[dict[str, float]]] = {item: [] for item in items}
    turn = 0
    while points:
        alive = list(points)
        parts, gradients = _evaluate(form, size, torch.stack([points[item] for item in alive]), partial(loss, items=alive, turn=turn))
        if not turn and not all(math.isfinite(value) for values in parts.values() for value in values):
            raise BadInput(f"the loss is not finite at the start: { ({name: values[0] for name, values in parts.items()}) }")
        turn += 1
        for row, item in enumerate(alive):
            history[item].append({name: values[row] for name, values in parts.items()})
            try:
                points[item] = running[item].send((sum(history[item][-1].values()), gradients[row]))
            except StopIteration as done:
                ended[item] = done.value
                del points[item]
        advance(len(alive))
    return Descended(torch.stack([ended[item] for item in items]), [history[item] for item in items])


def _evaluate(
    form: Parameterization, size: tuple[int, int], numbers: Tensor, loss: Callable[[Tensor], Mapping[str, Tensor]]
) -> tuple[dict[str, list[float]], Tensor]:
    """The parts of the loss for each item, and the gradient of their sum with respect to the free numbers."""
    with torch.enable_grad():
        free = numbers.requires_grad_()
        parts = loss(form.picture(free, *size).contiguous(memory_format=torch.channels_last))  # the faster layout, here
        (gradient,) = torch.autograd.grad(torch.stack(list(parts.values())).sum(), free)
    return {name: values.detach().double().tolist() for name, values in parts.items()}, gradient
