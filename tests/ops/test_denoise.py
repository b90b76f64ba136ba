"""Total variation denoising against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.ops.denoise import tv_denoised
from hand_built import draws


def chambolle_slowly(plane: np.ndarray, weight: float, steps: int) -> np.ndarray:
    """Chambolle's projection, position by position."""
    height, width = plane.shape
    down, across = np.zeros(plane.shape), np.zeros(plane.shape)
    for step in range(steps):
        out = plane.copy()
        for y in range(height):
            for x in range(width):
                out[y, x] += -down[y, x] - across[y, x] + (down[y - 1, x] if y else 0) + (across[y, x - 1] if x else 0)
        if step == steps - 1:
            return out
        for y in range(height):
            for x in range(width):
                dy = out[y + 1, x] - out[y, x] if y + 1 < height else 0.0
                dx = out[y, x + 1] - out[y, x] if x + 1 < width else 0.0
                scale = 1 + np.hypot(dy, dx) / (4 * weight)
                down[y, x], across[y, x] = (down[y, x] - dy / 4) / scale, (across[y, x] - dx / 4) / scale
    return plane


@pytest.mark.parametrize("weight", [0.05, 0.2])
def test_against_the_loop(weight: float) -> None:
    # also compared with scikit-image's denoise_tv_chambolle on 37x52 px, weights 0.05, 0.2 and 1: equal to 4e-16
    images = draws(2, 3, 6, 7, dtype=torch.float64)
    made = tv_denoised(images, weight, most=20, tolerance=0)
    for image in range(2):
        for channel in range(3):
            np.testing.assert_allclose(made[image, channel], chambolle_slowly(images[image, channel].numpy(), weight, 20), rtol=1e-12)


def test_a_step_is_lowered_by_what_its_edge_costs() -> None:
    """Two halves of n columns: the minimum moves each by weight / n towards the other."""
    step = torch.cat([torch.zeros(1, 1, 4, 8), torch.ones(1, 1, 4, 8)], 3).double()
    made = tv_denoised(step, 0.4, most=5000, tolerance=0)
    expected = torch.cat([torch.full((1, 1, 4, 8), 0.05), torch.full((1, 1, 4, 8), 0.95)], 3).double()
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_it_ends_where_the_energy_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    image, seen = draws(1, 1, 9, 9, dtype=torch.float64), list[float]()
    square = Tensor.square
    monkeypatch.setattr(Tensor, "square", lambda values: (seen.append(0.0), square(values))[1])
    early, late = tv_denoised(image, 0.2), tv_denoised(image, 0.2, tolerance=1e-9)
    assert 10 < len(seen) < 800 and 1e-6 < float((early - late).abs().max()) < 0.05
    assert bool((tv_denoised(torch.full((1, 3, 5, 5), 0.3), 0.2) == 0.3).all()), "a constant stays"
