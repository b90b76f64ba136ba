"""Denoising by total variation."""

from __future__ import annotations

import torch
from torch import Tensor


def tv_denoised(images: Tensor, weight: float, *, most: int = 200, tolerance: float = 2e-4) -> Tensor:
    """argmin over u of ||u - image||^2 / 2 + weight * TV(u), of each channel of (n c h w) by itself; same shape.

    TV is the sum of sqrt(dx^2 + dy^2) over positions; the last row and column count as repeated. Chambolle's projection.

    Args:
        images: Any range.
        weight: How much variation costs, in units of the image's values.
        most: Iterations at most.
        tolerance: Ends where the energy changes by less than this share of the first one.

    Source:
        Chambolle 2004; step, weight and stop rule as scikit-image's `denoise_tv_chambolle`, which the inversion paper's code uses.
    """
    planes = [_denoised(plane, weight, most, tolerance) for plane in images.flatten(0, 1)]
    return torch.stack(planes).view_as(images)


def _denoised(plane: Tensor, weight: float, most: int, tolerance: float) -> Tensor:
    """One channel (h w)."""
    dual, out, slopes = plane.new_zeros(2, *plane.shape), plane, plane.new_zeros(2, *plane.shape)
    first = before = 0.0
    for step in range(most):
        moved = -dual.sum(0)
        moved[1:] += dual[0, :-1]
        moved[:, 1:] += dual[1, :, :-1]
        out = plane + moved
        slopes[0, :-1], slopes[1, :, :-1] = out.diff(dim=0), out.diff(dim=1)
        length = slopes.square().sum(0).sqrt()
        energy = float(moved.square().sum() + weight * length.sum()) / plane.numel()
        dual = (dual - slopes / 4) / (1 + length / (4 * weight))
        if not step:
            first = energy
        elif abs(before - energy) < tolerance * first:
            break
        before = energy
    return out
