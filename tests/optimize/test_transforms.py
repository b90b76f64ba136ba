"""Random transforms: crops lie inside the image, and the affine transform has known matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from convscope.optimize.transforms import RandomAffine, RandomCrops, warp
from hand_built import draws

STILL = RandomAffine(pad=0, jitter=(0, 0), scale=(1, 1), rotate=0)


@pytest.mark.parametrize("done", [0.0, 0.5, 1.0])
def test_crops_lie_inside_the_image(done: float) -> None:
    crops, generator = RandomCrops((0.6, 1.0), (0.2, 0.6), 16), Generator().manual_seed(0)
    matrices = torch.stack([crops.draw(generator, done, 100) for _ in range(2000)])
    share, offset = matrices[:, [0, 1], [0, 1]], matrices[:, :, 2]
    assert torch.equal(share[:, 0], share[:, 1]) and (matrices[:, [0, 1], [1, 0]] == 0).all(), "square, not turned"
    assert (offset.abs() + share <= 1 + 1e-6).all()
    low, high = 0.6 + (0.2 - 0.6) * done, 1.0 + (0.6 - 1.0) * done
    assert low <= float(share.min()) < low + 0.01 and high - 0.01 < float(share.max()) <= high + 1e-6
    assert (offset.abs() / (1 - share) > 0.99).any() and (offset.abs() / (1 - share) < 0.01).any(), "the whole range is used"


def test_a_crop_shows_that_part_of_the_image() -> None:
    image = draws(1, 3, 40, 40)
    # half the side, at the upper right: rows 0 to 19, columns 20 to 39
    seen = warp(image, torch.tensor([[[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]]]), 20)
    torch.testing.assert_close(seen, image[:, :, :20, 20:], rtol=0, atol=1e-5)


def test_no_change_is_the_identity() -> None:
    image = draws(2, 3, 21, 21)
    matrix = torch.stack([STILL.draw(Generator().manual_seed(seed), 0, 21) for seed in range(2)])
    assert torch.equal(matrix, torch.eye(2, 3).expand(2, 2, 3))
    assert STILL.output_side(21) == 21
    torch.testing.assert_close(warp(image, matrix, 21), image, rtol=0, atol=1e-5)


def test_padding_is_grey() -> None:
    padded = RandomAffine(pad=12, jitter=(0, 0), scale=(1, 1), rotate=0)
    image = draws(1, 3, 30, 30)
    seen = warp(image, padded.draw(Generator().manual_seed(0), 0, 30)[None], padded.output_side(30))
    expected = torch.nn.functional.pad(image, (12, 12, 12, 12), value=0.5)
    assert padded.output_side(30) == 54
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5)


def test_jitter_shifts_by_whole_pixels_and_both_ways() -> None:
    shaken = RandomAffine(pad=6, jitter=(8, 4), scale=(1, 1), rotate=0)
    generator, shifts = Generator().manual_seed(0), set[int]()
    for _ in range(500):
        matrix = shaken.draw(generator, 0, 40)
        pixels = matrix[:, 2] * 40 / 2
        assert torch.allclose(pixels, pixels.round(), atol=1e-4)
        shifts |= set(pixels.round().int().tolist())
    assert shifts == set(range(-6, 7))
    assert shaken.output_side(40) == 40 + 12 - 12


def test_angles_and_scales() -> None:
    affine, generator = RandomAffine(pad=12, jitter=(8, 4), scale=(0.9, 1.1), rotate=10), Generator().manual_seed(0)
    matrices = torch.stack([affine.draw(generator, 0, 128) for _ in range(5000)])
    angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    scales = affine.output_side(128) / 128 / torch.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    assert -10 <= float(angles.min()) < -9.9 and 9.9 < float(angles.max()) <= 10.0001
    assert float((angles == 0).float().mean()) == pytest.approx(5 / 26, abs=0.02)
    assert 0.8999 <= float(scales.min()) < 0.901 and 1.099 < float(scales.max()) < 1.1001
    assert torch.allclose(matrices[:, 0, 0], matrices[:, 1, 1]) and torch.allclose(matrices[:, 0, 1], -matrices[:, 1, 0])


def test_a_turn_by_a_right_angle() -> None:
    image = draws(1, 3, 17, 17)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(warp(image, quarter, 17), torch.rot90(image, 1, (2, 3)), rtol=0, atol=1e-5)


def test_each_image_has_a_transform_of_its_own() -> None:
    images, crops = draws(3, 3, 20, 20), RandomCrops((0.5, 0.9), (0.5, 0.9), 12)
    matrices = torch.stack([crops.draw(Generator().manual_seed(seed), 0, 20) for seed in (1, 2, 3)])
    seen = warp(images, matrices, 12)
    for index in range(3):
        assert torch.equal(seen[index], warp(images[index : index + 1], matrices[index : index + 1], 12)[0])


def test_warping_is_differentiable() -> None:
    image = draws(1, 3, 9, 9, dtype=torch.float64).requires_grad_()
    matrix = torch.tensor([[[0.6, -0.1, 0.2], [0.1, 0.6, -0.1]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: warp(values, matrix, 7), image)
