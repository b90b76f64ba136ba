"""Parameterizations, held against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Generator

from convscope.errors import BadInput
from convscope.ops.resize import box_blur, cubic
from convscope.optimize.parameterizations import PARAMETERIZATIONS, Fourier, NormalizedPixels, Pixels, Sigmoid
from convscope.optimize.parameterizations.fourier import color_matrix, spectrum_scale
from convscope.scope import Inputs
from hand_built import draws

INPUTS = Inputs(size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_one_generator_one_image(name: str) -> None:
    form = PARAMETERIZATIONS[name](INPUTS, (0, 0.01) if name == "fourier" else (100, 200))
    numbers = form.start(10, 10, generators(5, 6, 5))
    assert torch.equal(numbers[0], numbers[2]) and not torch.equal(numbers[0], numbers[1])
    assert torch.equal(numbers[1:2], form.start(10, 10, generators(6)))
    assert form.image(numbers, 10, 10).shape == (3, 3, 10, 10)


def test_start_noise_is_eight_bit() -> None:
    levels = (Pixels(INPUTS, (150, 180)).start(64, 64, generators(0)) * 255).round()
    assert torch.equal(levels / 255, Pixels(INPUTS, (150, 180)).start(64, 64, generators(0)))
    assert levels.min() == 150 and levels.max() == 179, "the upper bound is exclusive, as for numpy's uniform"
    assert len(levels.unique()) == 30
    assert torch.equal(NormalizedPixels(INPUTS, (150, 180)).start(64, 64, generators(0)), INPUTS.normalize(levels / 255))
    assert torch.equal(Sigmoid(INPUTS, (150, 180)).start(64, 64, generators(0)), levels / 255)
    assert float(levels.min() / 255) > 0.58 and float(levels.max() / 255) < 0.71


def test_pixels_may_leave_the_range() -> None:
    numbers = draws(1, 3, 8, 8) * 4 - 2
    assert torch.equal(Pixels(INPUTS).image(numbers, 8, 8), numbers)
    torch.testing.assert_close(NormalizedPixels(INPUTS).image(INPUTS.normalize(numbers), 8, 8), numbers)


@pytest.mark.parametrize("blur", [None, 3])
def test_enlarging_resizes_the_right_quantity(blur: int | None) -> None:
    picture = draws(2, 3, 10, 10)
    larger = cubic(picture, 12)
    expected = box_blur(larger, blur) if blur else larger
    assert torch.equal(Pixels(INPUTS).enlarge(picture, 12, blur), expected)
    torch.testing.assert_close(
        NormalizedPixels(INPUTS).image(NormalizedPixels(INPUTS).enlarge(INPUTS.normalize(picture), 12, blur), 12, 12), expected
    )
    assert torch.equal(Sigmoid(INPUTS).enlarge(picture, 12, blur), expected), "the logits, not the picture"


def test_sigmoid_images_stay_in_range() -> None:
    numbers = draws(1, 3, 8, 8) * 200 - 100
    picture = Sigmoid(INPUTS).image(numbers, 8, 8)
    assert torch.equal(picture, 1 / (1 + torch.exp(-numbers))) or torch.allclose(picture, 1 / (1 + torch.exp(-numbers)))
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
    fourier = Fourier(INPUTS).image(torch.randn(1, 3, 9, 5, 2, generator=Generator().manual_seed(0)) * 50, 9, 9)
    assert float(fourier.min()) >= 0 and float(fourier.max()) <= 1


def test_the_colour_matrix_is_lucids() -> None:
    rows = [[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]]
    longest = max(math.sqrt(sum(row[column] ** 2 for row in rows)) for column in range(3))
    expected = torch.tensor([[value / longest for value in row] for row in rows])
    torch.testing.assert_close(color_matrix(), expected)
    assert color_matrix().norm(dim=0).max() == pytest.approx(1.0)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (9, 8), (8, 7), (224, 224)])
def test_the_spectrum_falls_like_one_over_f(height: int, width: int) -> None:
    scale = spectrum_scale(height, width)
    assert scale.shape == (height, width // 2 + 1)
    for row in (0, 1, height // 2, height - 1):
        for column in (0, 1, width // 2):
            vertical = row if row < (height + 1) // 2 else row - height
            frequency = math.hypot(vertical / height, column / width)
            expected = math.sqrt(height * width) / max(frequency, 1 / max(height, width))
            assert float(scale[row, column]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (9, 8)])
def test_a_fourier_image_is_a_plain_sum_of_waves(height: int, width: int) -> None:
    numbers = torch.randn(1, 3, height, width // 2 + 1, 2, generator=Generator().manual_seed(0), dtype=torch.float64)
    scale = spectrum_scale(height, width).double()
    pixels = torch.zeros(3, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width // 2 + 1):
            twice = 1 if column == 0 or (width % 2 == 0 and column == width // 2) else 2  # the other half of a real spectrum
            for y in range(height):
                for x in range(width):
                    angle = 2 * math.pi * (row * y / height + column * x / width)
                    real, imaginary = numbers[0, :, row, column, 0], numbers[0, :, row, column, 1]
                    wave = real * math.cos(angle) - imaginary * math.sin(angle)
                    pixels[:, y, x] += twice * scale[row, column] * wave / (height * width)
    expected = torch.sigmoid(torch.einsum("rc,chw->rhw", color_matrix().double(), pixels / 4))
    torch.testing.assert_close(Fourier(INPUTS).image(numbers, height, width)[0], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (48, 64)])
def test_bands_are_of_alike_frequencies_and_one_colour(height: int, width: int) -> None:
    bands = Fourier(INPUTS).bands(height, width)
    assert bands.shape == (3, height, width // 2 + 1) and int(bands.max()) == 29
    span = math.log(math.hypot((height // 2) / height, (width // 2) / width) * max(height, width))
    for colour in range(3):
        for row in range(height):
            for column in range(width // 2 + 1):
                vertical = row if row < (height + 1) // 2 else row - height
                frequency = max(math.hypot(vertical / height, column / width), 1 / max(height, width))
                place = 10 * math.log(frequency * max(height, width)) / span
                if abs(place - round(place)) > 1e-4:
                    assert int(bands[colour, row, column]) == 10 * colour + int(place)


def test_the_fourier_start_is_nearly_grey() -> None:
    numbers = Fourier(INPUTS, (0, 0.01)).start(64, 64, generators(0))
    assert float(numbers.std()) == pytest.approx(0.01, rel=0.05)
    assert float((Fourier(INPUTS).image(numbers, 64, 64) - 0.5).abs().max()) < 0.2
    with pytest.raises(BadInput, match="stages=1"):
        Fourier(INPUTS).enlarge(numbers, 80, None)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_picture_does_not_depend_on_its_place_in_the_batch(name: str) -> None:
    """33 px: three odd factors, so that the end of a batch is no multiple of what a processor takes at once."""
    form = PARAMETERIZATIONS[name](INPUTS, (0, 0.01) if name == "fourier" else (100, 200))
    for seed in range(0, 60, 3):
        numbers = form.start(33, 33, generators(seed, seed + 1, seed + 2))
        numbers = numbers * 3 + 0.1 * draws(*numbers.shape, seed=seed)
        assert torch.equal(form.image(numbers, 33, 33), form.image(numbers.flip(0), 33, 33).flip(0))
