"""Activation maps laid over images: the strongest units of one image, or chosen units over many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.results.class_maps import ClassMaps, maps_by_class, of_classes
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
    maps: ClassMaps | Mapping[str, Sequence[int]] | None = None,
    classes: Sequence[str] | None = None,
    aligned: bool = True,
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
        maps: Class maps, or {class: units}: the maps of each class are framed in its colour, with their rank among the image's strongest.
        classes: Show the maps of these classes, of all images, in place of each image's strongest.
        aligned: Whether each cell lies where the middle of its receptive field is; False stretches maps evenly over the image, as the
            articles do.

    Returns:
        The maps in their own values, the strongest first; `.masks()` and `.masked()` have them at the size of the image.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: A layer without maps; unknown scale, style, reduce or class; a unit of two classes, of which a frame can show one.
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
        convscope map-overlay textures features.27 data/images/dots/0000.png --maps out/class-maps/survey-features.27
    """
    if top < 1:
        raise BadInput(f"top must be at least 1, got {top}")
    known = scope.layers[layer]
    if len(known.spatial) != 2:
        near = ", ".join(scope.layers.after_relu()[-3:]) or "none"
        raise BadInput(f"layer {layer} has no maps: its value is {'x'.join(map(str, known.shape))}; layers with maps: {near}")
    owners, names = _owners(scope, layer, maps)
    if classes is not None:
        if maps is None or units is not None:
            raise BadInput("classes says whose of the given maps are shown, so it takes maps and no units")
        units = [unit for own in of_classes(maps_by_class(maps, layer), classes).values() for unit in own]
        if not units:
            raise BadInput(f"class {', '.join(classes)} has no map of its own; try a smaller per_class")
    asked = None if units is None else scope.units(layer, units)
    reader = scope.inputs.reader(images)
    batch = reader.batch()
    every = known.channels_first(scope.activations(batch, layer)[layer])
    values = {"mean": every.mean((2, 3)), "sum": every.sum((2, 3)), "max": every.amax((2, 3))}[reduce]
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    picked = order[:, :top] if asked is None else torch.tensor(asked, dtype=torch.int64, device=every.device).expand(len(every), -1)
    rows = torch.arange(len(every), dtype=torch.int64, device=every.device)[:, None]
    size = (batch.shape[2], batch.shape[3])
    return MapOverlay(
        place=scope.layers.place(known, (every.shape[2], every.shape[3]), size) if aligned else (),
        images=batch,
        units=picked,
        maps=every[rows, picked],
        values=values[rows, picked],
        full=_full(every, picked, scale),
        ranks=1 + order.argsort(1).gather(1, picked),
        owners=owners[picked.cpu().numpy()],
        classes=names,
        layer=layer,
        names=reader.names,
        skipped=reader.skipped,
        cut=reader.cut,
        reduce=reduce,
        scale=scale,
        style=style,
        chosen=asked is not None,
        manifest={"precision": scope.resolve("measure")},
    )


def _owners(scope: Scope, layer: str, maps: ClassMaps | Mapping[str, Sequence[int]] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The class that each unit of the layer belongs to, -1 for none, (c), and the classes.

    Raises:
        BadInput: A unit belongs to two.
    """
    owners = np.full(scope.layers[layer].channels, -1)
    named = {} if maps is None else maps_by_class(maps, layer)
    for place, (name, own) in enumerate(named.items()):
        for unit in scope.units(layer, own) if own else ():
            if owners[unit] >= 0:
                raise BadInput(f"maps: unit {unit} belongs to two classes, {[*named][owners[unit]]} and {name}")
            owners[unit] = place
    return owners, tuple(named)


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
