"""What hides: colours in pixel space, blur, images, and what is none of these."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from convscope.errors import BadInput
from convscope.scope import Inputs
from convscope.techniques.fills import Fill, fill_image
from hand_built import draws

INPUTS = Inputs(size=(20, 30), mean=(0.1, 0.2, 0.3), std=(0.2, 0.2, 0.2))
PICTURE = draws(3, 20, 30)


def filled(fill: Fill, patch: tuple[int, int] = (4, 6)) -> Tensor:
    return fill_image(fill, PICTURE, INPUTS, patch)


@pytest.mark.parametrize(
    ("fill", "colour"),
    [
        ("gray", (0.5, 0.5, 0.5)),
        ("grey", (0.5, 0.5, 0.5)),
        ("mean", (0.1, 0.2, 0.3)),
        ("black", (0, 0, 0)),
        ("white", (1, 1, 1)),
        ("#FF0080", (1, 0, 128 / 255)),
        ("0.25", (0.25, 0.25, 0.25)),
        (0, (0, 0, 0)),
        (0.125, (0.125, 0.125, 0.125)),
        ((0.1, 0.5, 0.9), (0.1, 0.5, 0.9)),
    ],
)
def test_colours_are_in_pixel_space(fill: Fill, colour: tuple[float, ...]) -> None:
    made = filled(fill)
    assert made.shape == PICTURE.shape and made.dtype == PICTURE.dtype
    assert torch.equal(made, torch.tensor(colour).view(3, 1, 1).expand(3, 20, 30))


def test_blur_is_a_gaussian_of_half_a_patch() -> None:
    """The answer to a single bright pixel, along each axis."""
    point = torch.zeros(3, 41, 61)
    point[:, 20, 30] = 1
    made = fill_image("blur", point, INPUTS, (6, 8))[0].double()
    for axis, sigma in ((0, 3.0), (1, 4.0)):
        profile = made.sum(1 - axis)
        steps = torch.arange(len(profile), dtype=torch.float64) - len(profile) // 2
        wanted = torch.where(steps.abs() <= math.ceil(2 * sigma), torch.exp(-(steps**2) / (2 * sigma**2)), 0.0)
        torch.testing.assert_close(profile, wanted / wanted.sum(), rtol=1e-4, atol=1e-6)


def test_blur_of_a_patch_as_large_as_the_picture() -> None:
    made = filled("blur", (20, 30))
    assert made.shape == PICTURE.shape and made.std() < 0.2 * PICTURE.std()
    assert made.mean() == pytest.approx(float(PICTURE.mean()), abs=0.02)


def test_images(tmp_path: Path) -> None:
    other = draws(3, 20, 30, seed=1)
    assert torch.equal(filled(other), other)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "fill.png")
    for fill in (tmp_path / "fill.png", str(tmp_path / "fill.png"), pixels):
        assert torch.equal(filled(fill), INPUTS(tmp_path / "fill.png")), "fitted as the pictures are"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("fog", "fill must be gray"),
        ("#ggg000", "fill must be gray"),
        ("#fff", "fill must be gray"),
        (255, r"fill must lie in \[0,1\], got 255"),
        ((0.5, 0.5, -0.1), "fill must lie in"),
        (math.inf, "fill must lie in"),
        ("nan", "fill must lie in"),
        ((0.1, 0.2, 0.3, 0.4), "a colour is"),
        (draws(3, 9, 9), r"an image of \(9, 9\) pixels, but the occluded image has \(20, 30\)"),
        (draws(3, 20, 30) * 200, "divide by 255"),
    ],
)
def test_what_is_no_fill(wrong: Fill, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        filled(wrong)
