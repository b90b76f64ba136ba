"""What an optimized picture is to maximize: small objectives that add, subtract and scale like numbers.

An objective looks at layer values and pictures and gives one number per picture; larger is better. Penalties are objectives too, and
are subtracted: ``unit("features.12", 3) - 0.1 * total_variation()``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import BadInput
from convscope.optimize.parameterizations.mean_subtracted import mean_subtracted
from convscope.scope import OUTPUT, Scope
from convscope.scope.precision import wide

_SIGMA = 9961.0
"""Variance of ImageNet's pixels, summed over colours, in 0..255: per position, what Mahendran and Vedaldi 2015 divide their priors by."""


class Values(Mapping[str, Tensor]):
    """What a pass gave, {layer: (n c ...)} in float32 (or the network's own wider type), units on axis 1.

    Args:
        values: The values.
        units: Of layers that did not come whole, the units that did, in order.
    """

    def __init__(self, values: Mapping[str, Tensor], units: Mapping[str, Sequence[int]] | None = None) -> None:
        self._values = dict(values)
        self._units = dict(units or {})

    def __getitem__(self, layer: str) -> Tensor:
        if layer in self._units:
            raise KeyError(f"only units {self._units[layer]} of {layer} were asked for: an objective on all of it must not name units")
        return wide(self._values[layer])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def chosen(self, layer: str, units: int | Sequence[int]) -> Tensor:
        """One unit's value for each picture, (n ...); only these are widened, and only their gradients are."""
        value = self._values[layer]
        if layer in self._units:
            units = [self._units[layer].index(unit) for unit in _as_list(units)]
        index = torch.as_tensor(units, device=value.device).expand(len(value))
        return wide(value[torch.arange(len(value), device=value.device), index])


@dataclass(frozen=True)
class Objective:
    """One number per picture.

    Attributes:
        layers: The layers whose values it looks at.
        score: (values {layer: (n c ...)}, pictures (n 3 h w)) -> (n,). Values come with their units on axis 1.
        units: Of layers that it does not look at as a whole, the units that it takes by :meth:`Values.chosen`.
    """

    layers: frozenset[str]
    score: Callable[[Values, Tensor], Tensor]
    units: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])

    def __call__(self, scope: Scope, pictures: Tensor) -> Tensor:
        """(n,) scores of pictures (n 3 h w), differentiable."""
        units = {layer: sorted(asked) for layer, asked in self.units.items()}
        raw = scope.run(pictures, sorted(self.layers), units=units, widen=False) if self.layers else {}
        return self.score(Values({name: scope.layers[name].channels_first(value) for name, value in raw.items()}, units), pictures)

    def __add__(self, other: Objective | float) -> Objective:
        other = _objective(other)
        parts = self, other
        units = {
            layer: frozenset[int]().union(*(part.units.get(layer, ()) for part in parts))
            for layer in self.units.keys() | other.units.keys()
            if all(layer in part.units for part in parts if layer in part.layers)
        }
        return Objective(
            self.layers | other.layers, lambda values, pictures: self.score(values, pictures) + other.score(values, pictures), units
        )

    def __mul__(self, factor: float) -> Objective:
        return Objective(self.layers, lambda values, pictures: factor * self.score(values, pictures), self.units)

    def __sub__(self, other: Objective | float) -> Objective:
        return self + -1.0 * _objective(other)

    def __rsub__(self, other: Objective | float) -> Objective:
        return _objective(other) - self

    def __neg__(self) -> Objective:
        return -1.0 * self

    __radd__ = __add__
    __rmul__ = __mul__


def unit(layer: str, units: int | Sequence[int], *, reduce: str = "mean") -> Objective:
    """The mean (or sum, or centre value) over positions of one unit; of one unit per picture, if `units` is a list.

    Args:
        layer: Layer name; on "output" units are classes (the logit).
        units: Unit number, or as many as there are pictures.
        reduce: "mean" or "sum" over all positions, or "center": the one position in the middle.
    """
    if reduce not in ("mean", "sum", "center"):
        raise BadInput(f"reduce must be mean, sum or center, got {reduce!r}")

    def score(values: Values, _pictures: Tensor) -> Tensor:
        value = values.chosen(layer, units)
        if value.ndim == 1 or reduce == "center":
            return value if value.ndim == 1 else value[(slice(None), *(length // 2 for length in value.shape[1:]))]
        return value.flatten(1).mean(1) if reduce == "mean" else value.flatten(1).sum(1)

    return Objective(frozenset([layer]), score, {layer: frozenset(_as_list(units))})


def neuron(layer: str, units: int | Sequence[int], y: int, x: int) -> Objective:
    """The value of one unit at one position (y down, x right)."""
    return Objective(frozenset([layer]), lambda values, _: values.chosen(layer, units)[:, y, x], {layer: frozenset(_as_list(units))})


def direction(layer: str, vector: Tensor, *, cosine_power: float = 0.0) -> Objective:
    """The mean over positions of the dot product with a direction (c,), times max(0.1, cosine) to a power.

    Source:
        Lucid's `objectives.direction`; power 0 is the plain dot product.
    """

    def score(values: Values, _pictures: Tensor) -> Tensor:
        value = values[layer].flatten(2) if values[layer].ndim > 2 else values[layer][..., None]
        along = vector.to(value)
        dot = torch.einsum("ncp,c->np", value, along)
        cosine = dot / (value.norm(dim=1) * along.norm() + 1e-6)
        return (dot * cosine.clamp(min=0.1) ** cosine_power).mean(1)

    return Objective(frozenset([layer]), score)


def class_evidence(units: int | Sequence[int]) -> Objective:
    """The logit of a class minus the log-sum-exp of all others: its log-odds, which rise only if the class wins."""

    def score(values: Values, _pictures: Tensor) -> Tensor:
        logits = values[OUTPUT].flatten(1)
        index = torch.as_tensor(units, device=logits.device).expand(len(logits))[:, None]
        own = logits.gather(1, index)[:, 0]
        return own - logits.scatter(1, index, -torch.inf).logsumexp(1)

    return Objective(frozenset([OUTPUT]), score)


def deepdream(layer: str) -> Objective:
    """The mean square of everything at a layer (Mordvintsev 2015): whatever is there, more of it."""
    return Objective(frozenset([layer]), lambda values, _: values[layer].flatten(1).square().mean(1))


def total_variation() -> Objective:
    """Sum of absolute differences of neighbouring pixels, as tf.image.total_variation."""

    def score(_values: Values, pictures: Tensor) -> Tensor:
        return pictures.diff(dim=-1).abs().flatten(1).sum(1) + pictures.diff(dim=-2).abs().flatten(1).sum(1)

    return Objective(frozenset(), score)


def norm(power: float = 2.0, around: float = 0.5) -> Objective:
    """Mean of abs(x - around) ** power over a picture's pixels."""
    return Objective(frozenset(), lambda _, pictures: (pictures - around).abs().pow(power).flatten(1).mean(1))


def natural_norm(power: float = 6.0, bound: float = 80.0) -> Objective:
    """(1/HW) sum over positions of (sum_c x_c^2)^(power/2) / bound^power, with x = 255 times the picture minus the mean colour.

    Small for the contrast of photographs, steep beyond it.

    Source:
        Mahendran and Vedaldi 2016 (arXiv 1512.02017).
    """

    def score(_values: Values, pictures: Tensor) -> Tensor:
        energy = mean_subtracted(pictures).square().sum(1) / bound**2
        return energy.pow(power / 2).flatten(1).mean(1)

    return Objective(frozenset(), score)


def natural_variation(power: float = 2.0, bound: float = 80.0 / 6.5) -> Objective:
    """(1/HW) sum over positions and colours of (dx^2 + dy^2)^(power/2) / bound^power, differences in steps of 1/255.

    The last row and column count as repeated: their difference is 0.

    Source:
        Mahendran and Vedaldi 2016; power 1 gives spikes (2015, figure 2).
    """

    def score(_values: Values, pictures: Tensor) -> Tensor:
        across, down = (F.pad(255 * pictures.diff(dim=axis), (0, axis == -1, 0, axis == -2)) for axis in (-1, -2))
        squares = across.square() + down.square()
        steps = squares if power == 2 else safe_power(squares, power / 2)
        return steps.sum(1).flatten(1).mean(1) / bound**power

    return Objective(frozenset(), score)


def safe_power(values: Tensor, power: float) -> Tensor:
    """values ** power for values >= 0, with derivative 0 instead of infinity at 0."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1).pow(power), 0)


def find_prior(prior: str | Objective, depth: float) -> Objective | None:
    """How natural a picture is, as a penalty: an objective itself, or the numbers of one of the inversion papers.

    "ijcv2016" is :func:`natural_norm` + :func:`natural_variation`. "cvpr2015" is 4e-10 sum |x|^6 + lambda / 2 sum (dx^2 + dy^2), over
    sigma^2, with lambda = 1, 10 or 100 for layers in the first quarter, the second quarter and the second half of the network.

    Args:
        prior: "none", "ijcv2016", "cvpr2015", a multiple such as "cvpr2015*0.1", or an objective that is small for natural pictures.
        depth: Where in the network the layer is, 0 to 1.
    """
    if isinstance(prior, Objective):
        return prior
    name, times, factor = prior.partition("*")
    if name not in ("none", "ijcv2016", "cvpr2015") or (times and not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", factor)):
        raise BadInput(f"prior must be none, ijcv2016, cvpr2015, a multiple such as cvpr2015*0.1, or an objective, got {prior!r}")
    strength = float(factor) if times else 1.0
    if name == "none" or not strength:
        return None
    if name == "ijcv2016":
        return strength * (natural_norm() + natural_variation())
    variation = (1.0 if depth <= 0.25 else 10.0 if depth <= 0.5 else 100.0) / 2 / _SIGMA
    sixth = Objective(frozenset(), lambda _, pictures: mean_subtracted(pictures).pow(6).sum(1).flatten(1).mean(1))
    return strength * ((4e-10 / _SIGMA) * sixth + variation * natural_variation(bound=1.0))


def sameness(layer: str) -> Objective:
    """How alike the pictures of a batch are: mean over the others of <G_a, G_b> for normalized Gram matrices, in [0,1].

    Subtract it to get different pictures for one unit. This objective alone couples the pictures of a batch.

    Source:
        Lucid's `objectives.diversity`.
    """

    def score(values: Values, _pictures: Tensor) -> Tensor:
        value = values[layer].flatten(2)
        gram = F.normalize((value @ value.mT).flatten(1), dim=1)
        alike = gram @ gram.mT
        return (alike.sum(1) - alike.diagonal()) / max(1, len(gram) - 1)

    return Objective(frozenset([layer]), score)


def _as_list(units: int | Sequence[int]) -> list[int]:
    return [units] if isinstance(units, int) else list(units)


def _objective(value: Objective | float) -> Objective:
    if isinstance(value, Objective):
        return value
    return Objective(frozenset(), lambda _, pictures: pictures.new_full((len(pictures),), float(value)))
