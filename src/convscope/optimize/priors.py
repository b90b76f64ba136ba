"""Image priors: penalties on the pixels alone, small for natural images.

Listed with the objectives in :mod:`convscope.optimize.objectives`, and for the command line in :mod:`convscope.cli.objectives`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import BadInput
from convscope.optimize.objective import Objective, Values, named
from convscope.optimize.parameterizations.mean_subtracted import mean_subtracted

Prior: TypeAlias = Literal["none", "ijcv2016", "cvpr2015", "contrast"]
"""The priors of the inversion papers, and one for the contrast alone, by name."""

PRIORS: tuple[Prior, ...] = ("none", "ijcv2016", "cvpr2015", "contrast")

_CONTRAST = 0.003
"""Weight of "contrast" beside a normalized error: hardly any value is at the ends of the range, and the error rises by 0.01 to 0.04 (maps
of SqueezeNet's features.3 and features.7)."""

_VARIANCE = 9961.0
"""Variance of ImageNet's pixels, summed over colours, in 0..255: per position, what Mahendran and Vedaldi 2015 divide their priors by."""


@named
def total_variation() -> Objective:
    """Total variation: sum of absolute differences of neighbouring pixels, as tf.image.total_variation."""

    def score(_values: Values, images: Tensor) -> Tensor:
        return images.diff(dim=-1).abs().flatten(1).sum(1) + images.diff(dim=-2).abs().flatten(1).sum(1)

    return Objective(frozenset(), score, independent=True)


@named
def norm(power: float = 2.0, around: float = 0.5) -> Objective:
    """Mean of abs(x - around) ** power over an image's pixels."""
    return Objective(frozenset(), lambda _, images: (images - around).abs().pow(power).flatten(1).mean(1), independent=True)


@named
def natural_norm(power: float = 6.0, bound: float = 80.0) -> Objective:
    """(1/HW) sum over positions of (sum_c x_c^2)^(power/2) / bound^power, with x = 255 times the image minus the mean colour.

    Small for the contrast of photographs, steep beyond it.

    Source:
        Mahendran and Vedaldi 2016 (arXiv 1512.02017).
    """

    def score(_values: Values, images: Tensor) -> Tensor:
        energy = mean_subtracted(images).square().sum(1) / bound**2
        return energy.pow(power / 2).flatten(1).mean(1)

    return Objective(frozenset(), score, independent=True)


@named
def natural_variation(power: float = 2.0, bound: float = 80.0 / 6.5) -> Objective:
    """(1/HW) sum over positions and colours of (dx^2 + dy^2)^(power/2) / bound^power, differences in units of 1/255.

    The last row and column count as repeated: their difference is 0.

    Source:
        Mahendran and Vedaldi 2016; power 1 gives spikes (2015, figure 2).
    """

    def score(_values: Values, images: Tensor) -> Tensor:
        across, down = (F.pad(255 * images.diff(dim=axis), (0, axis == -1, 0, axis == -2)) for axis in (-1, -2))
        squares = across.square() + down.square()
        powers = squares if power == 2 else _safe_power(squares, power / 2)
        return powers.sum(1).flatten(1).mean(1) / bound**power

    return Objective(frozenset(), score, independent=True)


@named
def power_norm(power: int = 6) -> Objective:
    """(1/HW) sum over positions and colours of x^power, with x = 255 times the image minus the mean colour.

    Source:
        Mahendran and Vedaldi 2015 (arXiv 1412.0035).
    """
    return Objective(frozenset(), lambda _, images: mean_subtracted(images).pow(power).sum(1).flatten(1).mean(1), independent=True)


def find_prior(prior: Prior | tuple[Prior, float] | Objective, depth: float) -> Objective | None:
    """A prior by name, as the penalty to add to a loss.

    "ijcv2016" is :func:`natural_norm` + :func:`natural_variation`. "cvpr2015" is 4e-10 sum |x|^6 + lambda / 2 sum (dx^2 + dy^2), over
    sigma^2, with lambda = 1, 10 or 100 for layers in the first quarter, the second quarter and the second half of the network. "contrast"
    is 0.003 times :func:`natural_norm`.

    Args:
        prior: "none", "ijcv2016", "cvpr2015", "contrast", a name with a weight such as ("cvpr2015", 0.1), or an objective that is small for
            natural images.
        depth: Depth of the layer in the network, 0 to 1.

    Raises:
        BadInput: None of these.
    """
    if isinstance(prior, Objective):
        return prior
    given: Any = prior
    name, weight = (given, 1.0) if isinstance(given, str) else given if isinstance(given, tuple) and len(given) == 2 else (None, 0.0)
    number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight) and weight >= 0
    if name not in PRIORS or not number:
        raise BadInput(f"prior must be {', '.join(PRIORS)}, one with a weight such as ('cvpr2015', 0.1), or an objective, got {prior!r}")
    if name == "none" or not weight:
        return None
    if name == "contrast":
        return _CONTRAST * float(weight) * natural_norm()
    if name == "ijcv2016":
        return float(weight) * (natural_norm() + natural_variation())
    variation = (1.0 if depth <= 0.25 else 10.0 if depth <= 0.5 else 100.0) / 2 / _VARIANCE
    return float(weight) * ((4e-10 / _VARIANCE) * power_norm() + variation * natural_variation(bound=1.0))


def _safe_power(values: Tensor, power: float) -> Tensor:
    """values ** power for values >= 0, with derivative 0 instead of infinity at 0."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1).pow(power), 0)
