"""Networks named by the record that an image or a survey carries (its receipt or manifest): opened again, and checked to be the same.

A record may name a network of torchvision, timm or convscope and the weights published with it. Code and files are never taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convscope.errors import BadInput, BadWeights, StoreConflict
from convscope.files import jsonable
from convscope.scope import Scope
from convscope.zoo import open as open_network

_ZOO_NAME = re.compile(r"\w+|timm:[\w.-]+", re.ASCII)
"""Names that a record may open: textures, torchvision's and timm's, never a file."""


def open_recorded(network: Mapping[str, Any], source: str | Path, *, weights: str | Path | None = None, **settings: Any) -> Scope:
    """The network of a record.

    Args:
        network: What the record says of it: "name", "weights" and "output" (a manifest's entry "network").
        source: The file or folder that holds the record, for messages.
        weights: Its weights, if they are a file.
        settings: Device, precision, and fast, as of :func:`convscope.open`.

    Raises:
        BadInput: The record names a network or weights that only the caller can give.
    """
    name, published = network.get("name"), network.get("weights")
    if not isinstance(name, str) or not _ZOO_NAME.fullmatch(name):
        raise BadInput(f"{source}: made with the network {name}, which a receipt cannot open; give it as `scope` (--network)")
    if weights is None and published not in (None, "pretrained"):
        raise BadInput(f"{source}: made with the weights {published}, which a receipt cannot read; give the file as `weights` (--weights)")
    return open_network(name, weights=weights or published, output=recorded_output(network), **settings)


def recorded_output(network: Mapping[str, Any]) -> str | None:
    """Which part of what the network returns was the layer "output"; None for all of it."""
    output = network.get("output")
    return output if isinstance(output, str) else None


def check_recorded(scope: Scope, network: Mapping[str, Any], source: str | Path) -> None:
    """Checks that a scope's network is that of a record: the same input size, normalization and weights.

    Raises:
        BadInput: It has other inputs.
        BadWeights: It has other weights.
        StoreConflict: The record does not say what they were.
    """
    inputs, weights = network.get("inputs"), network.get("weights_hash")
    if not isinstance(inputs, Mapping) or not isinstance(weights, str):
        raise StoreConflict(f"{source}: its receipt is damaged (inputs or weights of the network are missing)")
    own = jsonable(scope.inputs.manifest())
    if differing := [key for key in ("size", "mean", "std") if own[key] != inputs.get(key)]:
        raise BadInput(f"{source}: made with other inputs ({', '.join(f'{key} {inputs.get(key)}' for key in differing)})")
    if scope.weights_hash != weights:
        raise BadWeights(f"{source}: made with weights {weights}, but {scope.name} has {scope.weights_hash}")
