"""Optimizers of inversion and style transfer: generators that yield a point and are sent its loss and gradient.

So the optimizers of many images share one pass through a network, and each depends on nothing but its own losses and gradients. Feature
visualization steps in `ascent.py`.

A new one is a generator here, a name in `recipes.Optimizer`, and a recipe of inversion that uses it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.names import is_whole

Minimizer = Generator[Tensor, tuple[float, Tensor], Tensor]
"""Yields parameters, is sent (loss, gradient) there, and returns the parameters that it ends with."""

_DECREASE, _CURVATURE, _TRIALS = 1e-4, 0.9, 12


@dataclass
class _Point:
    """Parameters with the loss and the gradient there, and how many steps along the last direction led to them."""

    point: Tensor
    loss: float
    gradient: Tensor
    steps: float = 0.0


def lbfgs(
    start: Tensor, evaluations: int, *, memory: int = 10, first: float = 0.01, longest: float = 1.0, groups: Tensor | None = None
) -> Minimizer:
    """Limited-memory BFGS (Nocedal 1980) with a line search that ends where the weak Wolfe conditions hold (Lewis and Overton 2013).

    The loss never rises. Ends early where no step lowers it any more. Deviations: with `longest` above 1, the first trial of a line search
    is as many quasi-Newton steps as would have been best along the last direction, judging by the slopes at its two ends. With `groups`,
    the diagonal of the initial inverse Hessian is estimated per group, from how far it moved and how much its gradient changed.

    Args:
        start: Parameters, any shape.
        evaluations: Most evaluations of the loss, trials of the line search included.
        memory: Pairs of steps and gradient differences that the curvature is estimated from.
        first: Root mean square of the very first step, in units of the start's own scale.
        longest: Most quasi-Newton steps of a first trial.
        groups: The group of each parameter, from 0, of the start's shape or its first axes: parameters of about the same curvature.
    """
    loss, gradient = yield start
    here = _Point(start, loss, gradient)
    curvatures = None if groups is None else _Curvatures(groups)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=memory)
    used, trial = 1, 1.0
    while used < evaluations:
        direction = _two_loops(here.gradient, pairs, curvatures and curvatures.inverse(here.gradient))
        slope = _dot(direction, here.gradient)
        if not slope < 0:
            if not pairs:
                break
            pairs.clear()
            continue
        step = trial if pairs else first * max(_rms(start), 0.01) / max(_rms(direction), 1e-30)
        found, spent = yield from _search(here, direction, slope, step, evaluations - used)
        used += spent
        if found is None:
            if not pairs:
                break
            pairs.clear()  # the estimated curvature misleads: restart along the gradient
            continue
        if pairs:
            fall = slope - _dot(found.gradient, direction)
            trial = min(max(1.0, found.steps * slope / fall), longest) if fall < 0 else longest
        step, change = found.point - here.point, found.gradient - here.gradient
        curvature = _dot(step, change)
        if curvature > 1e-10 * _dot(change, change):
            pairs.append((step, change, 1 / curvature))
            if curvatures:
                curvatures.learn(step, change)
        here = found
    return here.point


def _search(
    here: _Point, direction: Tensor, slope: float, step: float, evaluations: int
) -> Generator[Tensor, tuple[float, Tensor], tuple[_Point | None, int]]:
    """Line search: a point of lower loss along `direction`, or None, and how many evaluations that took."""
    low, high = 0.0, math.inf
    lower: _Point | None = None
    for trial in range(1, min(_TRIALS, evaluations) + 1):
        point = here.point + step * direction
        loss, gradient = yield point
        excess = loss - here.loss - step * slope
        if not loss <= here.loss + _DECREASE * step * slope:
            high = step
            vertex = -slope * step**2 / (2 * excess) if low == 0 and math.isfinite(excess) and excess > 0 else (low + high) / 2
            step = min(max(vertex, low + 0.1 * (high - low)), low + 0.5 * (high - low))
            continue
        if lower is None or loss <= lower.loss:
            lower = _Point(point, loss, gradient, step)
        if _dot(gradient, direction) >= _CURVATURE * slope:
            return lower, trial
        low = step
        step = 4 * step if high == math.inf else (low + high) / 2
    return lower, min(_TRIALS, evaluations)


class _Curvatures:
    """Diagonal of the initial inverse Hessian, estimated per group of parameters."""

    def __init__(self, groups: Tensor) -> None:
        self._groups = groups
        self._members = torch.bincount(groups.flatten()).clamp(min=1)
        self._inverse: Tensor | None = None

    def inverse(self, gradient: Tensor) -> Tensor:
        """The diagonal, for each parameter. Before the first step: RMS(gradient)^-0.75 per group."""
        each = self._rms_of(gradient) ** -0.75 if self._inverse is None else self._inverse
        return each[self._groups].view(*self._groups.shape, *[1] * (gradient.ndim - self._groups.ndim))

    def learn(self, step: Tensor, change: Tensor) -> None:
        """Updates the estimate by RMS(step) / RMS(change of the gradient), as the geometric mean with the previous one."""
        now = self._rms_of(step) / self._rms_of(change)
        self._inverse = now if self._inverse is None else (self._inverse * now).sqrt()

    def _rms_of(self, values: Tensor) -> Tensor:
        """Root mean square of each group, at least 1e-4 of the largest."""
        squares = values.square().view(self._groups.numel(), -1).mean(1)
        each = (torch.bincount(self._groups.flatten(), squares, len(self._members)) / self._members).sqrt()
        return each.clamp(min=1e-4 * max(float(each.max()), 1e-30)).to(values.dtype)


def _two_loops(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, float]], initial: Tensor | None = None) -> Tensor:
    """Two-loop recursion: minus the estimated inverse Hessian times the gradient; `initial` is its initial diagonal."""
    direction = -gradient
    shares: list[float] = []
    for step, change, inverse in reversed(pairs):
        shares.append(inverse * _dot(step, direction))
        direction.sub_(change, alpha=shares[-1])
    if initial is not None:
        direction.mul_(initial)
    elif pairs:
        _, change, inverse = pairs[-1]
        direction.mul_(1 / (inverse * _dot(change, change)))
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        direction.add_(step, alpha=share - inverse * _dot(change, direction))
    return direction


def adam_of(parameters: Tensor, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    """torch's Adam for one tensor. Its state is made here, since torch would count the steps on its default device."""
    optimizer = torch.optim.Adam([parameters], lr=learning_rate, weight_decay=weight_decay)
    moments = {name: torch.zeros_like(parameters, memory_format=torch.preserve_format) for name in ("exp_avg", "exp_avg_sq")}
    optimizer.state[parameters] = {"step": torch.zeros((), dtype=torch.float32, device="cpu"), **moments}
    return optimizer


def adam(start: Tensor, evaluations: int, *, learning_rate: float = 0.05) -> Minimizer:
    """Adam (Kingma and Ba 2015): torch's, with its default decay rates 0.9 and 0.999."""
    parameters = start.clone()
    optimizer = adam_of(parameters, learning_rate)
    for _ in range(evaluations):
        _, parameters.grad = yield parameters.detach().clone()
        optimizer.step()
    return parameters.detach()


def clipped_sgd(
    start: Tensor,
    evaluations: int,
    *,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    decay: float = 0.9,
    every: int = 10,
    clip: float = 10.0,
    weight_decay: float = 5e-4,
    still: float = 0.005,
) -> Minimizer:
    """Optimizer of the feature map inversion paper: gradient descent with momentum, the gradient clipped element by element.

    Args:
        start: Pixels in 0..255 minus the mean colour.
        evaluations: Most steps.
        learning_rate: Learning rate, times `decay` after `every` steps.
        momentum: Share of the last step that is taken again.
        decay: See `learning_rate`.
        every: See `learning_rate`.
        clip: Largest magnitude of an element of the gradient.
        weight_decay: Pull towards zero, added after clipping.
        still: Ends where a step is shorter than this share of the parameters' norm.
    """
    point, speed = start.clone(), torch.zeros_like(start)
    for step in range(evaluations):
        _, gradient = yield point
        pull = gradient.clamp(-clip, clip) + weight_decay * point
        speed = momentum * speed - learning_rate * decay ** (step // every) * pull
        point = point + speed
        if float(speed.norm()) < still * float(point.norm()):
            break
    return point


MINIMIZERS: dict[str, Callable[..., Minimizer]] = {"lbfgs": lbfgs, "adam": adam, "paper": clipped_sgd}


def find_minimizer(name: str, evaluations: int, **options: Any) -> Callable[[Tensor], Minimizer]:
    """An optimizer by name, for any start.

    Raises:
        BadInput: Unknown name, or no evaluations.
    """
    if name not in MINIMIZERS:
        raise BadInput(f"optimizer must be one of {', '.join(MINIMIZERS)}, got {name!r}")
    if not is_whole(evaluations) or evaluations < 1:
        raise BadInput(f"steps must be a whole number of at least 1, got {evaluations!r}")
    return partial(MINIMIZERS[name], evaluations=evaluations, **options)


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
