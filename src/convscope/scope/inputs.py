"""The input of a network: images read and preprocessed, ranges and shapes checked, normalization."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from convscope.errors import BadImage, BadInput
from convscope.image_files import MEMBER, find_images, is_image, read_bytes
from convscope.names import is_whole
from convscope.preprocessing import RESAMPLING, SMALLEST, SUFFIXES, Preprocessing, decode, to_rgb, to_values
from convscope.text import printable

Image: TypeAlias = str | os.PathLike[str] | PILImage.Image | np.ndarray | Tensor
"""A path or URL, a PIL image, an HWC uint8 array, or a float tensor (3 h w) in [0,1]."""
Images: TypeAlias = Image | Sequence[Image]
"""One image or several. A tensor (n 3 h w) in [0,1] counts as several. A folder stands for all image files below it, by name; a list
(.csv, .tsv, .parquet), a tar shard or a pattern such as ``photos/*.jpg`` for the images in it."""

_log = logging.getLogger("convscope")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Inputs:
    """The input that a network expects. Outside, images are always RGB (n 3 h w) in [0,1].

    Attributes:
        size: Side of the square input in pixels, or (height, width).
        mean: Per-channel mean that the network's training subtracted, in [0,1] units, RGB order.
        std: Per-channel standard deviation that it divided by.
        classes: Names of the network's outputs, where known.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos" (antialiased, as Pillow does it).
        crop: Share of the resized image's side that the central crop keeps: 0.875 is the customary "resize 256, crop 224"; 1
            keeps as much as fits; None resizes the whole image to `size` without cropping, whatever its aspect ratio.
    """

    size: int | tuple[int, int] = 224
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    classes: Sequence[str] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop: float | None = 1.0

    def __post_init__(self) -> None:
        _ = self.preprocessing  # checks size, interpolation and crop
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = _three_numbers(values)
            if numbers is None or (name == "std" and min(numbers) <= 0):
                above = " above 0" if name == "std" else ""
                raise BadInput(f"Inputs.{name}: expected three numbers{above} (R, G, B), for values in [0,1]; got {values!r}")

    def __repr__(self) -> str:
        classes = f"{len(self.classes)} names" if self.classes else "None"
        kept = f"interpolation={self.interpolation!r}, crop={self.crop}"
        return f"Inputs(size={self.size}, mean={self.mean}, std={self.std}, classes={classes}, {kept})"

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are resized and cropped."""
        return Preprocessing(self.size, self.interpolation, self.crop)

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self.preprocessing.height

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self.preprocessing.width

    def __call__(self, image: Image) -> Tensor:
        """One image as the network is fed it, before normalization.

        Paths, PIL images and uint8 arrays are decoded, resized and cropped; a float tensor is checked and returned at its own size.

        Returns:
            Float32 tensor (3 h w) in [0,1].

        Raises:
            BadImage: The file cannot be read as an image, or is too small.
            BadInput: The array or tensor has the wrong type, shape or range.
        """
        if isinstance(image, Tensor):
            return check_range(image, ndim=3)
        return torch.from_numpy(to_values(self.preprocessing.fit(read_image(image))))

    def batch(self, images: Images) -> Tensor:
        """Several images as one tensor (n 3 h w) in [0,1]; see :meth:`__call__`. One that cannot be read is an error.

        Raises:
            BadImage, BadInput: Also when there is no image, or tensors of different sizes are mixed.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            return check_range(images, ndim=4)
        return _stacked([self(image) for image in self.sources(images)])

    def reader(self, images: Images, longer: int | None = None) -> ImageReader:
        """Reads several images; those that cannot be read are skipped and listed.

        Args:
            images: One or several images.
            longer: Longer side in pixels of the uncropped images, see :meth:`whole`; None: as the network is fed them.
        """
        return ImageReader(self, images, longer)

    def whole(self, image: Image, longer: int) -> Tensor:
        """One uncropped image, (3 h w) in [0,1], its longer side `longer` pixels; a float tensor keeps its own size.

        Raises:
            BadImage, BadInput: See :meth:`__call__`; also where a side would be shorter than 8 px.
        """
        if not is_whole(longer) or longer < SMALLEST:
            raise BadInput(f"size must be a whole number of at least {SMALLEST} pixels, got {longer!r}")
        if isinstance(image, Tensor):
            return check_range(image, ndim=3)
        read = read_image(image)
        scale = longer / max(read.size)
        width, height = (round(scale * side) for side in read.size)
        if min(width, height) < SMALLEST:
            raise BadInput(f"size: an image of {read.width}x{read.height} at {longer} px would be {width}x{height}, too small")
        return torch.from_numpy(to_values(read.resize((width, height), RESAMPLING[self.interpolation])))

    def sources(self, images: Images) -> list[Image]:
        """The single images that `images` stands for, in order; see :data:`Images`.

        Raises:
            BadInput: There is none, or something else is among them.
        """
        return [image for _, image, reason, _ in _single_images(images) if not reason]

    def normalize(self, images: Tensor) -> Tensor:
        """(x - mean) / std per channel, on (n 3 h w)."""
        return (images - self._column(self.mean, images)) / self._column(self.std, images)

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return values * self._column(self.std, values) + self._column(self.mean, values)

    def manifest(self) -> Mapping[str, Any]:
        """What a receipt keeps of this: everything but the class names."""
        return {"size": [self.height, self.width], "mean": list(self.mean), "std": list(self.std)} | {
            "interpolation": self.interpolation,
            "crop": self.crop,
        }

    @staticmethod
    def _column(values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


class ImageReader:
    """Several images, read one after another by iterating. Those that cannot be read are skipped, logged, and listed with the reason.

    Made by :meth:`Inputs.reader`. Iterating gives tensors (3 h w) in [0,1] and raises BadImage if no image can be read; of a single image
    that is its own error.
    """

    def __init__(self, inputs: Inputs, images: Images, longer: int | None) -> None:
        self._read: Callable[[Image], Tensor] = inputs if longer is None else lambda image: inputs.whole(image, longer)
        self._batch = images if isinstance(images, Tensor) and images.ndim == 4 else None
        found = _single_images(images)
        self._images = [(name, image) for name, image, reason, _ in found if not reason]
        self._labels = [label for _, _, reason, label in found if not reason]
        self._left_out = [(name, reason) for name, _, reason, _ in found if reason]
        self._good: list[int] = []
        self._skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """Number of images, with those that cannot be read."""
        return len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        self._good, self._skipped = [], list(self._left_out)
        for name, reason in self._left_out:
            _log.warning("skipped: %s: %s", name, reason)
        first: BadImage | None = None
        for index, (name, image) in enumerate(self._images):
            try:
                read = self._read(image)
            except BadImage as error:
                first = first or error
                self._skipped.append((name, error.reason))
                if len(self) > 1:
                    _log.warning("skipped: %s", error)
                continue
            self._good.append(index)
            yield read
        if not self._good and first is not None:
            raise first if len(self) == 1 else BadImage(f"none of the {len(self)} images can be read; the first: {first.message}")

    def batch(self) -> Tensor:
        """All images that can be read, as one tensor (n 3 h w) in [0,1].

        Raises:
            BadImage: There is none.
            BadInput: They are of different sizes.
        """
        if self._batch is None:
            return _stacked(list(self))
        self._good = list(range(len(self)))
        return check_range(self._batch, ndim=4)

    def batches(self, most: int) -> Iterator[Tensor]:
        """Consecutive images of one size as batches (m 3 h w), at most `most` each."""
        group: list[Tensor] = []
        for image in self:
            if group and (image.shape != group[0].shape or len(group) == most):
                yield torch.stack(group)
                group = []
            group.append(image)
        if group:
            yield torch.stack(group)

    def of_read(self, values: Sequence[_T]) -> tuple[_T, ...]:
        """Those values, one per image, that belong to images read so far."""
        return tuple(values[index] for index in self._good)

    @property
    def images(self) -> list[Image]:
        """All images, as paths, tensors or what was given, with those that cannot be read."""
        return [image for _, image in self._images]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images read so far; see :func:`image_names`."""
        return image_names(self.of_read(self.images))

    @property
    def labels(self) -> tuple[str | None, ...]:
        """Labels of the images read so far, as their folder or list gives them; None for an image without one."""
        return self.of_read(self._labels)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of the images skipped so far."""
        return tuple(self._skipped)


def _single_images(images: Images) -> list[tuple[str, Image, str, str | None]]:
    """The single images that `images` stands for, as (name, image, why it was left out, label)."""
    if isinstance(images, Tensor) and images.ndim == 4:
        if not len(images):
            raise BadInput(f"images: got none, a tensor {tuple(images.shape)}")
        return [(f"image {index}", image, "", None) for index, image in enumerate(images)]
    if isinstance(images, (str, os.PathLike, PILImage.Image, np.ndarray, Tensor)):
        given: list[Any] = [images]
    elif hasattr(images, "__iter__"):
        given = list(images)
    else:
        raise BadInput(f"images: expected a path, a PIL image, a tensor (n 3 h w) in [0,1] or a list of these, got {_kind(images)}")
    if not given:
        raise BadInput("images: got an empty list")
    found: list[tuple[str, Image, str, str | None]] = []
    for image in given:
        if not isinstance(image, (str, os.PathLike)):
            found.append((f"image {len(found)}", image, "", None))
            continue
        sources = list(find_images(image))
        if [source.path for source in sources] == [printable(image)]:
            found.append((sources[0].name, image, "", None))
            continue
        if not any(is_image(source.name) for source in sources):
            raise BadInput(f"{printable(image)}: no image files in this folder (looked for {' '.join(sorted(SUFFIXES))})")
        found += [(source.name, source.path, source.reason, source.label) for source in sources if source.reason or is_image(source.name)]
    return found


def image_names(images: Sequence[Image]) -> tuple[str, ...]:
    """Names to show for images: the files' stems, with as many of their folders as tell them apart; numbers for what is no file."""
    files = [Path(printable(image).replace(MEMBER, "/")) if isinstance(image, (str, os.PathLike)) else None for image in images]
    names = [f"image {index}" if file is None else file.stem for index, file in enumerate(files)]
    for depth in itertools.count(1):
        counts, places = Counter(names), defaultdict[str, set[tuple[Path, str]]](set)
        for file, name in zip(files, names, strict=True):
            if file is not None:
                places[name].add((file.parent, file.stem))
        longer = False
        for index, (file, name) in enumerate(zip(files, names, strict=True)):
            folders = [] if file is None else [part for part in file.parts[:-1] if part != file.anchor]
            if file is not None and depth <= len(folders) and (len(places[name]) > 1 or (depth == 1 and counts[name] > 1)):
                names[index], longer = "/".join((*folders[-depth:], file.stem)), True
        if not longer:
            break
    suffixes = defaultdict[str, set[str]](set)
    for file, name in zip(files, names, strict=True):
        suffixes[name].add("" if file is None else file.suffix)
    return tuple(f"{name}{file.suffix}" if file and len(suffixes[name]) > 1 else name for file, name in zip(files, names, strict=True))


def read_image(source: Image) -> PILImage.Image:
    """An image as 8-bit RGB: turned upright by its EXIF tag, alpha laid on white, 16-bit scaled, CMYK and palette converted.

    Raises:
        BadImage: Not an image, damaged, too large, or smaller than 8 px.
        BadInput: No path, PIL image or HWC uint8 array.
    """
    if isinstance(source, PILImage.Image):
        return to_rgb(source, "PIL image")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if not isinstance(source, (str, os.PathLike)):
        raise BadInput(f"expected an image (path, PIL image, HWC uint8 array or float tensor (3 h w) in [0,1]), got {_kind(source)}")
    return decode(read_bytes(source), printable(source))[0]


def check_range(images: Tensor, ndim: int) -> Tensor:
    """`images` itself, if it is a float tensor (3 h w) or (n 3 h w) with finite values in [0,1]; otherwise BadInput."""
    expected = "(n 3 h w)" if ndim == 4 else "(3 h w)"
    if not images.is_floating_point() or images.ndim != ndim or images.shape[-3] != 3 or images.numel() == 0:
        hint = "; for 8-bit values pass an HWC uint8 numpy array" if images.dtype == torch.uint8 else ""
        raise BadInput(f"expected a float tensor {expected} in [0,1], got {images.dtype} {tuple(images.shape)}{hint}")
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # also false for NaN
        hint = "; it seems to be normalized already: pass it before normalization" if low < 0 else "; divide by 255?" if high > 2 else ""
        raise BadInput(f"expected values in [0,1], got min {low:.4g}, max {high:.4g} in {tuple(images.shape)}{hint}")
    return images if images.dtype == torch.float64 else images.float()


def _from_array(array: np.ndarray) -> PILImage.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise BadInput(f"expected an HWC uint8 array (h w 3), got {array.dtype} {array.shape}; float images go in as tensors (3 h w)")
    return to_rgb(PILImage.fromarray(array), "array")


def _kind(value: object) -> str:
    return type(value).__name__


def _three_numbers(values: Any) -> list[float] | None:
    """Three finite numbers, or None."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == 3 and all(map(math.isfinite, numbers)) else None


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """Images (3 h w) of one size as a batch."""
    if len({tuple(image.shape) for image in images}) > 1:
        raise BadInput(f"images of different sizes in one batch: {sorted({tuple(image.shape) for image in images})}; pass them one by one")
    return torch.stack(list(images))
