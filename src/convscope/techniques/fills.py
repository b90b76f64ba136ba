"""Fills: what an occluding patch shows, in pixel space."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.scope.inputs import Image, Inputs

Fill: TypeAlias = str | float | tuple[float, ...] | Image
"""A name, a grey value, a colour (r, g, b) in [0,1] or "#rrggbb", or an image. Of other than three channels, a value for each."""
_GREYS = {"gray": 0.5, "grey": 0.5, "black": 0.0, "white": 1.0}
_ARTICLE = 0.5
"""What the article (S1) writes into the normalized image."""


def fill_image(fill: Fill, image: Tensor, inputs: Inputs, patch: tuple[int, int]) -> Tensor:
    """The image that patches are cut from, (c h w), in pixel space.

    Args:
        fill: "gray", "median" (of each channel of the image), "mean", "black", "white", "blur" (a Gaussian of half a patch), a grey
            value, a colour, an image of the same size, or "article": the colour that becomes 0.5 in every channel when normalized.
        image: The image to be occluded, (c h w) in [0,1].
        inputs: For its mean colour, and to read images.
        patch: Height and width of the patch in pixels.

    Raises:
        BadInput: Not a fill, or an image of another size.
    """
    asked = fill
    if isinstance(fill, str) and fill == "blur":
        from torchvision.transforms.v2.functional import gaussian_blur  # slow to load

        sigmas = [side / 2 for side in patch]
        kernel = [min(2 * math.ceil(2 * sigma) + 1, (side - 1) // 2 * 2 + 1) for sigma, side in zip(sigmas, image.shape[-2:], strict=True)]
        return gaussian_blur(image, kernel[::-1], sigmas[::-1])
    if isinstance(fill, str) and fill == "article":
        return _plain([_ARTICLE * std + mean for mean, std in zip(inputs.means, inputs.stds, strict=True)], image)
    if isinstance(fill, str) and fill == "mean":
        fill = inputs.means
    if isinstance(fill, str) and fill == "median":
        fill = tuple(image.flatten(1).median(1).values.tolist())
    if isinstance(fill, str):
        fill = _named(fill, len(image)) or fill
    if isinstance(fill, (int, float)):
        fill = (float(fill),) * len(image)
    if isinstance(fill, (tuple, list)):
        if len(fill) != len(image):
            colour = "(r, g, b)" if len(image) == 3 else f"{len(image)} numbers, one for each channel,"
            raise BadInput(f"a colour is {colour} in [0,1], got {fill!r}")
        colour = [float(value) for value in fill]
        if not all(0 <= value <= 1 for value in colour):  # also false for NaN
            raise BadInput(f"fill must lie in [0,1], got {asked!r}")
        return _plain(colour, image)
    if isinstance(fill, str) and not Path(fill).is_file():
        raise BadInput(
            "fill must be gray, median, mean, black, white, blur, article, a grey value, a colour such as #808080, or an image file; "
            f"got {asked!r}"
        )
    found = inputs(fill).to(image)
    if found.shape != image.shape:
        raise BadInput(f"the fill is an image of {tuple(found.shape[1:])} pixels, but the occluded image has {tuple(image.shape[1:])}")
    return found


def _plain(colour: Sequence[float], image: Tensor) -> Tensor:
    """An image of the same size, (c h w), of one colour, which may lie outside [0,1]."""
    return torch.tensor(colour, dtype=image.dtype, device=image.device).view(-1, 1, 1).expand_as(image)


def _named(colour: str, channels: int) -> tuple[float, ...] | None:
    """The value of each channel for a grey's name, a grey value or #rrggbb; None for any other text."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        if channels != 3:
            raise BadInput(
                f"a fill {colour} has red, green and blue, but this network's images have {channels} channels; give a grey value"
            )
        return int(colour[1:3], 16) / 255, int(colour[3:5], 16) / 255, int(colour[5:7], 16) / 255
    try:
        grey = _GREYS[colour] if colour in _GREYS else float(colour)
    except ValueError:
        return None
    return (grey,) * channels
