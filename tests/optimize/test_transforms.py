"""How a picture is looked at: crops lie inside it, and the robust view is an affine sampling with known matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from convscope.optimize.transforms import Crops, Robust, look
from hand_built import draws

STILL = Robust(pad=0, jitter=(0, 0), scale=(1, 1), rotate=0, noise=0)


@pytest.mark.parametrize("done", [0.0, 0.5, 1.0])
def test_crops_lie_inside_the_picture(done: float) -> None:
    crops, generator = Crops((0.6, 1.0), (0.2, 0.6), 16, 0.0), Generator().manual_seed(0)
    matrices = torch.stack([crops.draw(generator, done, 100) for _ in range(2000)])
    share, offset = matrices[:, [0, 1], [0, 1]], matrices[:, :, 2]
    assert torch.equal(share[:, 0], share[:, 1]) and (matrices[:, [0, 1], [1, 0]] == 0).all(), "square, not turned"
    assert (offset.abs() + share <= 1 + 1e-6).all()
    low, high = 0.6 + (0.2 - 0.6) * done, 1.0 + (0.6 - 1.0) * done
    assert low <= float(share.min()) < low + 0.01 and high - 0.01 < float(share.max()) <= high + 1e-6
    assert (offset.abs() / (1 - share) > 0.99).any() and (offset.abs() / (1 - share) < 0.01).any(), "the whole range is used"


def test_a_crop_shows_that_part_of_the_picture() -> None:
    picture = draws(1, 3, 40, 40)
    # half the side, at the upper right: rows 0 to 19, columns 20 to 39
    seen = look(picture, torch.tensor([[[0.5, 0.0, 0.5], [0.0, 0.5, -0.5]]]), 20)
    torch.testing.assert_close(seen, picture[:, :, :20, 20:], rtol=0, atol=1e-5)


def test_no_change_is_the_identity() -> None:
    picture = draws(2, 3, 21, 21)
    matrix = torch.stack([STILL.draw(Generator().manual_seed(seed), 0, 21) for seed in range(2)])
    assert torch.equal(matrix, torch.eye(2, 3).expand(2, 2, 3))
    assert STILL.side(21) == 21
    torch.testing.assert_close(look(picture, matrix, 21), picture, rtol=0, atol=1e-5)


def test_padding_is_grey() -> None:
    padded = Robust(pad=12, jitter=(0, 0), scale=(1, 1), rotate=0, noise=0)
    picture = draws(1, 3, 30, 30)
    seen = look(picture, padded.draw(Generator().manual_seed(0), 0, 30)[None], padded.side(30))
    expected = torch.nn.functional.pad(picture, (12, 12, 12, 12), value=0.5)
    assert padded.side(30) == 54
    torch.testing.assert_close(seen, expected, rtol=0, atol=1e-5)


def test_jitter_shifts_by_whole_pixels_and_both_ways() -> None:
    shaken = Robust(pad=6, jitter=(8, 4), scale=(1, 1), rotate=0, noise=0)
    generator, shifts = Generator().manual_seed(0), set[int]()
    for _ in range(500):
        matrix = shaken.draw(generator, 0, 40)
        pixels = matrix[:, 2] * 40 / 2
        assert torch.allclose(pixels, pixels.round(), atol=1e-4)
        shifts |= set(pixels.round().int().tolist())
    assert shifts == set(range(-6, 7))
    assert shaken.side(40) == 40 + 12 - 12


def test_angles_and_scales() -> None:
    robust, generator = Robust(pad=12, jitter=(8, 4), scale=(0.9, 1.1), rotate=10, noise=0), Generator().manual_seed(0)
    matrices = torch.stack([robust.draw(generator, 0, 128) for _ in range(5000)])
    angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    scales = robust.side(128) / 128 / torch.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
    assert -10 <= float(angles.min()) < -9.9 and 9.9 < float(angles.max()) <= 10.0001
    assert float((angles == 0).float().mean()) == pytest.approx(5 / 26, abs=0.02)
    assert 0.8999 <= float(scales.min()) < 0.901 and 1.099 < float(scales.max()) < 1.1001
    assert torch.allclose(matrices[:, 0, 0], matrices[:, 1, 1]) and torch.allclose(matrices[:, 0, 1], -matrices[:, 1, 0])


def test_a_turn_by_a_right_angle() -> None:
    picture = draws(1, 3, 17, 17)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    torch.testing.assert_close(look(picture, quarter, 17), torch.rot90(picture, 1, (2, 3)), rtol=0, atol=1e-5)


def test_each_picture_is_looked_at_by_itself() -> None:
    pictures, crops = draws(3, 3, 20, 20), Crops((0.5, 0.9), (0.5, 0.9), 12, 0)
    matrices = torch.stack([crops.draw(Generator().manual_seed(seed), 0, 20) for seed in (1, 2, 3)])
    seen = look(pictures, matrices, 12)
    for index in range(3):
        assert torch.equal(seen[index], look(pictures[index : index + 1], matrices[index : index + 1], 12)[0])


def test_looking_is_differentiable() -> None:
    picture = draws(1, 3, 9, 9, dtype=torch.float64).requires_grad_()
    matrix = torch.tensor([[[0.6, -0.1, 0.2], [0.1, 0.6, -0.1]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: look(values, matrix, 7), picture)
