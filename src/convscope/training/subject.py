"""What a training is watched by: the scope, units and images that :func:`convscope.watch` is given, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import BadInput
from convscope.names import layer_name
from convscope.receipts import write_png
from convscope.scope import Inputs, Scope
from convscope.scope.inputs import check_range
from convscope.text import one_line


def batch_of(images: Any) -> Tensor | None:
    """Images that are no files, (n c h w) in [0,1]; None where they are files."""
    if not isinstance(images, (Tensor, np.ndarray)):
        return None
    values = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images.detach().cpu()
    return check_range(values, 4, values.shape[1] if values.ndim == 4 and values.shape[1] == 1 else 3)


def scope_of(model: nn.Module | Scope, inputs: Inputs | None, given: Tensor | None) -> Scope:
    """The scope through which a network is looked at."""
    if isinstance(model, Scope) and inputs is not None:
        raise BadInput("a scope has its inputs; give the network itself, or no `inputs`")
    if given is not None and inputs is None:
        inputs = Inputs(size=(given.shape[-2], given.shape[-1]), channels=given.shape[1])
    scope = model if isinstance(model, Scope) else Scope(model, inputs)
    if given is None:
        return scope
    size, own = tuple(given.shape[1:]), (scope.inputs.channel_count, scope.inputs.height, scope.inputs.width)
    if size != own:
        takes = f"{own[0]} channels of {own[1]}x{own[2]} px"
        raise BadInput(f"images: by its Inputs the network takes {takes}, got (n c h w) {tuple(given.shape)}")
    return scope.reading(resize="stretch")


def as_files(images: Tensor, folder: Path) -> list[Path]:
    """Images (n c h w) as PNGs, which surveys read."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = images.clamp(0, 1).float().expand(-1, 3, -1, -1).numpy()
    return [write_png(folder / f"{number:04d}.png", each, {"technique": "watch"}) for number, each in enumerate(pixels)]


def watched_units(scope: Scope, units: Any) -> dict[str, list[int]]:
    """{layer: units} of what is to be watched.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: No pairs, or none.
    """
    pairs: list[Any] = list(units.items() if isinstance(units, Mapping) else units if isinstance(units, (list, tuple)) else [])
    if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise BadInput(f'units must be [("output", [0, 3])], pairs of layer and units, or {{layer: units}}; got {one_line(units, 60)}')
    found: dict[str, list[int]] = {}
    for asked, own in pairs:
        layer = layer_name(asked, scope.layers)
        found[layer] = list(dict.fromkeys([*found.get(layer, []), *scope.units(layer, own)]))
    return found


def unit_names(scope: Scope, watched: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Layer, number and, on "output", class name of each unit."""
    return tuple(
        f"{layer}, unit {unit} {name}".strip()
        for layer, units in watched.items()
        for unit, name in zip(units, scope.unit_names(layer, units), strict=True)
    )
