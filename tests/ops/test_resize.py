"""Resizing and blurring against OpenCV's formulas, written out pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.ops.resize import box_blur, cubic
from hand_built import draws


def cubic_slowly(image: Tensor, side: int) -> Tensor:
    """cv2.INTER_CUBIC: Keys' kernel with a = -0.75 around (target + 0.5) * scale - 0.5, borders repeated."""

    def weight(distance: float) -> float:
        a, t = -0.75, abs(distance)
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0

    height, width = image.shape
    out = torch.zeros(side, side, dtype=torch.float64)
    for y in range(side):
        for x in range(side):
            source_y, source_x = (y + 0.5) * height / side - 0.5, (x + 0.5) * width / side - 0.5
            for row in range(math.floor(source_y) - 1, math.floor(source_y) + 3):
                for column in range(math.floor(source_x) - 1, math.floor(source_x) + 3):
                    value = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                    out[y, x] += weight(source_y - row) * weight(source_x - column) * value
    return out


@pytest.mark.parametrize(("size", "side"), [((7, 7), 8), ((5, 5), 10), ((6, 9), 11)])
def test_cubic(size: tuple[int, int], side: int) -> None:
    image = draws(1, 1, *size, dtype=torch.float64)
    torch.testing.assert_close(cubic(image, side)[0, 0], cubic_slowly(image[0, 0], side), rtol=0, atol=1e-12)


def test_cubic_overshoots_at_an_edge_as_the_kernel_says() -> None:
    step = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64).expand(1, 1, 6, 6)
    # doubling samples at quarter pixels: Keys' weights at a = -0.75 are -0.10546875, 0.87890625, 0.26171875, -0.03515625
    row = cubic(step.contiguous(), 12)[0, 0, 6]
    assert torch.allclose(row[4:8], torch.tensor([-0.10546875, 0.2265625, 0.7734375, 1.10546875], dtype=torch.float64))


def blur_slowly(image: Tensor, width: int) -> Tensor:
    """cv2.blur: mean over a box whose anchor is at width // 2, borders mirrored without repeating the edge pixel."""
    height, length = image.shape

    def mirrored(index: int, size: int) -> int:
        return -index if index < 0 else 2 * (size - 1) - index if index >= size else index

    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(length):
            rows = [mirrored(y - width // 2 + step, height) for step in range(width)]
            columns = [mirrored(x - width // 2 + step, length) for step in range(width)]
            out[y, x] = sum(image[row, column] for row in rows for column in columns) / width**2
    return out


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7])
def test_box_blur(width: int) -> None:
    image = draws(1, 1, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(box_blur(image, width)[0, 0], blur_slowly(image[0, 0], width), rtol=0, atol=1e-12)


def test_an_even_box_is_shifted_up_and_left() -> None:
    dot = torch.zeros(1, 1, 6, 6)
    dot[0, 0, 3, 3] = 4.0
    ones = box_blur(dot, 2)[0, 0].nonzero().tolist()
    assert ones == [[3, 3], [3, 4], [4, 3], [4, 4]]


@pytest.mark.parametrize("width", [0, 8, 20])
def test_a_box_must_fit(width: int) -> None:
    with pytest.raises(BadInput, match="blur width must be 1 to 7"):
        box_blur(draws(1, 3, 8, 9), width)
