"""Receptive fields: the pixels that a unit can depend on, and the effective field, the pixels that it does depend on."""

from __future__ import annotations

import numpy as np
import torch

from convscope.errors import BadInput
from convscope.graph.graph import Field
from convscope.results.provenance import technique
from convscope.results.receptive_field import ReceptiveField
from convscope.scope import Image, Scope
from convscope.seeding import derive_seed

SAMPLES = 8
"""Random images that the effective field is averaged over."""


@technique
def receptive_field(scope: Scope, layer: str | None = None, *, image: Image | None = None, seed: int = 0) -> ReceptiveField:
    """Receptive fields of units, the pixels that they depend on.

    Exact hulls by interval arithmetic on the network's graph, through branches, residuals, dilation, uneven padding and transposed
    convolutions, y and x separately. For one layer also the effective field: E(p) = mean over random images and channel weights
    r of (d sum_c r_c A_c(middle) / dx_p)^2, summed over colours.

    Args:
        scope: The network.
        layer: Layer name; None: the fields of all layers.
        image: An image to draw box and effective field on; the effective field is then that image's own.
        seed: Seed of the random images and channel weights.

    Returns:
        Size, jump and start for each layer; `.box(y, x)` for the units of one layer.

    Raises:
        LayerNotFound: Unknown layer.

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
        convscope receptive-field textures --layer features.20 --image data/images/chains/0000.png
        convscope receptive-field resnet18 --weights random
    """
    names = list(scope.layers) if layer is None else [scope.layers[layer].name]
    height, width = scope.inputs.height, scope.inputs.width
    fields = {name: [_field(scope, name, axis) for axis in (0, 1)] for name in names}
    shown = np.zeros((scope.inputs.channel_count, 0, 0), np.float32) if image is None else scope.inputs(image).numpy()
    rows, columns = (_ends(scope, names[0], axis) if layer is not None else np.zeros((0, 4), int) for axis in (0, 1))
    effective = np.zeros((0, 0), np.float32) if layer is None else _effective(scope, layer, image, seed)
    return ReceptiveField(
        size=np.array([[field.size for field in pair] for pair in fields.values()]),
        jump=np.array([[field.jump for field in pair] for pair in fields.values()]),
        start=np.array([[field.first[0] for field in pair] for pair in fields.values()]),
        whole=np.array([[int(field.whole) for field in pair] for pair in fields.values()]),
        rows=rows,
        columns=columns,
        effective=effective,
        image=shown,
        layers=tuple(names),
        height=height,
        width=width,
        share=float((effective > 0.0455).mean()) if effective.size else 0.0,
        manifest={"precision": scope.resolve("measure")},
    )


def _field(scope: Scope, name: str, axis: int, *, clipped: bool = False) -> Field:
    node = scope.layers[name].node
    if node is None:
        raise BadInput(f"layer {name} does not depend on the image, so it has no receptive field")
    return scope.graph.field(node, axis, clipped=clipped)


def _ends(scope: Scope, name: str, axis: int) -> np.ndarray:
    """(position 4): first and last pixel, not clipped and clipped."""
    full, inside = (_field(scope, name, axis, clipped=clipped) for clipped in (False, True))
    return np.stack([full.first, full.last, inside.first, inside.last], 1)


def _effective(scope: Scope, layer: str, image: Image | None, seed: int) -> np.ndarray:
    """(h w) squared gradient of the unit in the middle of the map with respect to the pixels, divided by its maximum."""
    generator = torch.Generator("cpu").manual_seed(derive_seed(seed, "receptive_field", layer))
    size = scope.inputs.channel_count, scope.inputs.height, scope.inputs.width
    if image is None:
        images = torch.stack([torch.rand(size, generator=generator, dtype=torch.float32, device="cpu") for _ in range(SAMPLES)])
    else:
        images = scope.inputs(image)[None].expand(SAMPLES, -1, -1, -1)
    known = scope.layers[layer]
    cotangents = torch.zeros(SAMPLES, *known.shape, dtype=torch.float32, device="cpu")
    middle = [slice(None), *(length // 2 for length in known.shape)]
    middle[known.channel_axis + 1] = slice(None)
    cotangents[tuple(middle)] = torch.randn(SAMPLES, known.channels, generator=generator, dtype=torch.float32, device="cpu")
    _, pull = scope.vector_jacobian(images, layer)
    energy = pull(cotangents[None])[0].square().sum(1).mean(0)
    return (energy / energy.max().clamp(min=torch.finfo(energy.dtype).tiny)).cpu().numpy()
