"""Loads a network by its name: of torchvision, timm, a package, a user's file, or the bundled one. `convscope.open` makes a Scope of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from convscope.errors import BadInput
from convscope.names import near_hint
from convscope.zoo import from_file, from_folder, from_textures, from_timm, from_torchvision, from_weight_packages
from convscope.zoo.loaded import PRETRAINED, Loaded, plain_defaults
from convscope.zoo.weights_file import SUFFIXES

RANDOM = "random"
"""The value of `weights` that means random weights, as None does."""

FORMS = "a torchvision classifier (vgg16_bn), efficientnet_lite0 to 2, timm:NAME, hf:path/to/folder, path/to/file.py:function, or textures"
"""The kinds of names, for error messages."""


def load_network(name: str, weights: str | Path | None = PRETRAINED) -> Loaded:
    """Builds a network by its name, with its weights; see :func:`convscope.open` for both.

    Global random state is left as it was.

    Raises:
        BadInput: No such network.
        BadWeights: The weights cannot be downloaded or read, or do not fit.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not check types)
        hint = "; a network that exists already goes into convscope.Scope(model, inputs)" if isinstance(name, nn.Module) else ""
        raise BadInput(f"expected the name of a network, got {type(name).__name__}{hint}")
    if weights is not None and not isinstance(weights, (str, Path)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"weights: expected 'pretrained', 'random', the path of a weights file, or None, got {type(weights).__name__}")
    if weights == RANDOM:
        weights = None
    with _fixed_seed(), nullcontext() if from_file.is_file_name(name) else plain_defaults():
        loaded = _loader(name)(name, weights)
    return replace(loaded, name=name, weights=None if weights is None else str(weights))


def _loader(name: str) -> Callable[[str, str | Path | None], Loaded]:
    """The function that loads networks of this kind of name."""
    if name.startswith("timm:"):
        return from_timm.load_timm
    if name.startswith(from_folder.PREFIX):
        return from_folder.load_folder
    if from_file.is_file_name(name):
        return from_file.load_file
    if name == "textures":
        return from_textures.load_textures
    if name in from_weight_packages.NETWORKS:
        return from_weight_packages.load_packaged
    known = from_torchvision.names()
    if name in known:
        return from_torchvision.load_torchvision
    if Path(name).suffix in SUFFIXES:
        raise BadInput(f"{name} names a file of weights; say which network they are for: open('resnet50', weights={name!r})")
    hint = near_hint(name, [*from_weight_packages.NETWORKS, *known, "textures"])
    raise BadInput(f"unknown network {name!r}{hint}{_timm_hint(name)}; a name is {FORMS}")


def _timm_hint(name: str) -> str:
    """Says that timm has a network of this name, if it has."""
    if importlib.util.find_spec("timm") is None:
        return ""
    import timm

    return f"; timm has it: timm:{name}" if name and timm.is_model(name) else ""


@contextmanager
def _fixed_seed() -> Generator[None]:
    """Within the block, random weights are drawn from a fixed seed; the global random state of torch is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also reseed every GPU
        yield
