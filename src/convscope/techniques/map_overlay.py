"""Activation maps laid over images: the strongest units of one image, or chosen units over many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.names import is_whole
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
    finer: int = 1,
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
        finer: So many times as many cells each way: the network also runs on the images shifted by equal parts of the layer's step, and
            the maps are interleaved (shift-and-stitch), `finer`^2 passes. Cells near the border see that
            a shifted image begins and ends elsewhere.

    Returns:
        The maps in their own values, the strongest first; `.masks()` and `.masked()` have them at the size of the image.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadInput: A layer without maps; unknown scale, style, reduce or class; a unit of two classes, of which a frame can show one; finer
            maps of a layer whose cells see all of the image, or with more cells than pixels.
        BadImage: No image can be read.

    Source:
        Shin 2020 (S2, sections 3 and 4), where N maps lie over one image and one map over N images. Mask = bilinear enlargement of
        A_k to the image, shown = clip(image * mask, 0, 1), mask = A_k / max A_k. Deviations: dead maps have mask 0, not 0/0; ties go to
        the lower unit; the text's sum and the code's mean are both there. Shift-and-stitch: Long, Shelhamer, Darrell 2015
        (arXiv 1411.4038, section 3.2).

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
    if not is_whole(finer) or finer < 1 or (finer > 1 and not aligned):
        raise BadInput(
            f"finer must be a whole number of at least 1, and takes aligned maps; got {finer!r}{'' if aligned else ' with aligned=False'}"
        )
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
    cells, size = (every.shape[2], every.shape[3]), (batch.shape[2], batch.shape[3])
    place: tuple[float, ...] = scope.layers.place(known, cells, size) if aligned else ()
    shown = every[rows, picked]
    full = _full(every, picked, scale)
    if finer > 1:
        steps = _shifts(scope, layer, cells, finer)
        shown = _stitched(scope, layer, batch, picked, steps)
        full = shown.amax((2, 3)).clamp(min=0) if scale == "map" else full
        y0, x0, y1, x1 = scope.layers.place(known, cells, size)  # the first cell's middle stays where it was
        down, across = ((end - start) / count * (1 - 1 / finer) / 2 for start, end, count in ((y0, y1, cells[0]), (x0, x1, cells[1])))
        place = y0 + down, x0 + across, y1 + down, x1 + across
    return MapOverlay(
        place=place,
        images=batch,
        units=picked,
        maps=shown,
        values=values[rows, picked],
        full=full,
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
        finer=finer,
        manifest={"precision": scope.resolve("measure")},
    )


def _shifts(scope: Scope, layer: str, cells: tuple[int, int], finer: int) -> tuple[list[int], list[int]]:
    """By how many pixels images are shifted, down and across, so that cells lie `finer` times as close."""
    steps = scope.layers.step(scope.layers[layer], cells)
    if steps is None:
        raise BadInput(f"layer {layer} has no finer maps: its cells do not follow one another evenly over the image")
    if finer > min(steps):
        raise BadInput(f"finer must be at most {int(min(steps))}: cells of {layer} lie {min(steps):g} pixels apart, got {finer}")
    down, across = ([round(step * part / finer) for part in range(finer)] for step in steps)
    return down, across


def _stitched(scope: Scope, layer: str, images: Tensor, picked: Tensor, shifts: tuple[list[int], list[int]]) -> Tensor:
    """The picked maps (n map y x) of images shifted up and left by each pair of shifts, interleaved."""
    height, width = images.shape[2:]
    known, parts = scope.layers[layer], list[Tensor]()
    rows = torch.arange(len(images), dtype=torch.int64, device=images.device)[:, None]
    for down in shifts[0]:
        for across in shifts[1]:
            y = (torch.arange(height, dtype=torch.int64, device=images.device) + down).clamp(max=height - 1)
            x = (torch.arange(width, dtype=torch.int64, device=images.device) + across).clamp(max=width - 1)
            maps = known.channels_first(scope.activations(images[:, :, y[:, None], x], layer)[layer])
            parts.append(maps[rows.to(maps.device), picked])
    count = len(shifts[0])
    found = torch.stack(parts, -1).unflatten(-1, (count, count))  # n map y x down across
    return found.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)


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
