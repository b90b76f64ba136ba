"""Networks of torchvision, with the options that their published weights need and the preprocessing of torchvision's presets."""

from __future__ import annotations

import io
import logging
import re
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse

import torch
from torch import nn

from convscope.errors import BadWeights
from convscope.scope.inputs import Inputs
from convscope.text import one_line
from convscope.zoo.loaded import PRETRAINED, Loaded, load_from_file
from convscope.zoo.weights_file import WeightsFile, read_weights

_log = logging.getLogger("convscope")
_TRAINING_HEADS = re.compile(r"(?:^|\.)(?:aux1|aux2|AuxLogits)\.")
"""Auxiliary classifiers of GoogLeNet and Inception v3: in the weights, but never run in evaluation mode."""
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
"""Densenet's published weights have names with a dot (``norm.1``) that PyTorch no longer allows."""


def names() -> list[str]:
    """Names of all classifiers of torchvision."""
    models = _models()
    return models.list_models(module=models)


def load_torchvision(name: str, weights: str | Path | None) -> Loaded:
    """Loads a torchvision network with its default weights, a file's, or random ones.

    Raises:
        BadWeights: They cannot be downloaded or read, or do not fit.
    """
    inputs = preset(name)
    if weights is None:
        return Loaded(build(name), inputs)
    file = download(name) if weights == PRETRAINED else read_weights(weights)
    tensors = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in file.tensors.items() if not _TRAINING_HEADS.search(key)}
    return load_from_file(lambda count: build(name, count), inputs, replace(file, tensors=tensors), name)


def build(name: str, num_classes: int | None = None) -> nn.Module:
    """An untrained network, without the heads used only in training, with the options that its published weights need."""
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):
        options |= {"transform_input": True, "aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        options["image_size"] = preset(name).size  # its position embedding exists for one size
    return _models().get_model(name, weights=None, **options)


def preset(name: str) -> Inputs:
    """The preprocessing and the class names of a network's default weights; nothing is downloaded."""
    entry = _entry(name)
    transform = entry.transforms()
    (crop,), (resize,) = transform.crop_size, transform.resize_size
    return Inputs(
        size=crop,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        classes=tuple(entry.meta["categories"]),
        interpolation=transform.interpolation.value,
        crop=crop / resize,
    )


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 classes of ImageNet, in the order of the logits."""
    return tuple(_entry("resnet50").meta["categories"])


def download(name: str) -> WeightsFile:
    """A network's default weights from torch.hub's cache; downloaded on first use, and checked against the hash in the file's name.

    Raises:
        BadWeights: They cannot be downloaded, or the file in the cache is damaged.
    """
    url: str = _entry(name).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.exists():
        _fetch(url, path, name)
    try:
        return read_weights(path)
    except BadWeights as error:
        raise BadWeights(f"{error.message}; delete this file and the pretrained weights of {name} are downloaded again") from None


def not_downloaded(name: str, reason: object) -> BadWeights:
    """The error for pretrained weights that could not be downloaded: the reason, and what to do instead."""
    return BadWeights(
        f"the pretrained weights of {name} could not be downloaded ({one_line(reason)}); "
        "give a local file (--weights FILE or weights='file.safetensors'), or weights=None for random weights"
    )


def _fetch(url: str, path: Path, name: str) -> None:
    hashed = torch.hub.HASH_REGEX.search(path.name)
    on_terminal = sys.stderr.isatty()
    _log.info("downloading the weights of %s from %s to %s", name, url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr if on_terminal else io.StringIO()):
            torch.hub.download_url_to_file(url, str(path), hashed[1] if hashed else None, progress=on_terminal)
    except HTTPError as error:
        error.close()
        raise not_downloaded(name, f"{url}: {error}") from None
    except (OSError, HTTPException, RuntimeError, ValueError) as error:  # a hash that does not match is a RuntimeError
        raise not_downloaded(name, f"{url}: {one_line(error)}") from None


def _entry(name: str) -> Any:
    entries: Any = _models().get_model_weights(name)
    return entries.DEFAULT


def _models() -> Any:
    """The networks of torchvision, which takes as long to load as torch: only where one is asked for."""
    from torchvision import models

    return models
