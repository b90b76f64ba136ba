"""Activation maps of images, layer by layer: every unit's map, and one unit of each layer side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from convscope.errors import BadInput
from convscope.results.activation_grid import ActivationGrid
from convscope.results.base import to_array
from convscope.results.provenance import technique
from convscope.scope import Images, Scope
from convscope.techniques.strongest_path import strongest_path

QUANTILES = 0.01, 0.99
DARK = 0.4
"""Share of the layer's largest value below which a map is dark on the layer's scale."""


@technique
def activation_grid(
    scope: Scope,
    images: Images,
    layers: str | Sequence[str] | None = None,
    *,
    scale: Literal["auto", "layer", "channel", "quantile"] = "auto",
    columns: int = 16,
    units: Mapping[str, int] | None = None,
    follow: Mapping[str, int] | None = None,
) -> ActivationGrid:
    """Activation maps of every unit on images, layer by layer.

    Args:
        scope: The network.
        images: One or several images or a folder, of one size.
        layers: Layers that have maps; by default the output of every convolution after its ReLU.
        scale: Colours from the smallest to the largest value of the "layer" (over all images) or of each "channel", or from the layer's
            1 % to its 99 % "quantile". "auto": the layer's, but each channel's where most maps would be dark on the layer's.
        columns: Units in a row.
        units: The unit that the strip shows of a layer; for the other layers it is the one with the highest mean on the image.
        follow: One layer with one of its units: the strip then follows the strongest path into that unit, back through the layers. At
            each step it goes to the unit that contributes most to the value at the position reached: sum over the kernel window of
            weight * activation.

    Returns:
        The maps in the layers' own values; `.grid(layer)` lays them out, `.strip()` takes one of each layer, `.path()` says what
        contributes to what. Saved, every layer has a figure of its own, and an index links to them.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: A layer without maps; unknown scale; a unit to follow that is zero everywhere on an image.
        BadImage: No image can be read.

    Source:
        DL notes 8 (S3): one grid of 16 columns per layer of VGG19, on one colour scale (its row and column formulas come to c // 16 and
        c % 16), and one map of each layer in a row. Deviations: unused tiles are empty, not zero, as a dead map would be;
        S3 also shows the pooling layers: name them to see them. The path is of our own: S3 asks what a unit is
        made of and leaves it open. Through a ReLU and a maximum, which are linear on an image, contributions and biases add up exactly;
        through other nonlinearities they are of first order.

    Example:
        >>> import convscope as cs, torch
        >>> seen = cs.activation_grid(cs.open("textures"), torch.rand(1, 3, 64, 96))
        >>> seen.grid(seen.layers[0]).shape[1] == 16 * seen.maps[0].shape[3]
        True

    Command line:
        convscope activation-grid textures data/images/chains/0000.png
        convscope activation-grid textures data/images/chains --layers features.2,features.6 --units features.6=12
        convscope activation-grid textures data/images/chains/0000.png --follow features.27=40
    """
    if columns < 1:
        raise BadInput(f"columns must be at least 1, got {columns}")
    wanted = _with_maps(scope, layers)
    if follow and layers is None:
        wanted = _with_maps(scope, [*wanted, *follow])
    given, followed = _units_given(scope, "units", units, wanted), _units_given(scope, "follow", follow, wanted)
    if len(followed) > 1 or (followed and given):
        raise BadInput("follow takes one layer and one unit, and no units beside it")
    reader = scope.inputs.reader(images)
    batch = reader.batch()
    values = scope.activations(batch, wanted)
    maps = tuple(to_array(scope.layers[name].channels_first(values[name])) for name in wanted)
    chosen = [
        np.full(len(batch), given[name]) if name in given else found.mean((2, 3), dtype=np.float64).argmax(1)
        for name, found in zip(wanted, maps, strict=True)
    ]
    paths = [
        strongest_path(scope, batch[place : place + 1], wanted, *one, name)
        for one in followed.items()
        for place, name in enumerate(reader.names)
    ]
    scales = tuple(_scale(found, scale) for found in maps)
    return ActivationGrid(
        images=batch,
        chosen=np.array([[path.units.get(name, -1) for name in wanted] for path in paths]) if paths else np.stack(chosen, 1),
        dead=np.stack([(found.max((2, 3)) <= 0).sum(1) for found in maps], 1),
        places=np.array([[path.places.get(name, (-1, -1)) for name in wanted] for path in paths]).reshape(len(paths), len(wanted), 2),
        shares=np.array([[path.shares.get(name, np.nan) for name in wanted] for path in paths]).reshape(len(paths), len(wanted)),
        contributions=tuple(path.contributions for path in paths),
        followed=next(iter(followed), ""),
        layers=tuple(wanted),
        maps=maps,
        limits=tuple(to_array(_limits(found, each)) for found, each in zip(maps, scales, strict=True)),
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        scales=scales,
        columns=columns,
        manifest={"precision": scope.resolve("measure")},
    )


def _units_given(scope: Scope, parameter: str, given: Mapping[str, int] | None, wanted: Sequence[str]) -> dict[str, int]:
    """{layer: unit} as given, checked; each layer is among those shown."""
    found = {name: scope.units(name, [unit])[0] for name, unit in (given or {}).items()}
    if unasked := sorted(set(found) - set(wanted)):
        raise BadInput(f"{parameter} names {', '.join(unasked)}, which is not among the layers shown: {', '.join(wanted)}")
    return found


def _with_maps(scope: Scope, layers: str | Sequence[str] | None) -> list[str]:
    """The layers asked for, in call order; each must have maps."""
    convolutions = scope.layers.after_relu()
    wanted = convolutions if layers is None else [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
    for name in wanted:
        known = scope.layers[name]
        if known.unclear or len(known.spatial) != 2:
            near = ", ".join(convolutions[-3:]) or "none"
            shape = "x".join(map(str, known.shape))
            raise BadInput(f"layer {name} has no maps: its value is {shape}, not (c h w); layers with maps: {near}")
    if not wanted:
        raise BadInput("no layer asked for" if layers is not None else f"network {scope.name} has no convolution; say which layers")
    return sorted(wanted, key=lambda name: scope.layers[name].position)


def _scale(maps: np.ndarray, asked: str) -> str:
    """The scale of a layer's maps (n c h w): as asked for, or by whether most of them would be dark on the layer's."""
    if asked != "auto":
        return asked
    peaks = np.abs(maps).max((0, 2, 3))
    alive = peaks[maps.max((0, 2, 3)) > 0]
    return "channel" if alive.size and np.mean(alive < DARK * peaks.max()) > 0.5 else "layer"


def _limits(maps: np.ndarray, scale: str) -> np.ndarray:
    """Smallest and largest value of every unit's colour scale, (c 2), from maps (n c h w)."""
    if scale == "channel":
        return np.stack([maps.min((0, 2, 3)), maps.max((0, 2, 3))], 1)
    if scale == "quantile":
        low, high = np.quantile(maps, QUANTILES)
    else:
        low, high = maps.min(), maps.max()
    return np.tile(np.array([low, high], np.float64), (maps.shape[1], 1))
