"""How pictures enter a network: decoding, resizing, cropping, range and shape checks, normalization."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from convscope.errors import BadImage, BadInput
from convscope.preprocessing import RESAMPLING, SMALLEST, SUFFIXES, decode, fit, to_rgb

Image: TypeAlias = str | os.PathLike[str] | PILImage.Image | np.ndarray | Tensor
"""A path, a PIL image, an HWC uint8 array, or a float tensor (3 h w) in [0,1]."""
Images: TypeAlias = Image | Sequence[Image]
"""One image or several; a tensor (n 3 h w) in [0,1] counts as several, a folder as all image files in it, by name."""


@dataclass(frozen=True)
class Inputs:
    """What a network expects of its input. Outside, images are always RGB (n 3 h w) in [0,1].

    Attributes:
        size: Side of the square input in pixels, or (height, width).
        mean: Per-channel mean that the network's training subtracted, in [0,1] units, RGB order.
        std: Per-channel standard deviation that it divided by.
        classes: Names of the network's outputs, where known.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos" (antialiased, as Pillow does it).
        crop: Share of the resized picture's side that the central crop keeps: 0.875 is the customary "resize 256, crop 224"; 1
            keeps as much as fits; None squashes the whole picture to `size` without cropping.
    """

    size: int | tuple[int, int] = 224
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    classes: Sequence[str] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop: float | None = 1.0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise BadInput(f"Inputs.size must be at least 1 pixel, got {self.size}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BadInput(f"Inputs.mean and .std need three values (R, G, B), std > 0; got mean={self.mean}, std={self.std}")
        if self.interpolation not in RESAMPLING:
            raise BadInput(f"Inputs.interpolation must be one of {', '.join(RESAMPLING)}, got {self.interpolation!r}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise BadInput(f"Inputs.crop must be in (0, 1] or None, got {self.crop}")

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

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
        picture = _from_array(image) if isinstance(image, np.ndarray) else read_image(image)
        fitted = fit(picture, (self.height, self.width), self.interpolation, self.crop)
        return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()

    def batch(self, images: Images) -> Tensor:
        """Several images as one tensor (n 3 h w) in [0,1]; see :meth:`__call__`.

        Raises:
            BadInput: Also when there is no image, or tensors of different sizes are mixed.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            return check_range(images, ndim=4)
        prepared = [self(image) for image in self.sources(images)]
        if len({tuple(image.shape) for image in prepared}) > 1:
            raise BadInput(f"images of different sizes in one batch: {sorted({tuple(i.shape) for i in prepared})}; pass them one by one")
        return torch.stack(prepared)

    def whole(self, image: Image, longer: int) -> Tensor:
        """One image uncropped, (3 h w) in [0,1], its longer side `longer` pixels; a float tensor keeps its own size.

        Raises:
            BadImage, BadInput: See :meth:`__call__`; also where a side would be shorter than 8 px.
        """
        if isinstance(longer, bool) or not isinstance(longer, int) or longer < SMALLEST:
            raise BadInput(f"size must be a whole number of at least {SMALLEST} pixels, got {longer!r}")
        if isinstance(image, Tensor):
            return check_range(image, ndim=3)
        picture = _from_array(image) if isinstance(image, np.ndarray) else read_image(image)
        scale = longer / max(picture.size)
        width, height = (round(scale * side) for side in picture.size)
        if min(width, height) < SMALLEST:
            raise BadInput(f"size: a picture of {picture.width}x{picture.height} at {longer} px would be {width}x{height}, too small")
        picture = picture.resize((width, height), RESAMPLING[self.interpolation])
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()

    def sources(self, images: Images) -> list[Image]:
        """The single images meant by `images`: a folder stands for the image files in it, sorted by name."""
        if isinstance(images, Tensor) and images.ndim == 4:
            return list(images)
        if isinstance(images, (str, os.PathLike)) and Path(images).is_dir():
            return list(image_files(Path(images)))
        if isinstance(images, (str, os.PathLike, PILImage.Image, np.ndarray, Tensor)):
            return [images]
        if not isinstance(images, Iterable):
            raise BadInput(f"images: expected a path, a picture, a tensor (n 3 h w) in [0,1] or a list of these, got {_kind(images)}")
        listed = list(images)
        if not listed:
            raise BadInput("images: got an empty list")
        return listed

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


def image_files(folder: Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name.

    Raises:
        BadInput: There is none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise BadInput(f"{folder}: no image files in this folder (looked for {' '.join(sorted(SUFFIXES))})")
    return found


def image_names(images: Sequence[Image]) -> tuple[str, ...]:
    """Names to show for images: the files' stems, with their folder where stems repeat; numbers for what is no file."""
    paths = [Path(image) if isinstance(image, (str, os.PathLike)) else None for image in images]
    stems = [f"image {index}" if path is None else path.stem for index, path in enumerate(paths)]
    repeated = {stem for stem, count in Counter(stems).items() if count > 1}
    return tuple(
        f"{path.parent.name}/{stem}" if path is not None and stem in repeated else stem for path, stem in zip(paths, stems, strict=True)
    )


def read_image(source: str | os.PathLike[str] | PILImage.Image) -> PILImage.Image:
    """Decodes a picture to 8-bit RGB: turned upright by its EXIF tag, alpha laid on white, 16-bit scaled, CMYK and palette converted.

    Raises:
        BadImage: Not an image, damaged, or smaller than 8 px.
    """
    if isinstance(source, PILImage.Image):
        return to_rgb(source, "PIL image")
    if not isinstance(source, (str, os.PathLike)):
        raise BadInput(f"expected an image (path, PIL image, HWC uint8 array or float tensor (3 h w) in [0,1]), got {_kind(source)}")
    path = Path(source)
    if not path.is_file():
        raise BadImage(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")
    return decode(path, str(path))[0]


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
        raise BadInput(f"expected an HWC uint8 array (h w 3), got {array.dtype} {array.shape}; float pictures go in as tensors (3 h w)")
    return to_rgb(PILImage.fromarray(array), "array")


def _kind(value: object) -> str:
    return type(value).__name__
