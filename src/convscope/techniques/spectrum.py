"""Which units an image excites: the mean activation of every channel of a layer."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadImage, BadInput
from convscope.progress import task
from convscope.result import Result, axes
from convscope.scope import Image, Images, Scope
from convscope.scope.inputs import image_names, read_image
from convscope.scope.provenance import technique
from convscope.techniques.feature_visualization import picture_name

_log = logging.getLogger("convscope")


@dataclass(frozen=True, eq=False)
class Spectrum(Result):
    """A spectrum per image.

    Attributes:
        values: Mean (or maximum) over positions of every unit, (n c).
        maxima: Maximum over positions, (n c).
        active: Share of positions above zero, (n c): a high maximum with a small share is a local feature that the mean dilutes.
        pictures: What the highest units look for, where pictures of them were given, (picture rgb h w) in [0,1].
        layer: The layer's name.
        names: Names of the images.
        labels: Names of the units (class names on the output layer); empty where there are none.
        reduce: What `values` holds: "mean" or "max".
        pictured: The units of `pictures`.
    """

    values: np.ndarray = axes("n c", "series", unit="activation")
    maxima: np.ndarray = axes("n c", unit="activation")
    active: np.ndarray = axes("n c")
    pictures: np.ndarray = axes("picture rgb h w", "image")
    layer: str = ""
    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    reduce: str = "mean"
    pictured: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """The mean spectrum over the images, (c)."""
        return self.values.mean(0)

    def spikes(self, k: int = 10, image: int | None = None) -> list[tuple[int, float]]:
        """The k highest units of an image's spectrum (of the mean spectrum, if None): (unit, value), highest first, ties by number."""
        row = self.mean if image is None else self.values[image]
        return [(int(unit), float(row[unit])) for unit in np.argsort(-row, kind="stable")[:k]]

    def summary(self) -> str:
        """The five highest units of each image."""
        lines: list[str] = []
        for image, name in enumerate(self.names):
            named = [f"{unit}{f' {self.labels[unit]}' if self.labels else ''} ({value:.3g})" for unit, value in self.spikes(5, image)]
            lines.append(f"{name}: {', '.join(named)}")
        return "\n".join(lines)

    def rank(self, unit: int) -> np.ndarray:
        """Place of a unit in each image's spectrum, 1 = highest, (n); equal values share the better place."""
        return 1 + (self.values > self.values[:, unit : unit + 1]).sum(1)


@technique
def spectrum(scope: Scope, images: Images, layer: str, *, reduce: str = "mean", pictures: str | Path | None = None) -> Spectrum:
    """Which units images excite: m_j(x) = mean over positions of A_j(x).

    Args:
        scope: The network.
        images: One or several images; tensors of different sizes may be mixed. Or a folder, in which unreadable files are skipped, logged
            and listed in the manifest.
        layer: Layer name; after a ReLU there is no negative noise, and spikes stand out.
        reduce: "mean" over positions (S0), or "max" for local features.
        pictures: A folder made by :func:`~convscope.gallery`; the figure shows the highest units' pictures beside their spikes.

    Returns:
        One row per image; spikes, ranks and the mean row are methods of it.

    Raises:
        LayerNotFound: Unknown layer.
        BadImage, BadInput: An image that cannot be read.

    Source:
        Graetz 2019 (S0), which marks the spikes of vgg16_bn's layer 42. Means of different image sizes are comparable, sums are not.

    Example:
        >>> import convscope as cs, torch
        >>> cs.spectrum(cs.open("textures"), torch.rand(2, 3, 128, 128), "output").values.shape[0]
        2
    """
    if reduce not in ("mean", "max"):
        raise BadInput(f"reduce must be mean or max, got {reduce!r}")
    sources = scope.inputs.sources(images)
    in_folder = isinstance(images, (str, os.PathLike)) and Path(images).is_dir()
    known = scope.layers[layer]
    if pictures is not None and not Path(pictures).is_dir():
        raise BadInput(f"pictures: {pictures} is not a folder")
    measured: list[tuple[Tensor, Tensor, Tensor]] = []
    skipped: dict[int, str] = {}
    at_once = scope.fitting(scope.inputs.height * scope.inputs.width)
    with task(f"{layer}: spectra of {len(sources)} images", len(sources)) as advance, scope.session(), torch.no_grad():
        for group in _of_one_size(scope, sources, at_once, skipped if in_folder else None):
            values = (
                known.channels_first(scope.run(group, layer)[layer]).flatten(2)
                if known.spatial
                else scope.run(group, layer)[layer][..., None]
            )
            measured.append((values.mean(2), values.amax(2), (values > 0).to(values).mean(2)))
            advance(len(group))
    if not measured:
        raise BadImage(f"{images}: none of its {len(sources)} images can be read; the first: {skipped[0]}")
    names = image_names([source for index, source in enumerate(sources) if index not in skipped])
    mean, maximum, active = (torch.cat(part) for part in zip(*measured, strict=True))
    values = mean if reduce == "mean" else maximum
    pictured, tiles = _pictures(pictures, values)
    return Spectrum(
        values=values,  # type: ignore[arg-type]
        maxima=maximum,  # type: ignore[arg-type]
        active=active,  # type: ignore[arg-type]
        layer=layer,
        names=names,
        labels=scope.class_names if layer == "output" and scope.inputs.classes else (),
        reduce=reduce,
        pictures=tiles,
        pictured=pictured,
        manifest={"precision": scope.resolve("measure"), "images": list(names), "skipped": list(skipped.values())},
    )


def _pictures(folder: str | Path | None, values: Tensor) -> tuple[tuple[int, ...], np.ndarray]:
    """The units among each image's ten highest that have a picture in `folder`, and the pictures, (picture rgb 128 128)."""
    rows = torch.cat([values, values.mean(0, keepdim=True)])
    high = sorted(set(rows.topk(min(10, rows.shape[1])).indices.flatten().tolist()))
    found = [unit for unit in high if folder is not None and (Path(folder) / picture_name(unit)).exists()]
    if folder is None or not found:
        return (), np.zeros((0, 3, 128, 128), np.float32)
    tiles = [read_image(Path(folder) / picture_name(unit)).resize((128, 128)) for unit in found]
    return tuple(found), np.stack([np.asarray(tile, np.float32).transpose(2, 0, 1) / 255 for tile in tiles])


def _of_one_size(scope: Scope, sources: list[Image], at_once: int, skipped: dict[int, str] | None) -> Iterator[Tensor]:
    """Consecutive images of one size as batches (m 3 h w), at most `at_once` each; bad ones are noted in `skipped`, if given."""
    group: list[Tensor] = []
    for index, source in enumerate(sources):
        try:
            image = scope.inputs(source)
        except BadImage as error:
            if skipped is None:
                raise
            skipped[index] = str(error)
            _log.warning("skipped: %s", error)
            continue
        if group and (image.shape != group[0].shape or len(group) == at_once):
            yield torch.stack(group)
            group = []
        group.append(image)
    if group:
        yield torch.stack(group)
