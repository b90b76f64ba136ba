"""From a name to a network, what it expects of its input, and its weights: the part of :func:`convscope.open` below the Scope."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from convscope.errors import BadInput, BadWeights
from convscope.scope.inputs import Inputs
from convscope.scope.network import weights_hash
from convscope.zoo.reading import SUFFIXES, WeightsFile
from convscope.zoo.weights import class_count, put_weights

PRETRAINED = "pretrained"
"""The value of `weights` that means: those published with the network."""

RANDOM = "random"
"""The value of `weights` that means none, as None does."""

FORMS = "a torchvision classifier (vgg16_bn), timm:NAME, path/to/file.py:function, or textures"
"""What a name may be, for error messages."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network that a name stands for.

    Attributes:
        model: The network, with its weights, on the CPU unless a user's function put it elsewhere.
        inputs: What it expects of its input.
        name: The name it was asked for.
        weights: As asked for: "pretrained", a path, or None for random ones.
        precision: "auto" unless a user's function returned a Scope that says otherwise.
    """

    model: nn.Module
    inputs: Inputs
    name: str = ""
    weights: str | None = PRETRAINED
    precision: str = "auto"

    @property
    def weights_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over all weights."""
        return weights_hash(self.model)


def load(name: str, weights: str | Path | None = PRETRAINED) -> Loaded:
    """Builds the network that a name stands for, with its weights; see :func:`convscope.open` for both.

    Global random state is left as it was.

    Raises:
        BadInput: No such network.
        BadWeights: The weights cannot be had, or do not fit.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not check types)
        hint = "; a network that exists already goes into convscope.Scope(model, inputs)" if isinstance(name, nn.Module) else ""
        raise BadInput(f"expected the name of a network, got {type(name).__name__}{hint}")
    if weights is not None and not isinstance(weights, (str, Path)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"weights: expected 'pretrained', 'random', the path of a weights file, or None, got {type(weights).__name__}")
    if weights == RANDOM:
        weights = None
    with _fixed_seed():
        loaded = _loader(name)(name, weights)
    return replace(loaded, name=name, weights=None if weights is None else str(weights))


def fill(build: Callable[[int | None], nn.Module], inputs: Inputs, file: WeightsFile, name: str) -> Loaded:
    """Builds a network and puts a file's weights in, with as many classes as the file has.

    Args:
        build: Makes the network, with the number of classes given or, for None, its own.
        inputs: What the network expects; the class names are kept only where the file does not tell otherwise.
        file: The weights.
        name: How to call the network in errors.
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


def near(name: str, known: Iterable[str]) -> str:
    """A remark that lists the names most like `name`, or nothing where none is."""
    known = list(known)
    similar = difflib.get_close_matches(name.lower(), known, n=5)
    similar += [other for other in known if name.lower() in other.lower() and other not in similar][: 5 - len(similar)]
    return f"; near names: {', '.join(similar)}" if similar else ""


def _loader(name: str) -> Callable[[str, str | Path | None], Loaded]:
    from convscope.zoo import from_file, from_textures, from_timm, from_torchvision

    if name.startswith("timm:"):
        return from_timm.load_timm
    if from_file.is_file_name(name):
        return from_file.load_file
    if name == "textures":
        return from_textures.load_textures
    known = from_torchvision.names()
    if name in known:
        return from_torchvision.load_torchvision
    if Path(name).suffix in SUFFIXES:
        raise BadInput(f"{name} names a file of weights; say which network they are for: open('resnet50', weights={name!r})")
    raise BadInput(f"unknown network {name!r}{near(name, [*known, 'textures'])}{_in_timm(name)}; a name is {FORMS}")


def _in_timm(name: str) -> str:
    if importlib.util.find_spec("timm") is None:
        return ""
    import timm

    return f"; timm has it: timm:{name}" if name and timm.is_model(name) else ""


@contextmanager
def _fixed_seed() -> Generator[None]:
    """Random weights drawn inside are the same every time, and the draws of the caller's program go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also reseed every GPU
        yield
