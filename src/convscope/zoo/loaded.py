"""`Loaded`, what every loader of the zoo returns, and `load_from_file`, which builds a network that fits a file of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from convscope.errors import BadWeights
from convscope.scope.inputs import Inputs
from convscope.zoo.weights import class_count, put_weights
from convscope.zoo.weights_file import WeightsFile

PRETRAINED = "pretrained"
"""The value of `weights` that means the weights published with the network."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network that was loaded by name.

    Attributes:
        model: The network, with its weights, on the CPU unless a user's function put it elsewhere.
        inputs: What it expects of its input.
        name: The name it was asked for.
        weights: As asked for: "pretrained", a path, or None for random ones.
        precision, fast: "auto" unless a user's function returned a Scope that says otherwise.
    """

    model: nn.Module
    inputs: Inputs
    name: str = ""
    weights: str | None = PRETRAINED
    precision: str = "auto"
    fast: bool | Literal["auto"] = "auto"


def load_from_file(build: Callable[[int | None], nn.Module], inputs: Inputs, file: WeightsFile, name: str) -> Loaded:
    """Builds a network with the weights of a file, and with as many classes as the file has.

    Args:
        build: Makes the network, with the given number of classes or, for None, its own number.
        inputs: What the network expects; its class names are used only if the file has none and the number of classes is unchanged.
        file: The weights.
        name: The network's name in error messages.

    Raises:
        BadWeights: The weights do not fit, or their class names do not.
    """
    model = build(None)
    count = class_count(model, file.tensors)
    if count is not None:
        model = build(count)
    put_weights(model, file, name)
    classes = file.classes if file.classes is not None or count is not None else inputs.classes
    if file.classes is not None and len(file.classes) != (outputs := count or len(inputs.classes or file.classes)):
        raise BadWeights(f"weights {file.source}: {len(file.classes)} class names in the metadata, but {outputs} classes")
    return Loaded(model, replace(inputs, classes=classes))
