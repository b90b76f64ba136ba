"""Activation maps laid over images: the strongest units of one image, or chosen units over many images."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.results.map_overlay import MapOverlay
from convscope.results.provenance import technique
from convscope.scope import Images, Scope, Units

QUANTILE = 0.99


@technique
def map_overlay(
    scope: Scope,
    layer: str,
    images: Images,
    *,
    units: Units = None,
    top: int = 60,
    scale: Literal["map", "channel", "layer", "quantile"] = "map",
    style: Literal["heat", "mask"] = "heat",
    reduce: Literal["mean", "sum", "max"] = "mean",
) -> MapOverlay:
    """Activation maps of units, laid over images.

    Args:
        scope: The network.
        layer: A layer that has maps; the articles take the last convolution after its ReLU.
        images: One or several images or a folder, of one size.
        units: The units shown of every image; None for each image's own strongest.
        top: How many of the strongest, where no units are given.
        scale: The value with full colour: the largest of each "map" (where on this image?); over all images, the largest of the
            "channel" (on which image?), the largest in the "layer", or the layer's 99 % "quantile".
        style: "heat": the map's colour over the grey image; "mask": the image times the map, so that only active regions are visible.
        reduce: The value that ranks the units: "mean", "sum" or "max" over positions.

    Returns:
        The maps in their own values, the strongest first; `.masks()` and `.masked()` have them at the size of the image.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: A layer without maps; unknown scale, style or reduce.
        BadImage: No image can be read.

    Source:
        Shin 2020 (S2, sections 3 and 4), where N maps lie over one image and one map over N images. Mask = bilinear enlargement of
        A_k to the image, shown = clip(image * mask, 0, 1), mask = A_k / max A_k. Deviations: dead maps have mask 0, not 0/0; ties go to
        the lower unit; the text's sum and the code's mean are both there.

    Example:
        >>> import convscope as cs, torch
        >>> scope = cs.open("textures")
        >>> cs.map_overlay(scope, scope.layers.after_relu()[-1], torch.rand(3, 64, 96), top=4).masked().shape
        (4, 3, 64, 96)

    Command line:
        convscope map-overlay textures features.27 data/images/chains/0000.png --top 16
        convscope map-overlay textures features.27 data/images/heart --units 12,40 --scale layer
    """
    if top < 1:
        raise BadInput(f"top must be at least 1, got {top}")
    known = scope.layers[layer]
    if len(known.shape) != 3:
        near = ", ".join(scope.layers.after_relu()[-3:]) or "none"
        raise BadInput(f"layer {layer} has no maps: its value is {'x'.join(map(str, known.shape))}; layers with maps: {near}")
    asked = None if units is None else scope.units(layer, units)
    reader = scope.inputs.reader(images)
    batch = reader.batch()
    maps = known.channels_first(scope.activations(batch, layer)[layer])
    values = {"mean": maps.mean((2, 3)), "sum": maps.sum((2, 3)), "max": maps.amax((2, 3))}[reduce]
    if asked is None:
        picked = torch.sort(values, dim=1, descending=True, stable=True).indices[:, :top]
    else:
        picked = torch.tensor(asked, dtype=torch.int64, device=maps.device).expand(len(maps), -1)
    rows = torch.arange(len(maps), dtype=torch.int64, device=maps.device)[:, None]
    return MapOverlay(
        images=batch,
        units=picked,
        maps=maps[rows, picked],
        values=values[rows, picked],
        full=_full(maps, picked, scale),
        layer=layer,
        names=reader.names,
        skipped=reader.skipped,
        reduce=reduce,
        scale=scale,
        style=style,
        chosen=asked is not None,
        manifest={"precision": scope.resolve("measure")},
    )


def _full(maps: Tensor, picked: Tensor, scale: str) -> Tensor:
    """The value with full colour for each picked map, (n map), never below zero."""
    highest = maps.amax((2, 3))
    if scale == "channel":
        highest = highest.amax(0).expand_as(highest)
    elif scale == "layer":
        highest = highest.max().expand_as(highest)
    elif scale == "quantile":
        highest = torch.full_like(highest, float(np.quantile(maps.cpu().numpy(), QUANTILE)))
    return highest.gather(1, picked).clamp(min=0)
