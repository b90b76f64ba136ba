"""Files to pictures, and pictures to what a network is fed: decoding, resizing and cropping with Pillow alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps

from convscope.errors import BadImage, BadInput

RESAMPLING = {
    "nearest": PILImage.Resampling.NEAREST,
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
    "lanczos": PILImage.Resampling.LANCZOS,
}
SMALLEST = 8
"""Images with a shorter side are refused: enlarging a handful of pixels to network size shows nothing."""


class Frame(Protocol):
    """The part of :class:`~convscope.Inputs` that says how a picture is brought to the size of the network."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def interpolation(self) -> str: ...
    @property
    def crop(self) -> float | None: ...


def fit(picture: PILImage.Image, frame: Frame) -> PILImage.Image:
    """The picture resized and cropped to `frame`."""
    resample = RESAMPLING[frame.interpolation]
    if frame.crop is None:
        return picture.resize((frame.width, frame.height), resample)
    height, width = picture.height, picture.width
    target_h, target_w = round(frame.height / frame.crop), round(frame.width / frame.crop)
    if target_h * width <= target_w * height:  # the width decides
        resized = target_w, max(frame.height, int(target_w * height / width))
    else:
        resized = max(frame.width, int(target_h * width / height)), target_h
    picture = picture.resize(resized, resample)
    top, left = round((picture.height - frame.height) / 2), round((picture.width - frame.width) / 2)
    return picture.crop((left, top, left + frame.width, top + frame.height))


def read_image(source: str | os.PathLike[str] | PILImage.Image) -> PILImage.Image:
    """Decodes a picture to 8-bit RGB: turned upright by its EXIF tag, alpha laid on white, 16-bit scaled, CMYK and palette converted.

    Raises:
        BadImage: Not an image, damaged, or smaller than 8 px.
    """
    if isinstance(source, PILImage.Image):
        return to_rgb(source, "PIL image")
    if not isinstance(source, (str, os.PathLike)):
        raise BadInput(
            f"expected an image (path, PIL image, HWC uint8 array or float tensor (3 h w) in [0,1]), got {type(source).__name__}"
        )
    path = Path(source)
    if not path.is_file():
        raise BadImage(f"{path}: {'is a folder, not an image' if path.is_dir() else 'no such file'}")
    return decode(path, str(path))


def decode(file: Path | IO[bytes], name: str) -> PILImage.Image:
    """An opened file or a path as :func:`read_image` has it; `name` is what errors call it."""
    try:
        with PILImage.open(file) as opened:
            opened.load()
            return to_rgb(opened, name)
    except BadImage:
        raise
    except PILImage.UnidentifiedImageError:
        raise BadImage(f"{name}: not an image file") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError, ...
        raise BadImage(f"{name}: cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())})") from None


def to_rgb(picture: PILImage.Image, name: str) -> PILImage.Image:
    """The picture in 8-bit RGB; see :func:`read_image`."""
    if min(picture.size) < SMALLEST:
        raise BadImage(f"{name}: {picture.width}x{picture.height} pixels, too small to look at (at least {SMALLEST} a side)")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise BadImage(f"{name}: floating-point picture; its range is unknown, so pass it as a tensor (3 h w) in [0,1]")
    if picture.mode.startswith("I"):
        values = np.asarray(picture, dtype=np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage(f"{name}: mode {picture.mode} with values {values.min()} to {values.max()}, expected 16 bit (0 to 65535)")
        picture = PILImage.fromarray(((values + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = PILImage.alpha_composite(PILImage.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return picture.convert("RGB")
