"""The input of a network: images read and preprocessed, ranges and shapes checked, normalization."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from convscope.errors import BadImage, BadInput
from convscope.image_files import MEMBER, SUFFIXES, find_images, is_image, read_bytes
from convscope.names import is_whole
from convscope.preprocessing import RESAMPLING, SMALLEST, Preprocessing, decode, to_rgb, to_values, whole_size
from convscope.text import one_line, printable

Image: TypeAlias = str | os.PathLike[str] | PILImage.Image | np.ndarray | Tensor
"""A path or URL, a PIL image, a uint8 array (h w 3), or a float tensor or array (3 h w) in [0,1]; for networks of other channels, with
theirs in place of 3."""
Images: TypeAlias = Image | Sequence[Image]
"""One image or several. A tensor (n 3 h w) in [0,1] counts as several. A folder stands for all image files below it, by name; a list
(.csv, .tsv, .parquet), a tar shard or a pattern such as ``photos/*.jpg`` for the images in it."""

Resize: TypeAlias = Literal["whole", "crop", "stretch"]
"""How images are fitted to a network's input, see :meth:`Inputs.resized`."""

_log = logging.getLogger("convscope")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Inputs:
    """The input that a network expects. Outside, images are (n c h w) in [0,1], mostly RGB.

    A network of one channel gets files as grey images. One of other channels gets arrays and tensors alone.

    Attributes:
        size: Side of the square input in pixels, or (height, width).
        mean: Mean that the network's training subtracted, in [0,1] units: one number for all channels, or one for each (RGB order).
        std: Standard deviation that it divided by, likewise.
        classes: Names of the network's outputs, where known.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos" (antialiased, as Pillow does it).
        crop: Share of the resized image's side that the central crop keeps: 0.875 is the customary "resize 256, crop 224"; 1
            keeps as much as fits; None resizes the whole image to `size` without cropping, whatever its aspect ratio.
        channels: Number of channels; None: as many as `mean` or `std` has numbers, else those that the network's first convolution
            reads where that is clear, else 3.
        whole: Whether images are neither cut nor stretched: their longer side gets the longer side of `size`. See :meth:`resized`.
        rgb: The channels that figures show as red, green and blue, e.g. (3, 2, 1); None: all channels side by side, if they are not 3.
    """

    size: int | tuple[int, int] = 224
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    classes: Sequence[str] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop: float | None = 1.0
    channels: int | None = None
    rgb: tuple[int, int, int] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.channels is not None and not (is_whole(self.channels) and self.channels >= 1):
            raise BadInput(f"Inputs.channels: expected a whole number of at least 1, or None; got {self.channels!r}")
        count = self.channel_count
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = _numbers(values, count)
            if numbers is None or (name == "std" and min(numbers) <= 0):
                above = " above 0" if name == "std" else ""
                each = "three numbers" if count == 3 else f"{count} numbers" if count > 1 else "one number in brackets"
                order = " (R, G, B)" if count == 3 else ""
                raise BadInput(f"Inputs.{name}: expected {each}{above}{order}, or one for all, for values in [0,1]; got {values!r}")
        if count in (1, 3) and max(self.means) > 1:
            mean, std = ((*(round(float(one) / 255, 4) for one in values),) for values in (self.means, self.stds))
            raise BadInput(f"Inputs.mean: {self.mean} is for values of 0 to 255, but here they go from 0 to 1: mean={mean}, std={std}")
        if isinstance(self.classes, str):
            raise BadInput(f"Inputs.classes: expected a list of names, got the text {one_line(self.classes, 40)!r}")
        if self.rgb is not None and not (len(self.rgb) == 3 and all(is_whole(one) and 0 <= one < count for one in self.rgb)):
            more = "" if self.channels else "; say how many `channels` there are"
            raise BadInput(f"Inputs.rgb: expected three channel numbers from 0 to {count - 1}, or None{more}; got {self.rgb!r}")
        _ = self.preprocessing  # checks size, interpolation and crop

    @property
    def channel_count(self) -> int:
        """Number of channels."""
        if self.channels is not None:
            return self.channels
        given: list[Any] = [values for values in (self.mean, self.std) if not isinstance(values, (Real, str))]
        return next((len(values) for values in given if hasattr(values, "__len__") and len(values)), 3)

    @property
    def means(self) -> tuple[float, ...]:
        """`mean` of each channel."""
        return tuple(_numbers(self.mean, self.channel_count) or ())

    @property
    def stds(self) -> tuple[float, ...]:
        """`std` of each channel."""
        return tuple(_numbers(self.std, self.channel_count) or ())

    def of_network(self, model: nn.Module) -> Inputs:
        """These inputs with the channels that a network's first convolution reads, if nothing says how many there are.

        Three where that is not clear: where some convolution reads three, or where the first reads 12, 27, 48, ... channels, as many
        as RGB has when its pixels are rearranged.
        """
        if self.channels is not None or not all(isinstance(values, Real) for values in (self.mean, self.std)):
            return self
        read = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
        if not read or 3 in read or (read[0] % 3 == 0 and math.isqrt(read[0] // 3) ** 2 == read[0] // 3):
            return self
        return replace(self, channels=read[0])

    def __repr__(self) -> str:
        classes = f"{len(self.classes)} names" if self.classes else "None"
        kept = f"interpolation={self.interpolation!r}, crop={self.crop}"
        kept += "".join(f", {name}={value}" for name, value in (("channels", self.channels), ("rgb", self.rgb)) if value is not None)
        kept += ", whole=True" if self.whole else ""
        return f"Inputs(size={self.size}, mean={self.mean}, std={self.std}, classes={classes}, {kept})"

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are resized and cropped."""
        return Preprocessing(self.size, self.interpolation, self.crop, channels=self.channel_count, whole=self.whole)

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self.preprocessing.height

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self.preprocessing.width

    def resized(self, size: int | None = None, resize: Resize | None = None) -> Inputs:
        """The same inputs for images of another size, or fitted to it in another way.

        Args:
            size: Side of the square input in pixels; with "whole", the longer side. None: as it is.
            resize: "whole": the whole image in its own proportions, so that inputs differ in size as images do; "crop": its middle, as
                much as fits; "stretch": the whole image, whatever its proportions. None: as it is.

        Raises:
            BadInput: Another size or way.
        """
        if resize not in (None, *get_args(Resize)):
            raise BadInput(f"resize must be whole, crop or stretch, got {resize!r}")
        if size is not None and not (is_whole(size) and size >= SMALLEST):
            raise BadInput(f"size must be a whole number of at least {SMALLEST} pixels, got {size!r}")
        changes: dict[str, Any] = {} if size is None else {"size": size}
        if resize is not None:
            changes |= {"whole": resize == "whole", "crop": None if resize == "stretch" else self.crop or 1.0}
        return replace(self, **changes)

    def __call__(self, image: Image) -> Tensor:
        """One image as the network is fed it, before normalization.

        Paths, PIL images and uint8 arrays are decoded, resized and cropped; a float tensor or array is checked and returned at its own
        size.

        Returns:
            Float32 tensor (c h w) in [0,1].

        Raises:
            BadImage: The file cannot be read as an image, or is too small.
            BadInput: The array or tensor has the wrong type, shape or range.
        """
        return self.read(image)[0]

    def read(self, image: Image) -> tuple[Tensor, float]:
        """One image as :meth:`__call__` gives it, and the share of its area that was cut off at its edges."""
        image = _as_tensor(image)
        if isinstance(image, Tensor):
            return check_range(image, 3, self.channel_count), 0.0
        preprocessing = self.preprocessing
        if isinstance(image, np.ndarray) and self.channel_count not in (1, 3):
            array = _checked_array(image, self.channel_count)
            fitted, size = preprocessing.fit_array(array), (array.shape[1], array.shape[0])
        else:
            opened = self._opened(image)
            fitted, size = preprocessing.fit(opened), opened.size
        return torch.from_numpy(to_values(fitted)), preprocessing.cut(size)

    def _opened(self, image: Image) -> PILImage.Image:
        """An image that is no tensor as 8-bit RGB."""
        self.preprocessing.check_files()
        if isinstance(image, np.ndarray) and self.channel_count == 1 and image.shape[2:] in ((), (1,)):
            image = np.repeat(np.atleast_3d(image), 3, 2)
        return read_image(image)

    def batch(self, images: Images) -> Tensor:
        """Several images as one tensor (n c h w) in [0,1]; see :meth:`__call__`. One that cannot be read is an error.

        Raises:
            BadImage, BadInput: Also when there is no image, or tensors of different sizes are mixed.
        """
        images = _as_tensor(images)
        if isinstance(images, Tensor) and images.ndim == 4:
            return check_range(images, 4, self.channel_count)
        return _stacked([self(image) for image in self.sources(images)])

    def reader(self, images: Images, longer: int | None = None) -> ImageReader:
        """Reads several images; those that cannot be read are skipped and listed.

        Args:
            images: One or several images.
            longer: Longer side in pixels of the uncropped images, see :meth:`uncropped`; None: as the network is fed them.
        """
        return ImageReader(self, images, longer)

    def uncropped(self, image: Image, longer: int) -> Tensor:
        """One uncropped image, (c h w) in [0,1], its longer side `longer` pixels; a float tensor keeps its own size.

        Raises:
            BadImage, BadInput: See :meth:`__call__`; also where a side would be shorter than 8 px.
        """
        if not is_whole(longer) or longer < SMALLEST:
            raise BadInput(f"size must be a whole number of at least {SMALLEST} pixels, got {longer!r}")
        image = _as_tensor(image)
        if isinstance(image, Tensor):
            return check_range(image, 3, self.channel_count)
        read = self._opened(image)
        resized = read.resize(whole_size(read.size, longer), RESAMPLING[self.interpolation])
        return torch.from_numpy(to_values(self.preprocessing.as_array(resized)))

    def sources(self, images: Images) -> list[Image]:
        """The single images that `images` stands for, in order; see :data:`Images`.

        Raises:
            BadInput: There is none, or something else is among them.
        """
        return [image for _, image, reason, _ in _single_images(images) if not reason]

    def normalize(self, images: Tensor) -> Tensor:
        """(x - mean) / std per channel, on (n c h w)."""
        return (images - self._column(self.means, images)) / self._column(self.stds, images)

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        return values * self._column(self.stds, values) + self._column(self.means, values)

    def manifest(self) -> Mapping[str, Any]:
        """What a receipt keeps of this: everything but the class names."""
        kept = {"size": [self.height, self.width], "mean": list(self.means), "std": list(self.stds)}
        kept |= {"interpolation": self.interpolation, "crop": self.crop} | ({"whole": True} if self.whole else {})
        return kept if self.rgb is None else kept | {"rgb": list(self.rgb)}

    @staticmethod
    def _column(values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)


class ImageReader:
    """Several images, read one after another by iterating. Those that cannot be read are skipped, logged, and listed with the reason.

    Made by :meth:`Inputs.reader`. Iterating gives tensors (c h w) in [0,1] and raises BadImage if no image can be read; of a single image
    that is its own error.
    """

    def __init__(self, inputs: Inputs, images: Images, longer: int | None) -> None:
        self._read: Callable[[Image], tuple[Tensor, float]] = (
            inputs.read if longer is None else lambda image: (inputs.uncropped(image, longer), 0.0)
        )
        images = _as_tensor(images)
        self._inputs, self._batch = inputs, images if isinstance(images, Tensor) and images.ndim == 4 else None
        found = _single_images(images)
        self._images = [(name, image) for name, image, reason, _ in found if not reason]
        self._labels = [label for _, _, reason, label in found if not reason]
        self._left_out = [(name, reason) for name, _, reason, _ in found if reason]
        self._good: list[int] = []
        self._skipped: list[tuple[str, str]] = []
        self._cut: list[float] = []

    def __len__(self) -> int:
        """Number of images, with those that cannot be read."""
        return len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        self._good, self._skipped, self._cut = [], list(self._left_out), []
        for name, reason in self._left_out:
            _log.warning("skipped: %s: %s", name, reason)
        first: BadImage | None = None
        for index, (name, image) in enumerate(self._images):
            try:
                read, cut = self._read(image)
            except BadImage as error:
                first = first or error
                self._skipped.append((name, error.reason))
                if len(self) > 1:
                    _log.warning("skipped: %s", error)
                continue
            self._good.append(index)
            self._cut.append(cut)
            yield read
        if not self._good and first is not None:
            raise first if len(self) == 1 else BadImage(f"none of the {len(self)} images can be read; the first: {first.message}")

    def batch(self) -> Tensor:
        """All images that can be read, as one tensor (n c h w) in [0,1].

        Raises:
            BadImage: There is none.
            BadInput: They are of different sizes.
        """
        if self._batch is None:
            return _stacked(list(self))
        self._good = list(range(len(self)))
        return check_range(self._batch, 4, self._inputs.channel_count)

    def batches(self, most: int) -> Iterator[Tensor]:
        """Consecutive images of one size as batches (m c h w), at most `most` each."""
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

    @property
    def cut(self) -> tuple[float, ...]:
        """The share of its area that was cut off at the edges, for each image read so far; 0 for tensors."""
        return tuple(self._cut)


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
        return to_rgb(PILImage.fromarray(_checked_array(source, 3)), "array")
    if not isinstance(source, (str, os.PathLike)):
        raise BadInput(f"expected an image (path, PIL image, HWC uint8 array or float tensor (3 h w) in [0,1]), got {_kind(source)}")
    return decode(read_bytes(source), printable(source))[0]


def check_range(images: Tensor, ndim: int, channels: int = 3) -> Tensor:
    """`images` itself, if it is a float tensor (c h w) or (n c h w) with finite values in [0,1]; otherwise BadInput."""
    expected = f"(n {channels} h w)" if ndim == 4 else f"({channels} h w)"
    if images.layout != torch.strided or images.is_meta:
        kind = "on the meta device, without values" if images.is_meta else f"sparse ({one_line(images.layout)})"
        raise BadInput(f"expected a float tensor {expected} in [0,1], got one that is {kind}")
    if not images.is_floating_point() or images.ndim != ndim or images.shape[-3] != channels or images.numel() == 0:
        hint = "; for 8-bit values pass an HWC uint8 numpy array" if images.dtype == torch.uint8 else ""
        raise BadInput(f"expected a float tensor {expected} in [0,1], got {images.dtype} {tuple(images.shape)}{hint}")
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # also false for NaN
        hint = "; it seems to be normalized already: pass it before normalization" if low < 0 else "; divide by 255?" if high > 2 else ""
        raise BadInput(f"expected values in [0,1], got min {low:.4g}, max {high:.4g} in {tuple(images.shape)}{hint}")
    return images if images.dtype == torch.float64 else images.float()


def _as_tensor(images: Any) -> Any:
    """A float array as a tensor; anything else as it is."""
    if not isinstance(images, np.ndarray) or images.dtype.kind != "f":
        return images
    return torch.from_numpy(np.array(images, np.float64 if images.itemsize > 4 else np.float32))


def _checked_array(array: np.ndarray, channels: int) -> np.ndarray:
    """`array` itself, if it is uint8 (h w c); otherwise BadInput."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise BadInput(
            f"expected an HWC uint8 array (h w {channels}), got {array.dtype} {array.shape}; values in [0,1] as float ({channels} h w)"
        )
    if min(array.shape[:2]) < SMALLEST:
        raise BadInput(f"an array of {array.shape[1]}x{array.shape[0]} pixels is too small (at least {SMALLEST} a side)")
    return array


def _kind(value: object) -> str:
    return type(value).__name__


def _numbers(values: Any, count: int) -> list[float] | None:
    """So many finite numbers, from a sequence of them or from one for all; None where they are something else."""
    try:
        numbers = [float(values)] * count if isinstance(values, Real) else [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _stacked(images: Sequence[Tensor]) -> Tensor:
    """Images (c h w) of one size as a batch."""
    if len({tuple(image.shape) for image in images}) > 1:
        raise BadInput(f"images of different sizes in one batch: {sorted({tuple(image.shape) for image in images})}; pass them one by one")
    return torch.stack(list(images))
