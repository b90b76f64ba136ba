"""Deconvnet and guided backpropagation: a unit's activation projected back to pixels through the transposed network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.names import is_whole
from convscope.progress import task
from convscope.results.deconvnet import Deconvnet
from convscope.results.provenance import technique
from convscope.scope import Images, Layer, Scope, Units
from convscope.scope.edits import relu_rule


@technique
def deconvnet(
    scope: Scope,
    layer: str,
    units: Units,
    images: Images,
    *,
    rule: Literal["deconvnet", "guided", "gradient"] = "deconvnet",
    position: tuple[int, int] | None = None,
    start: Literal["activation", "one"] = "activation",
) -> Deconvnet:
    """Projects activations of units back to pixels through the transposed network (deconvnet, guided backpropagation).

    The signal R starts as the activation A_unit(y, x) at one position and zero elsewhere, and goes backward through every operation by
    its vector-Jacobian product (transposed filters, max pooling to the maximum's position, batch norm by its factor, a sum to all its
    terms). Only a ReLU with input f differs: it passes R where R > 0 ("deconvnet"), where R > 0 and f > 0 ("guided"), or where f > 0
    ("gradient").

    Args:
        scope: The network.
        layer: Layer name: a convolution, batch norm, ReLU, pooling, block, or "output".
        units: Unit numbers, or class names on "output"; None: all of them.
        images: One or several images of one size, or a folder.
        rule: "deconvnet", "guided" or "gradient". ReLU6 and clamps from 0 count as ReLUs, open where 0 < f < bound. Of other
            nonlinearities (GELU, SiLU, sigmoid gates, leaky ReLU, softmax, ...) only "gradient" is defined.
        position: (y, x) on the layer's map, for all images and units; None: each unit's strongest, the first of equals in reading order.
        start: R at that position: the "activation", or "one".

    Returns:
        The projections, the activations and positions that they start from, and the receptive field of each.

    Raises:
        LayerNotFound: Unknown layer.
        UnitNotFound: A unit that the layer does not have.
        BadInput: An unknown rule, a position outside the map, a layer without one, or a nonlinearity that the rule does not cover.

    Source:
        Zeiler and Fergus 2014 (arXiv 1311.2901), but every operation other than a ReLU is transposed exactly, local response normalization
        included, which the paper skips; guided: Springenberg et al. 2015 (1412.6806); gradient: Simonyan et al. 2014 (1312.6034).
        Deconvnet and guided recover parts of the image whatever the weights are (Nie et al. 2018, 1805.07039).

    Example:
        >>> import convscope as cs, torch
        >>> cs.deconvnet(cs.open("textures"), "output", [0, 1], torch.rand(1, 3, 128, 128)).projection.shape
        (1, 2, 3, 128, 128)

    Command line:
        convscope deconvnet textures features.27 data/images/chains --units 0-7
        convscope deconvnet textures output data/images/chains/0000.png --units chains --rule guided
    """
    reader = scope.inputs.reader(images)
    known, wanted, batch = scope.layers[layer], scope.units(layer, units), reader.batch()
    check_projectable(known)
    if len(known.spatial) not in (0, 2):
        raise BadInput(
            f"layer {layer} has values of shape {known.shape}: neither maps nor a vector, so there is no position to project from"
        )
    at_once = scope.fitting(batch.shape[-2] * batch.shape[-1])
    units_at_once = min(len(wanted), at_once)  # units first: they share the forward

    with task(f"{layer}: {len(batch)} x {len(wanted)} projections", len(batch) * len(wanted)) as advance:

        def project(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            chosen = torch.tensor(wanted, dtype=torch.int64, device=scope.device).expand(len(part), -1)
            done = project_units(scope, part, known, chosen, rule, position, one=start == "one", units_at_once=units_at_once)
            advance(len(part) * len(wanted))
            return done

        parts = list(scope.in_batches(batch, project, max(1, at_once // units_at_once)))
    projection, values, positions = (torch.cat(part) for part in zip(*parts, strict=True))
    return Deconvnet(
        projection=projection,
        values=values,
        positions=positions,
        boxes=_boxes(scope, layer, positions.numpy(), (batch.shape[-2], batch.shape[-1])),
        images=batch,
        layer=layer,
        units=tuple(wanted),
        unit_names=scope.unit_names(layer, wanted),
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        rule=rule,
        manifest={"precision": scope.resolve("measure"), "images": list(reader.names)},
    )


def check_projectable(layer: Layer) -> None:
    """Refuses a layer of tokens: what attention has mixed has no way back through filters.

    Raises:
        BadInput: It is one.
    """
    if layer.grid is not None:
        raise BadInput(f"layer {layer.name} holds tokens: attention mixes them, and there are no filters to project back through")


def project_units(
    scope: Scope,
    images: Tensor,
    layer: Layer,
    units: Tensor,
    rule: str,
    position: tuple[int, int] | Tensor | None = None,
    *,
    one: bool = False,
    units_at_once: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward for a few images, and backward passes for a few units of each at a time.

    Args:
        scope: The network.
        images: (n c h w) in [0,1].
        layer: Where to project from.
        units: The units of each image, (n unit).
        rule: The rule of ReLUs.
        position: (y, x) for all; or (n unit 2); None: where each unit is strongest.
        one: Start from one instead of the activation.
        units_at_once: Units of a backward pass.

    Returns:
        Projections (n unit c h w), values (n unit), positions (n unit 2), on the CPU.
    """
    value, pull = scope.vector_jacobian(images, layer.name, edit=relu_rule(rule))
    maps, units = _as_maps(layer, value), units.to(value.device)
    everyone, count = torch.arange(len(images), dtype=torch.int64, device=value.device), units.shape[1]
    positions = _positions(maps[everyone[:, None], units], position, layer.name)
    y, x = positions.unbind(2)
    values = maps[everyone[:, None], units, y, x]
    std = torch.tensor(scope.inputs.stds, dtype=value.dtype, device=value.device).view(-1, 1, 1)

    def back(part: slice) -> Tensor:
        columns = range(count)[part]
        cotangents = value.new_zeros(len(columns), *value.shape)
        for cotangent, column in zip(cotangents, columns, strict=True):
            _as_maps(layer, cotangent)[everyone, units[:, column], y[:, column], x[:, column]] = 1.0 if one else values[:, column]
        return (pull(cotangents) * std).cpu()

    every = slice(0, count)  # several images together only where all units fit, so that running out of memory halves the images first
    projections = [back(every)] if len(images) > 1 else list(scope.in_parts(count, units_at_once, back))
    return torch.cat(projections).movedim(0, 1), values.cpu(), positions.cpu()


def _as_maps(layer: Layer, values: Tensor) -> Tensor:
    """(n ...) values as maps (n c h w), sharing memory; those of a vector are 1 x 1."""
    first = layer.channels_first(values)
    return first if layer.spatial else first[..., None, None]


def _positions(maps: Tensor, position: object, layer: str) -> Tensor:
    """The positions (y, x) to project from on maps (n unit h w), (n unit 2)."""
    height, width = maps.shape[-2:]
    if isinstance(position, Tensor):
        return position.to(maps.device)
    if position is None:
        flat = maps.flatten(2).argmax(2)
        return torch.stack([flat // width, flat % width], 2)
    if not (isinstance(position, Sequence) and len(position) == 2 and all(map(is_whole, position))):
        raise BadInput(f"position must be (y, x), got {position!r}")
    y, x = position
    if not (0 <= y < height and 0 <= x < width):
        raise BadInput(f"layer {layer} has positions (0, 0) to ({height - 1}, {width - 1}), got {tuple(position)}")
    return torch.tensor([y, x], dtype=torch.int64, device=maps.device).expand(*maps.shape[:2], 2)


def _boxes(scope: Scope, layer: str, positions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The receptive fields of positions (n unit 2), clipped to an image of that size, (n unit 4)."""
    scope = scope.at(size)
    edges: list[np.ndarray] = []
    for side in (0, 1):
        field = scope.layers.field(scope.layers[layer], side, clipped=True)
        edges += [field.first[positions[..., side]], field.last[positions[..., side]] + 1]
    return np.stack([edges[0], edges[2], edges[1], edges[3]], -1)
