"""Spectrum: the mean activation of every unit of a layer, for each image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convscope.errors import BadInput
from convscope.names import SomeUnits
from convscope.preprocessing import to_values
from convscope.progress import task
from convscope.render.contact_sheet import to_bytes
from convscope.results import channels
from convscope.results.gallery import GalleryImage, read_gallery
from convscope.results.provenance import technique
from convscope.results.spectrum import Spectrum
from convscope.scope import OUTPUT, Images, Scope
from convscope.scope.inputs import read_image
from convscope.techniques.feature_visualization import feature_visualization

_SIDE = 128
"""Side of the pictures, in pixels."""


@technique
def spectrum(
    scope: Scope,
    layer: str,
    images: Images,
    *,
    units: SomeUnits | None = None,
    reduce: Literal["mean", "max"] = "mean",
    pictures: str | Path | None = None,
    make_pictures: bool = False,
    seed: int = 0,
) -> Spectrum:
    """Mean activation of every unit of a layer on images.

    m_j(x) = mean over positions of A_j(x).

    Args:
        scope: The network.
        layer: Layer name; after a ReLU there are no negative values, and spikes stand out.
        images: One or several images, or a folder; tensors of different sizes may be mixed.
        units: Units to mark whatever their rank, e.g. one that is thought to see what the images show; class names on "output".
        reduce: "mean" over positions (S0), or "max" for local features.
        pictures: A folder of feature visualizations made by :func:`~convscope.gallery`, shown beside the units marked and the spikes.
        make_pictures: Whether to optimize those that `pictures` lacks, or all of them. They are kept in the result, not in the folder.
        seed: Seed of the pictures made.

    Returns:
        One row per image; with methods for spikes, ranks and the mean row.

    Raises:
        LayerNotFound, UnitNotFound: Unknown layer or unit.
        BadImage: No image can be read.
        BadInput: No image, or a tensor that is none; a folder of pictures of another layer or network.

    Source:
        Graetz 2019 (S0), which marks one unit in the spectrum of vgg16_bn's layer 42, and shows the pictures of spikes beside it. Means of
        different image sizes are comparable, sums are not.

    Example:
        >>> import convscope as cs, torch
        >>> cs.spectrum(cs.open("textures"), "output", torch.rand(2, 3, 128, 128)).values.shape[0]
        2

    Command line:
        convscope spectrum textures features.27 data/images/chains
        convscope spectrum textures features.20 data/images/chains/0000.png --units 3,12
        convscope spectrum textures output data/images/chains/0000.png --pictures out/feature-visualization/textures-output
    """
    reader = scope.inputs.reader(images)
    known, marked = scope.layers[layer], () if units is None else tuple(dict.fromkeys(scope.units(layer, units)))
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
    result = Spectrum(
        values=mean if reduce == "mean" else maximum,
        maxima=maximum,
        active=active,
        pictures=np.zeros((0, 3, _SIDE, _SIDE), np.float32),
        layer=layer,
        names=names,
        skipped=reader.skipped,
        cut=reader.cut,
        unit_names=scope.class_names if layer == OUTPUT and scope.inputs.classes else (),
        reduce=reduce,
        marked=marked,
        manifest={"precision": scope.resolve("measure"), "images": list(names)},
    )
    return result if pictures is None and not make_pictures else _with_pictures(result, scope, pictures, make_pictures, seed)


def _with_pictures(result: Spectrum, scope: Scope, folder: str | Path | None, make: bool, seed: int) -> Spectrum:
    """The spectrum with a feature visualization of every unit that its figure names: those of a gallery, and those made here."""
    wanted = result.named()
    gallery = None if folder is None else read_gallery(folder)
    found = {unit: image for unit in wanted if gallery is not None and (image := gallery.find(unit)) is not None}
    for image in found.values():
        _check_made_of(image, result.layer, scope)
    pictures = {unit: _square(read_image(image.path)) for unit, image in found.items()}
    stuck = {unit for unit, image in found.items() if image.status == "stuck"}
    manifest = dict(result.manifest)
    lacking = [unit for unit in wanted if unit not in found]
    if make and lacking:
        made = feature_visualization(scope, result.layer, lacking, seed=seed)
        shown = [channels.shown(made, image) for image in made.images]
        pictures |= {unit: _square(Image.fromarray(to_bytes(image))) for unit, image in zip(lacking, shown, strict=True)}
        stuck |= {unit for unit, status in zip(lacking, made.status, strict=True) if status == "stuck"}
        manifest["made"] = {"units": lacking, "recipe": made.manifest["recipe"], "seed": seed}
    return replace(
        result,
        pictures=np.stack([pictures[unit] for unit in wanted if unit in pictures] or [result.pictures[:0]]).reshape(-1, 3, _SIDE, _SIDE),
        pictured=tuple(unit for unit in wanted if unit in pictures),
        stuck=tuple(unit for unit in wanted if unit in stuck),
        lacking=() if make else tuple(lacking),
        manifest=manifest,
    )


def _check_made_of(image: GalleryImage, layer: str, scope: Scope) -> None:
    """Refuses a picture of another layer or of other weights."""
    receipt = image.receipt
    if (made := receipt.get("parameters", {}).get("layer")) != layer:
        raise BadInput(f"pictures: {image.path} is a visualization of layer {made}, not of {layer}")
    if receipt.get("network", {}).get("weights_hash") != scope.weights_hash:
        raise BadInput(f"pictures: {image.path} was made with another network or other weights")


def _square(image: Image.Image) -> np.ndarray:
    """An image at the size of `pictures`, (3 h w)."""
    return to_values(image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
