"""Statistics of feature maps that do not depend on position: channel sums, Gram matrices, means and standard deviations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Statistic = Callable[[Tensor], Tensor]


def channel_means(values: Tensor) -> Tensor:
    """(n c h w) -> (n c): S / M, each map's sum over its M positions, divided by M so that images of different sizes compare."""
    return values.flatten(2).mean(2)


def gram(values: Tensor) -> Tensor:
    """(n c h w) -> (n c c): F F^T, symmetric and positive semidefinite; F are the maps as rows."""
    maps = values.flatten(2)
    return maps @ maps.mT


def gram_means(values: Tensor) -> Tensor:
    """(n c h w) -> (n c c): F F^T / M."""
    return gram(values) / values[0, 0].numel()


def means_and_deviations(values: Tensor) -> Tensor:
    """(n c h w) -> (n 2 c): each map's mean and (population) standard deviation over its positions."""
    maps = values.flatten(2)
    mean = maps.mean(2)
    variance = (maps - mean[..., None]).square().mean(2)
    return torch.stack([mean, safe_root(variance)], 1)


def safe_root(values: Tensor) -> Tensor:
    """The square root, with derivative 0 instead of infinity at 0 (constant maps)."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1).sqrt(), 0)


DESCRIPTORS: dict[str, Statistic] = {"sums": channel_means, "gram": gram_means, "mean-std": means_and_deviations}
"""The descriptor of a style at one layer, independent of the size of the image."""


def style_loss(statistic: str, values: Tensor, style: Tensor) -> Tensor:
    """How far the maps (n c h w) are from a style's descriptor, (n).

    "sums": M / (2 C) ||S/M - S_s/M_s||^2, which is 1 / (2 C M) ||S - S_s||^2 where the sizes agree (PMCI).
    "gram": 1 / (4 C^2) ||G/M - G_s/M_s||^2, which is 1 / (4 C^2 M^2) ||G - G_s||^2 where the sizes agree (Gatys et al. 2016).
    "mean-std": 1 / C (||mean - mean_s||^2 + ||std - std_s||^2) (Li et al. 2017).

    Args:
        statistic: "sums", "gram" or "mean-std".
        values: The maps of n images.
        style: The style's descriptor, or one for each image: ``DESCRIPTORS[statistic]`` of its maps.
    """
    channels, positions = values.shape[1], values[0, 0].numel()
    squares = (DESCRIPTORS[statistic](values) - style).square().flatten(1).sum(1)
    return squares * {"sums": positions / (2 * channels), "gram": 1 / (4 * channels**2), "mean-std": 1 / channels}[statistic]


def normalized_distances(descriptors: Tensor) -> Tensor:
    """(n ...) -> (n n): ||d_a - d_b|| / (||d_a|| + ||d_b||), in [0,1]; 0 between two that are zero."""
    rows = descriptors.flatten(1)
    norms = rows.norm(dim=1)
    apart = torch.stack([(rows - row).norm(dim=1) for row in rows])
    return apart / (norms[:, None] + norms).clamp(min=1e-30)
