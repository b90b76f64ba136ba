"""Preprocessing of images: encoded bytes to 8-bit RGB or grey, resized and cropped to the network's input. Never loads torch."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from PIL import Image, ImageOps

from convscope.errors import BadImage, BadInput
from convscope.image_files import FORMATS
from convscope.text import one_line

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SMALLEST = 8
"""Least pixels of the shorter side: enlarging a handful of pixels to network size shows nothing."""
MOST_PIXELS = 178_956_970
"""Most pixels of an image: Pillow's own limit, so at most 1.5 GB of memory while decoding. Half of it for formats of :data:`_COPIED`."""
MOST_SIDE = 8192
"""Most pixels of a side of a network's input."""
_COPIED = ("WEBP", "AVIF")
"""Formats whose decoders hold an image several times."""
_ORIENTATION = 0x0112
_STRIP = 2**22
"""Pixels converted at once, so that a conversion never needs several copies of a large image."""


@dataclass(frozen=True)
class Preprocessing:
    """How images become network inputs: resized, cropped, 8-bit RGB or grey. One value for techniques, scans and surveys.

    Attributes:
        size: Side of the square input in pixels, or (height, width).
        interpolation: A key of :data:`RESAMPLING`; antialiased, as Pillow does it.
        crop: Share of the resized image's side that the central crop keeps; None resizes the whole image to `size`.
        whole: Whether images are neither cut nor stretched: their longer side gets the longer side of `size`, and their inputs differ
            in size as they do.
        draft: Decode JPEGs at a half, a quarter or an eighth of their size where that still covers the input: faster, and pixels differ a
            little.
        channels: 3, or 1 for grey images. Files have no other number of channels; arrays may, see :meth:`fit_array`.
    """

    size: int | tuple[int, int]
    interpolation: str = "bilinear"
    crop: float | None = 1.0
    draft: bool = False
    channels: int = 3
    whole: bool = False

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if len(sides) != 2 or not all(
            not isinstance(side, bool) and isinstance(side, Integral) and 1 <= side <= MOST_SIDE for side in sides
        ):
            raise BadInput(f"Inputs.size: expected pixels, one number or (height, width), each from 1 to {MOST_SIDE}; got {self.size!r}")
        if self.interpolation not in RESAMPLING:
            raise BadInput(f"Inputs.interpolation: expected one of {', '.join(RESAMPLING)}; got {self.interpolation!r}")
        if self.crop is not None and (isinstance(self.crop, bool) or not isinstance(self.crop, Real) or not 0 < self.crop <= 1):
            raise BadInput(f"Inputs.crop: expected a share in (0, 1], or None; got {self.crop!r}")

    @property
    def height(self) -> int:
        """Input height in pixels."""
        return int(self.size[0] if isinstance(self.size, (tuple, list)) else self.size)

    @property
    def width(self) -> int:
        """Input width in pixels."""
        return int(self.size[1] if isinstance(self.size, (tuple, list)) else self.size)

    def decode(self, data: bytes, name: str = "") -> tuple[Image.Image, tuple[int, int]]:
        """Encoded bytes as an 8-bit RGB image, and the (height, width) of the file, upright; see :func:`decode`."""
        return decode(data, name, self._resized() if self.draft else None)

    def check_files(self) -> None:
        """Raises BadInput if image files are no input of this network, because it takes neither three channels nor one."""
        if self.channels not in (1, 3):
            raise BadInput(
                f"this network takes {self.channels} channels, and image files have three: pass arrays (h w {self.channels}) of uint8, or "
                f"float arrays or tensors (n {self.channels} h w) in [0,1]"
            )

    def as_array(self, image: Image.Image) -> np.ndarray:
        """An 8-bit RGB image as uint8 (h w 3), or (h w 1): its grey values, 0.299 R + 0.587 G + 0.114 B."""
        self.check_files()
        return np.asarray(image) if self.channels == 3 else np.asarray(image.convert("L"))[..., None]

    def fit(self, image: Image.Image) -> np.ndarray:
        """An RGB image resized and cropped to the network's input: uint8 (h w 3), or grey (h w 1)."""
        return self.as_array(self._fitted(image))

    def fit_array(self, array: np.ndarray) -> np.ndarray:
        """An 8-bit array (h w c) of any channels, each resized and cropped to the network's input: uint8 (h w c)."""
        return np.stack([np.asarray(self._fitted(Image.fromarray(np.ascontiguousarray(plane)))) for plane in np.moveaxis(array, -1, 0)], -1)

    def _fitted(self, image: Image.Image) -> Image.Image:
        resample, (height, width) = RESAMPLING[self.interpolation], (self.height, self.width)
        if self.whole:
            return image.resize(whole_size(image.size, max(height, width)), resample)
        if self.crop is None:
            return image.resize((width, height), resample)
        resized = self._before_crop(image.size)
        left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
        part = (left, top, left + width, top + height)
        if resized[0] * resized[1] <= max(MOST_PIXELS, 8 * width * height):
            return image.resize(resized, resample).crop(part)
        # so long and narrow that all of it would fill memory: the part alone, the same up to rounding
        across, down = image.width / resized[0], image.height / resized[1]
        return image.resize((width, height), resample, (part[0] * across, part[1] * down, part[2] * across, part[3] * down))

    def cut(self, size: tuple[int, int]) -> float:
        """The share of an image's area that its central crop cuts off at the edges, for an image of this (width, height)."""
        if self.whole or self.crop is None:
            return 0.0
        width, height = self._before_crop(size)
        return 1 - self.width * self.height / (width * height)

    def _before_crop(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) to which an image of this (width, height) is resized before it is cropped."""
        (height, width), (least_height, least_width) = (self.height, self.width), self._resized()
        if least_height * size[0] <= least_width * size[1]:  # the width decides
            return least_width, max(height, int(least_width * size[1] / size[0]))
        return max(width, int(least_height * size[0] / size[1])), least_height

    def pixels(self, image: bytes | Image.Image, name: str = "") -> np.ndarray:
        """Encoded bytes or a PIL image as the network is fed it: uint8 (h w 3), or grey (h w 1).

        Args:
            image: The image, of any size and mode.
            name: What errors call it.

        Raises:
            BadImage: See :func:`decode`.
        """
        return self.fit(self.decode(image, name)[0] if isinstance(image, bytes) else to_rgb(image, name))

    def _resized(self) -> tuple[int, int]:
        """The (height, width) that an image is resized to cover before it is cropped."""
        return (round(self.height / self.crop), round(self.width / self.crop)) if self.crop else (self.height, self.width)


def whole_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The (width, height) of a whole image of this (width, height) when its longer side becomes `longer` pixels.

    Raises:
        BadInput: A side would be too short.
    """
    scale = longer / max(size)
    width, height = (round(scale * side) for side in size)
    if min(width, height) < SMALLEST:
        raise BadInput(f"size: an image of {size[0]}x{size[1]} at {longer} px would be {width}x{height}, too small")
    return width, height


def to_values(pixels: np.ndarray | Image.Image) -> np.ndarray:
    """8-bit channels (h w c) as float32 (c h w) in [0,1]."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(pixels, np.float32) / 255, -1, 0))


def decode(data: bytes, name: str = "", draft: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Encoded bytes as 8-bit RGB: turned upright by its EXIF tag, alpha laid on white, 16-bit scaled, CMYK and palette converted.

    Args:
        data: A file of one of :data:`FORMATS`; of an animation, the first frame.
        name: What errors call it.
        draft: (height, width): a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as that is no smaller than
            this. Much faster for large photographs; pixels differ a little from those of a full decoding.

    Returns:
        The image, and its full (height, width), upright.

    Raises:
        BadImage: Not an image, damaged, smaller than 8 px, or larger than :data:`MOST_PIXELS`.
    """
    with _decoding(name), Image.open(io.BytesIO(data), formats=tuple(dict.fromkeys(FORMATS.values()))) as opened:
        before = opened.size
        _check_size(opened, name)
        if draft is not None:
            opened.draft(None, (min(draft), min(draft)))
        opened.load()
        size = _upright(before, opened)
        ImageOps.exif_transpose(opened, in_place=True)  # not two of a large image
        return _to_rgb(opened, name), size


def to_rgb(image: Image.Image, name: str = "") -> Image.Image:
    """A PIL image of any mode as upright 8-bit RGB; see :func:`decode`. The image itself is not changed."""
    with _decoding(name):
        _check_size(image, name)
        return _to_rgb(image, name)


@contextmanager
def _decoding(name: str) -> Generator[None]:
    """Turns whatever Pillow raises into BadImage."""
    try:
        yield
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage("not an image file", name) from None
    except Image.DecompressionBombError:
        raise BadImage(_too_large(""), name) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise BadImage(f"cannot be decoded ({type(error).__name__}: {one_line(error)})", name) from None


def _check_size(image: Image.Image, name: str) -> None:
    """Refuses images by the size that the file declares, before any pixel is decoded."""
    if min(image.size) < SMALLEST:
        raise BadImage(f"{image.width}x{image.height} pixels, too small (at least {SMALLEST} a side)", name)
    most = MOST_PIXELS // 2 if image.format in _COPIED else MOST_PIXELS
    if image.width * image.height > most:
        raise BadImage(_too_large(f"{image.width}x{image.height} pixels, ", most), name)


def _too_large(pixels: str, most: int = MOST_PIXELS) -> str:
    return f"{pixels}too large to decode (at most {most // 10**6} million pixels)"


def _upright(size: tuple[int, int], image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image whose (width, height) in the file is `size`, turned as its EXIF tag says."""
    return size if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) else (size[1], size[0])


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.getexif().get(_ORIENTATION, 1) in range(2, 9):  # exif_transpose copies an upright image, too
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise BadImage("floating-point image; its range is unknown, so pass it as a tensor (3 h w) in [0,1]", name)
    if image.mode.startswith("I"):
        image = _from_integers(image, name)
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """The image in strips of some rows, or parts of one row, each with its first column and row."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        for left in range(0, image.width, _STRIP):
            yield left, top, image.crop((left, top, min(left + _STRIP, image.width), min(top + rows, image.height)))


def _from_integers(image: Image.Image, name: str) -> Image.Image:
    """A grey image of 16-bit values as one of 8 bit, rounded."""
    grey = np.empty((image.height, image.width), np.uint8)
    ends: list[int] = []
    for left, top, strip in _strips(image):
        values = np.asarray(strip, np.int64)
        ends += [int(values.min()), int(values.max())]
        grey[top : top + strip.height, left : left + strip.width] = (values + 128) // 257
    if min(ends) < 0 or max(ends) > 65535:
        raise BadImage(f"mode {image.mode} with values {min(ends)} to {max(ends)}, expected 16 bit (0 to 65535)", name)
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    """An image with transparency laid on white, as RGB."""
    made = Image.new("RGB", image.size)
    for left, top, strip in _strips(image):
        rgba = strip.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        made.paste(Image.alpha_composite(white, rgba).convert("RGB"), (left, top))
    return made
