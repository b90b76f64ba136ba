"""Pictures from files: decoded to 8-bit RGB, resized and cropped as a network wants them. Loads no torch, so decoders start at once."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from convscope.errors import BadImage

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jfif"])
_ORIENTATION = 0x0112
SMALLEST = 8
"""Images with a shorter side are refused: enlarging a handful of pixels to network size shows nothing."""


def decode(source: str | Path | IO[bytes], name: str, draft: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """A file or stream as 8-bit RGB: turned upright by its EXIF tag, alpha laid on white, 16-bit scaled, CMYK and palette converted.

    Args:
        source: Path, or a stream of bytes that can be rewound.
        name: How to call it in errors.
        draft: (height, width): a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as that is no smaller than
            this. Much faster for large photographs; pixels differ a little from those of a full decoding.

    Returns:
        The picture, and its full height and width after turning.

    Raises:
        BadImage: Not an image, damaged, or smaller than 8 px.
    """
    try:
        with Image.open(source) as opened:
            before = opened.size
            if draft is not None:
                opened.draft(None, (min(draft), min(draft)))
            opened.load()
            picture = to_rgb(opened, name)
            return picture, (picture.height, picture.width) if opened.size == before else _turned(before, opened)
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage(f"{name}: not an image file") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError, ...
        raise BadImage(f"{name}: cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())})") from None


def _turned(size: tuple[int, int], picture: Image.Image) -> tuple[int, int]:
    """(height, width) of a picture whose (width, height) in the file is `size`, turned as its EXIF tag says."""
    return size if picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) else (size[1], size[0])


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """A picture of any mode as upright 8-bit RGB; see :func:`decode`."""
    if min(picture.size) < SMALLEST:
        raise BadImage(f"{name}: {picture.width}x{picture.height} pixels, too small to look at (at least {SMALLEST} a side)")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise BadImage(f"{name}: floating-point picture; its range is unknown, so pass it as a tensor (3 h w) in [0,1]")
    if picture.mode.startswith("I"):
        values = np.asarray(picture, dtype=np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage(f"{name}: mode {picture.mode} with values {values.min()} to {values.max()}, expected 16 bit (0 to 65535)")
        picture = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return picture.convert("RGB")


def fit(picture: Image.Image, size: tuple[int, int], interpolation: str, crop: float | None) -> Image.Image:
    """A picture resized and cropped to (height, width) as :class:`~convscope.Inputs` says."""
    resample = RESAMPLING[interpolation]
    if crop is None:
        return picture.resize((size[1], size[0]), resample)
    height, width = picture.height, picture.width
    target_h, target_w = covering(size, crop)
    if target_h * width <= target_w * height:  # the width decides
        resized = target_w, max(size[0], int(target_w * height / width))
    else:
        resized = max(size[1], int(target_h * width / height)), target_h
    picture = picture.resize(resized, resample)
    top, left = round((picture.height - size[0]) / 2), round((picture.width - size[1]) / 2)
    return picture.crop((left, top, left + size[1], top + size[0]))


def covering(size: tuple[int, int], crop: float | None) -> tuple[int, int]:
    """The (height, width) that a picture is resized to cover before it is cropped to `size`."""
    return (round(size[0] / crop), round(size[1] / crop)) if crop else size
