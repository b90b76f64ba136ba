"""Spectrum: the mean activation of every unit of a layer, for each image."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.progress import task
from convscope.results.gallery import read_gallery
from convscope.results.provenance import technique
from convscope.results.spectrum import Spectrum
from convscope.scope import OUTPUT, Images, Scope
from convscope.scope.inputs import read_image


@technique
def spectrum(
    scope: Scope, layer: str, images: Images, *, reduce: Literal["mean", "max"] = "mean", pictures: str | Path | None = None
) -> Spectrum:
    """Mean activation of every unit of a layer on images.

    m_j(x) = mean over positions of A_j(x).

    Args:
        scope: The network.
        layer: Layer name; after a ReLU there are no negative values, and spikes stand out.
        images: One or several images, or a folder; tensors of different sizes may be mixed.
        reduce: "mean" over positions (S0), or "max" for local features.
        pictures: A folder of feature visualizations made by :func:`~convscope.gallery`, shown beside the spikes of their units.

    Returns:
        One row per image; with methods for spikes, ranks and the mean row.

    Raises:
        LayerNotFound: Unknown layer.
        BadImage: No image can be read.
        BadInput: No image, or a tensor that is none.

    Source:
        Graetz 2019 (S0), which marks the spikes of vgg16_bn's layer 42. Means of different image sizes are comparable, sums are not.

    Example:
        >>> import convscope as cs, torch
        >>> cs.spectrum(cs.open("textures"), "output", torch.rand(2, 3, 128, 128)).values.shape[0]
        2

    Command line:
        convscope spectrum textures features.27 data/images/chains
        convscope spectrum textures output data/images/chains/0000.png --pictures out/feature-visualization/textures-output
    """
    reader = scope.inputs.reader(images)
    known = scope.layers[layer]
    if pictures is not None and not Path(pictures).is_dir():
        raise BadInput(f"pictures: {pictures} is not a folder")
    measured: list[tuple[Tensor, Tensor, Tensor]] = []
    at_once = scope.fitting(scope.inputs.height * scope.inputs.width)
    with task(f"{layer}: spectra of {len(reader)} images", len(reader)) as advance, scope.session(), torch.no_grad():
        for group in reader.batches(at_once):
            values = scope.run(group, layer, channels_first=True)[layer]
            values = values.flatten(2) if known.spatial else values[..., None]
            measured.append((values.mean(2), values.amax(2), (values > 0).to(values).mean(2)))
            advance(len(group))
    names = reader.names
    mean, maximum, active = (torch.cat(part) for part in zip(*measured, strict=True))
    values = mean if reduce == "mean" else maximum
    pictured, tiles = _pictures(pictures, layer, values)
    return Spectrum(
        values=values,
        maxima=maximum,
        active=active,
        layer=layer,
        names=names,
        skipped=reader.skipped,
        unit_names=scope.class_names if layer == OUTPUT and scope.inputs.classes else (),
        reduce=reduce,
        pictures=tiles,
        pictured=pictured,
        manifest={"precision": scope.resolve("measure"), "images": list(names)},
    )


def _pictures(folder: str | Path | None, layer: str, values: Tensor) -> tuple[tuple[int, ...], np.ndarray]:
    """The units among each image's ten highest that a gallery has an image of, and these images, (picture rgb 128 128)."""
    rows = torch.cat([values, values.mean(0, keepdim=True)])
    high = sorted(set(rows.topk(min(10, rows.shape[1])).indices.flatten().tolist()))
    gallery = None if folder is None else read_gallery(folder)
    found = {unit: image for unit in high if gallery is not None and (image := gallery.find(unit)) is not None}
    for image in found.values():
        if (made := image.receipt.get("parameters", {}).get("layer")) != layer:
            raise BadInput(f"pictures: {image.path} is a visualization of layer {made}, not of {layer}")
    if not found:
        return (), np.zeros((0, 3, 128, 128), np.float32)
    tiles = [read_image(image.path).resize((128, 128)) for image in found.values()]
    return tuple(found), np.stack([np.asarray(tile, np.float32).transpose(2, 0, 1) / 255 for tile in tiles])
