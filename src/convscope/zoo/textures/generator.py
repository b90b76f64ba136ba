"""Procedural labelled images with ground truth: textures, and shapes on clutter with their masks.

Every image is a pure function of its label, the generator state and the size. Angles of the `stripes_*` classes are those of the stripe
LINES, in degrees counter-clockwise from horizontal as the image is displayed: `stripes_0` has horizontal lines, `stripes_30` lines that
rise to the right, `stripes_90` vertical ones. An image deviates from the angle of its class by at most 5 degrees. Colour, scale,
contrast, light, blur and noise vary in every class, and rotation wherever it does not define the class.

    >>> import numpy as np
    >>> sample("heart", np.random.default_rng(0)).image.shape
    (128, 128, 3)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from .colours import colour, contrasting, light, near
from .fields import FloatArray, Plane, Rng
from .patterns import PATTERNS, STRIPE_ANGLES, STRIPE_JITTER
from .shapes import OUTLINES, compose

__all__ = ["CLASSES", "SHAPES", "STRIPE_ANGLES", "STRIPE_JITTER", "VERSION", "Sample", "batch", "indexed", "sample", "write_folder"]

VERSION = "1"
"""Changes whenever the same draws give other pixels."""

SHAPES: tuple[str, ...] = tuple(OUTLINES)
"""Classes that show one object on clutter and have a mask."""

CLASSES: tuple[str, ...] = (*PATTERNS, *SHAPES)
"""All class names; the position is the class index."""

SMALLEST = 32


@dataclass(frozen=True, eq=False)
class Sample:
    """One generated image with its ground truth.

    Attributes:
        image: `(h w rgb)`, uint8.
        mask: `(h w)`, True on the object; None for textures.
        label: class name.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    label: str


def sample(label: str | int, rng: Rng, size: int = 128) -> Sample:
    """Draw one image.

    Args:
        label: class name or class index.
        rng: source of all draws.
        size: image side in pixels, at least 32. Patterns scale with it.

    Returns:
        The image, its mask if its class is a shape, and its class name.

    Raises:
        ValueError: unknown class, or size below 32.
    """
    name = _class_name(label)
    if size < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST} pixels, got {size}")
    plane = Plane.of(size)
    if name in OUTLINES:
        picture, mask = compose(name, plane, rng)
    else:
        picture, mask = _coloured(name, plane, rng), None
    return Sample(_photograph(picture, plane, rng), mask, name)


def indexed(label: str | int, index: int, *, seed: int, size: int = 128) -> Sample:
    """Draw image number `index` of a class: the same one for the same (seed, class, index), whatever else is drawn."""
    name = _class_name(label)
    return sample(name, np.random.default_rng([seed, CLASSES.index(name), index]), size)


def batch(label: str | int, indices: Iterable[int], *, seed: int, size: int = 128) -> npt.NDArray[np.uint8]:
    """Draw several images of one class, those that `indexed` draws: `(n h w rgb)`, uint8."""
    return np.stack([indexed(label, index, seed=seed, size=size).image for index in indices])


def write_folder(out: str | Path, per_class: int, seed: int, size: int = 128) -> None:
    """Write a labelled image folder with ground truth.

    Images go to `out/images/<class>/<nnnn>.png`, the masks of the shape classes to `out/masks/<class>/<nnnn>.png` (255 on the object, 0
    elsewhere), a description to `out/README.txt`. Image `nnnn` equals `indexed(class, nnnn, seed=seed, size=size)`.

    Args:
        out: folder to write to; made if missing.
        per_class: images of each class.
        seed: with the class and the index, all that an image depends on.
        size: image side in pixels.
    """
    out = Path(out)
    for name in CLASSES:
        folders = [out / "images" / name, *([out / "masks" / name] if name in SHAPES else [])]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            drawn = indexed(name, index, seed=seed, size=size)
            Image.fromarray(drawn.image).save(folders[0] / f"{index:04d}.png")
            if drawn.mask is not None:
                Image.fromarray(drawn.mask.astype(np.uint8) * 255).save(folders[1] / f"{index:04d}.png")
    (out / "README.txt").write_text(_readme(per_class, seed, size), encoding="utf-8")


def _class_name(label: str | int) -> str:
    if isinstance(label, int) and 0 <= label < len(CLASSES):
        return CLASSES[label]
    if isinstance(label, str) and label in CLASSES:
        return label
    raise ValueError(f"label must be one of {', '.join(CLASSES)} or an index below {len(CLASSES)}, got {label!r}")


def _coloured(name: str, plane: Plane, rng: Rng) -> FloatArray:
    """Return a texture in colour, `(h w rgb)`: ground and figure contrast, the figure has one or two colours."""
    field = PATTERNS[name](plane, rng)
    ground, first = contrasting(rng)
    second = near(first, rng)
    figure = first + field.tint[..., None] * (second - first)
    picture = ground + field.tone[..., None] * (figure - ground)
    if rng.random() < 0.4:
        stain = colour(rng, float(picture.mean()))
        picture = picture + np.clip(plane.noise(rng, 3) * 0.15, 0, 0.3)[..., None] * (stain - picture)
    return picture


def _photograph(picture: FloatArray, plane: Plane, rng: Rng) -> npt.NDArray[np.uint8]:
    """Put an image `(h w rgb)` under uneven light, then blur it slightly and add sensor noise."""
    lit = np.clip(picture * light(plane, rng)[..., None] * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        radius = float(rng.uniform(0.2, 0.8)) * plane.size / 128
        lit = np.asarray(Image.fromarray(lit).filter(ImageFilter.GaussianBlur(radius)))
    deviation = 255 * rng.uniform(0.0, 0.04)
    noise = rng.standard_normal(lit.shape, dtype=np.float32) * np.float32(deviation)
    return np.clip(lit + noise + 0.5, 0, 255).astype(np.uint8)


def _readme(per_class: int, seed: int, size: int) -> str:
    angles = ", ".join(f"{name} {angle:g}" for name, angle in STRIPE_ANGLES.items())
    return f"""Generated images with ground truth: {len(CLASSES)} classes, {per_class} images each, {size} x {size} pixels.
Seed {seed}, generator version {VERSION}.

images/<class>/<nnnn>.png   the images, one folder per class
masks/<class>/<nnnn>.png    255 on the object, 0 elsewhere; for the shape classes only: {", ".join(SHAPES)}

Angle of the stripe lines in degrees counter-clockwise from horizontal (+- {STRIPE_JITTER:g}): {angles}.
Each image depends on (seed, class, number) alone.
"""
