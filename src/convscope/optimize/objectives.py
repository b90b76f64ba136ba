"""Built-in objectives of feature visualization: unit, neuron, direction, class evidence, deepdream, diversity; and image priors.

They add, subtract and scale like numbers: see :mod:`convscope.optimize.objective`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce as fold
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import BadInput
from convscope.names import OUTPUT
from convscope.optimize.objective import UNNAMED, Objective, Values, as_list, constant, named, relative, vector_of
from convscope.optimize.priors import natural_norm, natural_variation, norm, power_norm, total_variation

__all__ = [
    "BUILT_IN",
    "Objective",
    "Values",
    "build",
    "class_evidence",
    "deepdream",
    "direction",
    "diversity",
    "from_description",
    "named",
    "natural_norm",
    "natural_variation",
    "neuron",
    "norm",
    "power_norm",
    "total_variation",
    "unit",
]


@named
def unit(layer: str, units: int | Sequence[int], *, reduce: Literal["mean", "sum", "center"] = "mean") -> Objective:
    """Activation of one unit, reduced over positions; of one unit per image, if `units` is a list.

    Args:
        layer: Layer name; on "output" units are classes (the logit).
        units: Unit number, or as many as there are images.
        reduce: "mean" or "sum" over all positions, or "center": the one position in the middle.
    """
    if reduce not in ("mean", "sum", "center"):
        raise BadInput(f"reduce must be mean, sum or center, got {reduce!r}")

    def score(values: Values, _images: Tensor) -> Tensor:
        value = values.chosen(layer, units)
        if value.ndim == 1 or reduce == "center":
            return value if value.ndim == 1 else value[(slice(None), *(length // 2 for length in value.shape[1:]))]
        return value.flatten(1).mean(1) if reduce == "mean" else value.flatten(1).sum(1)

    return Objective(frozenset([layer]), score, {layer: frozenset(as_list(units))}, independent=True)


@named
def neuron(layer: str, units: int | Sequence[int], y: int | None = None, x: int | None = None) -> Objective:
    """Activation of one unit at one position of its map, y down and x right; by default the middle.

    Positions count on the map of what the network is shown: with a recipe's transform, that of the transformed image.
    """

    def score(values: Values, _images: Tensor) -> Tensor:
        value = values.chosen(layer, units)
        if value.ndim != 3:
            raise BadInput(f"neuron: layer {layer} has no maps, so no position; use unit({layer!r}, ...)")
        height, width = value.shape[1:]
        row, column = height // 2 if y is None else y, width // 2 if x is None else x
        if not (0 <= row < height and 0 <= column < width):
            raise BadInput(f"neuron: layer {layer} has a map of {height}x{width} here, so no position y={row}, x={column}")
        return value[:, row, column]

    return Objective(frozenset([layer]), score, {layer: frozenset(as_list(units))}, independent=True)


@named
def direction(layer: str, vector: Tensor | np.ndarray | Sequence[float], *, cosine_power: float = 0.0) -> Objective:
    """Mean over positions of the dot product with a direction in activation space, times max(0.1, cosine) to a power.

    Args:
        layer: Layer name.
        vector: A value per unit of the layer, (c,).
        cosine_power: 0 is the plain dot product; larger values prefer activations of exactly that direction.

    Source:
        Lucid's `objectives.direction`.
    """
    along = vector if isinstance(vector, Tensor) else torch.from_numpy(np.array(vector, np.float64))
    if along.ndim != 1 or not len(along) or not bool(torch.isfinite(along).all()):
        raise BadInput(f"direction: expected finite values (c,), one per unit of the layer, got shape {tuple(along.shape)}")

    def score(values: Values, _images: Tensor) -> Tensor:
        value = values[layer].flatten(2) if values[layer].ndim > 2 else values[layer][..., None]
        if len(along) != value.shape[1]:
            raise BadInput(f"direction: the vector has {len(along)} values, but layer {layer} has {value.shape[1]} units")
        wanted = along.to(value)
        dot = torch.einsum("ncp,c->np", value, wanted)
        cosine = dot / (value.norm(dim=1) * wanted.norm() + 1e-6)
        return (dot * cosine.clamp(min=0.1) ** cosine_power).mean(1)

    return Objective(frozenset([layer]), score, independent=True)


@named
def class_evidence(units: int | Sequence[int]) -> Objective:
    """Log-odds of a class: its logit minus the log-sum-exp of all others, which rises only if the class wins."""

    def score(values: Values, _images: Tensor) -> Tensor:
        logits = values[OUTPUT].flatten(1)
        index = torch.as_tensor(units, dtype=torch.int64, device=logits.device).expand(len(logits))[:, None]
        own = logits.gather(1, index)[:, 0]
        return own - logits.scatter(1, index, -torch.inf).logsumexp(1)

    return Objective(frozenset([OUTPUT]), score, independent=True)


@named
def deepdream(layer: str) -> Objective:
    """DeepDream (Mordvintsev 2015): mean square of all values of a layer, which strengthens whatever is there."""
    return Objective(frozenset([layer]), lambda values, _: values[layer].flatten(1).square().mean(1), independent=True)


@named
def diversity(layer: str) -> Objective:
    """How different the images of a batch are: minus the mean over the others of <G_a, G_b>, normalized Gram matrices; from -1 to 0.

    Added to an objective, it makes the copies of one unit different. It is computed for the copies of one unit alone.

    Source:
        Lucid's `objectives.diversity`, with the opposite sign (Lucid's is subtracted) and divided by the number of other images.
    """

    def score(values: Values, _images: Tensor) -> Tensor:
        value = values[layer].flatten(2) if values[layer].ndim > 2 else values[layer][..., None]
        gram = F.normalize((value @ value.mT).flatten(1), dim=1)
        alike = gram @ gram.mT
        return -(alike.sum(1) - alike.diagonal()) / max(1, len(gram) - 1)

    return Objective(frozenset([layer]), score)


BUILT_IN: Mapping[str, Callable[..., Objective]] = {
    function.__name__: function
    for function in (
        *(unit, neuron, direction, class_evidence, deepdream, diversity),
        *(total_variation, norm, natural_norm, natural_variation, power_norm),
    )
}
"""The built-in objectives by name."""


def build(name: str, parameters: Mapping[str, Any]) -> Objective:
    """A built-in objective by name and parameters, e.g. ``build("neuron", {"layer": "features.12", "units": 3, "y": 5, "x": 5})``.

    Raises:
        BadInput: No such objective, or parameters that it does not have.
    """
    if name not in BUILT_IN:
        raise BadInput(f"no built-in objective {name!r}; there are: {', '.join(BUILT_IN)}")
    try:
        return BUILT_IN[name](**parameters)
    except TypeError as error:
        raise BadInput(f"objective {name}: {error}") from None


def from_description(description: Mapping[str, Any]) -> Objective:
    """The objective that :meth:`Objective.describe` described, made of built-in ones.

    Raises:
        BadInput: It has no name, is not made of built-in objectives, holds a vector by its hash only, or is damaged.
    """
    known: Any = description if isinstance(description, Mapping) else {}  # pyright: ignore[reportUnnecessaryIsInstance]
    name, parameters = known.get("name"), known.get("parameters")
    if not isinstance(name, str) or not isinstance(parameters, Mapping):
        raise BadInput(f"expected the description of an objective, with name and parameters, got {description!r:.80}")
    if name == UNNAMED:
        raise BadInput("the objective has no name (a lambda), so it cannot be made again from its description: pass it as `objective`")
    try:
        if name == "sum":
            return fold(lambda one, other: one + other, [from_description(term) for term in parameters["terms"]])
        if name == "relative":
            term, to = map(from_description, parameters["terms"])
            return relative(term, to)
        if name == "multiple":
            return float(parameters["factor"]) * from_description(parameters["objective"])
        if name == "constant":
            return constant(float(parameters["value"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"the description of the objective {name} is damaged ({error})") from None
    if name not in BUILT_IN:
        raise BadInput(f"objective {name} is none of convscope's own, so it cannot be made again from its description: pass it yourself")
    return build(name, {key: vector_of(value) if isinstance(value, Mapping) else value for key, value in parameters.items()})
