"""Receptive fields: the pixels that a unit can depend on, and the effective field, the pixels that it does depend on."""

from __future__ import annotations

import numpy as np
import torch

from convscope.errors import BadInput
from convscope.graph.graph import Field
from convscope.names import is_whole
from convscope.results.provenance import technique
from convscope.results.receptive_field import ReceptiveField
from convscope.scope import Image, Scope
from convscope.seeding import derive_seed

SAMPLES = 8
"""Random images that the effective field is averaged over."""


@technique
def receptive_field(
    scope: Scope, layer: str | None = None, *, image: Image | None = None, position: tuple[int, int] | None = None, seed: int = 0
) -> ReceptiveField:
    """Receptive fields of units, the pixels that they depend on.

    Exact hulls by interval arithmetic on the network's graph, through branches, residuals, dilation, uneven padding and transposed
    convolutions, y and x separately. For one layer also the effective field: E(p) = mean over random images and channel weights
    r of (d sum_c r_c A_c(y, x) / dx_p)^2, summed over colours.

    Args:
        scope: The network.
        layer: Layer name; None: the fields of all layers.
        image: An image to draw box and effective field on; the effective field is then that image's own.
        position: (y, x) on the layer's map, of the unit whose field is drawn; None: the middle.
        seed: Seed of the random images and channel weights.

    Returns:
        Size, jump and start for each layer; `.box(y, x)` for the units of one layer.

    Raises:
        LayerNotFound: Unknown layer.
        BadInput: A position without a layer, or outside its map.

    Source:
        Araujo, Norris, Sim 2019 (distill.00021); effective field: Luo et al. 2016 (arXiv 1701.04128), whose mean of signed gradients
        cancels; squares are averaged here.

    Example:
        >>> import convscope as cs
        >>> field = cs.receptive_field(cs.open("textures"), "features.0")
        >>> field.size.tolist(), field.box(0, 0)
        ([[3, 3]], (0, 0, 2, 2))

    Command line:
        convscope receptive-field textures
        convscope receptive-field textures --layer features.20 --image data/images/chains/0000.png --position 2,5
        convscope receptive-field resnet18 --weights random
    """
    shown, cut = np.zeros((scope.inputs.channel_count, 0, 0), np.float32), tuple[float, ...]()
    if image is not None:
        pixels, share = scope.inputs.read(image)
        shown, cut, scope = pixels.numpy(), (share,), scope.at((pixels.shape[1], pixels.shape[2]))
    names = list(scope.layers) if layer is None else [scope.layers[layer].name]
    at = _position(scope, layer, position)
    height, width = scope.inputs.height, scope.inputs.width
    fields = {name: _fields(scope, name) for name in names}
    rows, columns = (_ends(scope, names[0], axis) if layer is not None else np.zeros((0, 4), int) for axis in (0, 1))
    effective = np.zeros((0, 0), np.float32) if layer is None else _effective(scope, layer, image, at, seed)
    steps, spans = _growth(scope, layer, at)
    return ReceptiveField(
        size=np.array([[field.size for field in pair] for pair in fields.values()]),
        jump=np.array([[field.jump for field in pair] for pair in fields.values()]),
        start=np.array([[field.first[0] for field in pair] for pair in fields.values()]),
        whole=np.array([[int(field.whole) for field in pair] for pair in fields.values()]),
        rows=rows,
        columns=columns,
        effective=effective,
        spans=spans,
        image=shown,
        layers=tuple(names),
        steps=steps,
        position=at,
        height=height,
        width=width,
        cut=cut,
        share=float((effective > 0.0455).mean()) if effective.size else 0.0,
        manifest={"precision": scope.resolve("measure")},
    )


def _position(scope: Scope, layer: str | None, asked: tuple[int, int] | None) -> tuple[int, ...]:
    """Where on the layer's map the unit is that is drawn; empty for several layers, and of a layer without a map."""
    if layer is None:
        if asked is not None:
            raise BadInput("position: a unit belongs to one layer; say which layer")
        return ()
    spatial = scope.layers[layer].spatial
    if asked is None:
        return tuple(length // 2 for length in spatial)
    if len(asked) != len(spatial) or not all(is_whole(at) and 0 <= at < length for at, length in zip(asked, spatial, strict=True)):
        there = f"positions to ({', '.join(str(length - 1) for length in spatial)})" if spatial else "no map, so no positions"
        raise BadInput(f"position: layer {layer} has {there}, got {tuple(asked)}")
    return tuple(map(int, asked))


def _growth(scope: Scope, layer: str | None, at: tuple[int, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The layers on the way to one (of all layers: to the last that does not see everything) whose fields are larger than all before.

    Returns:
        Their names, and for each (y0 y1 x0 x1), the first and last pixel of one of its fields, not clipped: of the unit whose field lies
        around the middle of that of the layer's unit.
    """
    known = [each for each in scope.layers.values() if each.node is not None and len(each.spatial) == 2]
    local = [each for each in known if not any(_field(scope, each.name, axis).whole for axis in (0, 1))]
    last = scope.layers[layer] if layer is not None else local[-1] if local else None
    if last is None or last not in local:
        return (), np.zeros((0, 4), int)
    place = at or tuple(length // 2 for length in last.spatial)
    before = scope.graph.before(last.node or 0)
    middles = [(field.first[one] + field.last[one]) / 2 for field, one in zip(_fields(scope, last.name), place, strict=True)]
    steps: list[str] = []
    spans: list[list[int]] = []
    widest = (1, 1)
    for each in local:
        pair = _fields(scope, each.name)
        size = tuple(int(field.size) for field in pair)
        if each.node not in before or size == widest or any(new < old for new, old in zip(size, widest, strict=True)):
            continue
        widest, span = size, list[int]()
        for field, middle in zip(pair, middles, strict=True):
            nearest = int(np.abs((field.first + field.last) / 2 - middle).argmin())
            span += [int(field.first[nearest]), int(field.last[nearest])]
        steps.append(each.name)
        spans.append(span)
    return tuple(steps), np.array(spans, int).reshape(-1, 4)


def _fields(scope: Scope, name: str) -> list[Field]:
    return [_field(scope, name, axis) for axis in (0, 1)]


def _field(scope: Scope, name: str, axis: int, *, clipped: bool = False) -> Field:
    return scope.layers.field(scope.layers[name], axis, clipped=clipped)


def _ends(scope: Scope, name: str, axis: int) -> np.ndarray:
    """(position 4): first and last pixel, not clipped and clipped."""
    full, inside = (_field(scope, name, axis, clipped=clipped) for clipped in (False, True))
    return np.stack([full.first, full.last, inside.first, inside.last], 1)


def _effective(scope: Scope, layer: str, image: Image | None, at: tuple[int, ...], seed: int) -> np.ndarray:
    """(h w) squared gradient of the unit at a position of the map with respect to the pixels, divided by its maximum."""
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, "receptive_field", layer))
    size = scope.inputs.channel_count, scope.inputs.height, scope.inputs.width
    if image is None:
        images = torch.stack([torch.rand(size, generator=generator, dtype=torch.float32, device="cpu") for _ in range(SAMPLES)])
    else:
        images = scope.inputs(image)[None].expand(SAMPLES, -1, -1, -1)
    known = scope.layers[layer]
    cotangents = torch.zeros(SAMPLES, *known.shape, dtype=torch.float32, device="cpu")
    unit = (slice(None), slice(None), *at)
    known.channels_first(cotangents)[unit] = torch.randn(SAMPLES, known.channels, generator=generator, dtype=torch.float32, device="cpu")
    _, pull = scope.vector_jacobian(images, layer)
    energy = pull(cotangents[None])[0].square().sum(1).mean(0)
    return (energy / energy.max().clamp(min=torch.finfo(energy.dtype).tiny)).cpu().numpy()
