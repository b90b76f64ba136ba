"""Networks of timm, an optional dependency: ``timm:NAME``."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from convscope.errors import BadInput, BadWeights
from convscope.names import near_hint
from convscope.scope.inputs import Inputs
from convscope.zoo import from_torchvision
from convscope.zoo.loaded import PRETRAINED, Loaded, load_from_file, optional
from convscope.zoo.weights_file import read_weights

EXPECTED = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "fixed_input_size")
"""What timm's description of weights says of preprocessing."""

_log = logging.getLogger("convscope")


def load_timm(name: str, weights: str | Path | None) -> Loaded:
    """Loads a timm network with its published weights, a file's, or random ones.

    Raises:
        NotInstalled: timm is not installed.
        BadInput: It has no such network.
        BadWeights: The weights cannot be downloaded or read, or do not fit.
    """
    timm = optional("timm", "networks named timm:NAME need timm", "timm")
    short = name.removeprefix("timm:")
    _check_name(timm, short)
    if weights == PRETRAINED:
        model = _pretrained(timm, short, name)
        return Loaded(model, _inputs(model, name))
    if weights is None:
        model = timm.create_model(short, pretrained=False)
        return Loaded(model, _inputs(model, name))

    def build(count: int | None) -> nn.Module:
        return timm.create_model(short, pretrained=False, **({} if count is None else {"num_classes": count}))

    file = read_weights(weights)
    model = build(None)
    inputs = _inputs(model, name)
    return load_from_file(lambda count: model if count is None else build(count), inputs, file, name)


def _check_name(timm: Any, short: str) -> None:
    plain = short.partition(".")[0]
    if not plain or not timm.is_model(plain):
        raise BadInput(f"timm has no network {short!r}{near_hint(short, timm.list_models())}")
    if "." in short and short not in timm.list_pretrained():
        raise BadInput(f"timm has no weights {short!r} for {plain}{near_hint(short, timm.list_pretrained(f'{plain}.*'))}")


def _pretrained(timm: Any, short: str, name: str) -> nn.Module:
    configuration = timm.get_pretrained_cfg(short)
    if configuration is None or not configuration.has_weights:
        raise BadWeights(f"timm publishes no weights for {name}; give a file of your own, or weights=None for random weights")
    try:
        return timm.create_model(short, pretrained=True)
    except Exception as error:  # which errors a failed download raises depends on the client that timm's hub library uses
        raise from_torchvision.not_downloaded(name, error) from error


def _inputs(model: nn.Module, name: str) -> Inputs:
    configuration: dict[str, Any] = getattr(model, "pretrained_cfg", {})
    count = getattr(model, "num_classes", 0)
    expects = importlib.import_module("timm.data").resolve_model_data_config(model)
    return inputs_of(expects, class_names(configuration.get("label_names"), str(configuration.get("tag", "")), count), name)


def inputs_of(expects: Mapping[str, Any], classes: tuple[str, ...] | None, name: str) -> Inputs:
    """What a network of timm expects of its input, from timm's data configuration.

    Raises:
        BadInput: It takes no RGB images.
    """
    channels, height, width = expects["input_size"]
    if len(expects["mean"]) != channels:
        raise BadInput(f"{name} takes {channels} channels, but its normalization has {len(expects['mean'])}; give the module to Scope")
    share, mode = float(expects["crop_pct"]), expects["crop_mode"]
    if mode == "border" or (mode == "squash" and share < 1):
        _log.warning("%s was evaluated with crop mode %s, share %g; images are squashed to %dx%d instead", name, mode, share, height, width)
    return Inputs(
        size=height if height == width else (height, width),
        mean=tuple(expects["mean"]),
        std=tuple(expects["std"]),
        classes=classes,
        interpolation=expects["interpolation"],
        crop=height / math.floor(height / share) if mode == "center" else None,
    )


def class_names(labels: Sequence[str] | None, tag: str, count: int) -> tuple[str, ...] | None:
    """The names of `count` classes: as given, or ImageNet's where the weights' tag says so."""
    if labels:
        return tuple(labels)
    return from_torchvision.imagenet_classes() if tag.endswith("in1k") and count == 1000 else None
