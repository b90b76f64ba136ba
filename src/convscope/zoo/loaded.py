"""What the loaders of the zoo share: `Loaded`, which all return, plain defaults, a network that fits a file of weights, packages."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from convscope.errors import BadInput, BadWeights, NotInstalled
from convscope.scope.inputs import Inputs
from convscope.zoo.weights import class_count, put_weights
from convscope.zoo.weights_file import WeightsFile

PRETRAINED = "pretrained"
"""The value of `weights` that means the weights published with the network."""


@contextmanager
def plain_defaults() -> Generator[None]:
    """Within the block, networks are built in float32 on the CPU, whatever torch's defaults are."""
    before = torch.get_default_dtype()
    with torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network that was loaded by name.

    Attributes:
        model: The network, with its weights, on the CPU unless a user's function put it elsewhere.
        inputs: What it expects of its input.
        name: The name it was asked for.
        weights: As asked for: "pretrained", a path, or None for random ones.
        precision, fast, output: "auto", and None, unless a user's function returned a Scope that says otherwise.
    """

    model: nn.Module
    inputs: Inputs
    name: str = ""
    weights: str | None = PRETRAINED
    precision: str = "auto"
    fast: bool | Literal["auto"] = "auto"
    output: str | None = None


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


def optional(module: str, need: str, extra: str) -> Any:
    """Imports a package that is no dependency of convscope.

    Args:
        module: Its name.
        need: What is asked and which packages it needs, for the error.
        extra: The extra of convscope that installs them.

    Raises:
        NotInstalled: It is not installed.
        BadInput: It is, but cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name != module:
            raise BadInput(f"{module} is installed but cannot be imported ({error})") from error
        raise NotInstalled(need, extra) from None
