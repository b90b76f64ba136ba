"""Random views of a batch of normalized pictures; every draw comes from the generator given."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from networks import SIDE

KERNELS = (1, 3, 5, 7)
GREY = (0.299, 0.587, 0.114)


def geometric(pictures: Tensor, generator: Generator) -> Tensor:
    """Random squares of 60 to 100 % of the side, turned by up to 20 degrees, mirrored or not: (n 3 s s) to (n 3 160 160)."""
    count = len(pictures)
    scale = _uniform(count, 0.6, 1.0, generator)
    angle = _uniform(count, -1, 1, generator) * math.radians(20)
    mirror = torch.where(_uniform(count, 0, 1, generator) < 0.5, -1.0, 1.0)
    turn = torch.stack([scale * angle.cos() * mirror, -scale * angle.sin(), scale * angle.sin() * mirror, scale * angle.cos()], 1)
    shift = _uniform(2 * count, -1, 1, generator).view(count, 2, 1) * (1 - scale)[:, None, None]
    grid = F.affine_grid(torch.cat([turn.view(count, 2, 2), shift], 2), [count, 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def colourful(pictures: Tensor, generator: Generator) -> Tensor:
    """The customary: :func:`geometric`, and brightness and contrast changed a little."""
    views = geometric(pictures, generator)
    gain, offset = (_uniform(len(views), *ends, generator).view(-1, 1, 1, 1) for ends in ((0.8, 1.2), (-0.3, 0.3)))
    return views * gain + offset


def shapely(pictures: Tensor, generator: Generator) -> Tensor:
    """Favours shape over texture: half of the pictures lose their colour, and three quarters are seen through a random convolution.

    A random kernel (Xu et al. 2021, arXiv 2007.13003) changes local texture and colour, at times by inverting them, and leaves
    outlines where they are. The result is mixed with the picture in a random proportion.
    """
    views = colourful(pictures, generator)
    count = len(views)
    grey = (views * torch.tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True).expand_as(views)
    views = torch.where(_uniform(count, 0, 1, generator).view(-1, 1, 1, 1) < 0.5, grey, views)
    side = KERNELS[int(torch.randint(len(KERNELS), (1,), generator=generator))]
    kernels = torch.randn(count * 3, 3, side, side, generator=generator) / math.sqrt(3 * side * side)
    padded = F.pad(views, (side // 2,) * 4, mode="reflect").reshape(1, count * 3, *(each + side - 1 for each in views.shape[2:]))
    filtered = F.conv2d(padded, kernels, groups=count).view_as(views)
    share = _uniform(count, 0, 1, generator)
    share = torch.where(_uniform(count, 0, 1, generator) < 0.25, 0.0, share).view(-1, 1, 1, 1)
    return (1 - share) * views + share * filtered


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)
