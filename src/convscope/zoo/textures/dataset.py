"""Rendered sets of labelled images, and the augmentation of a batch. Every draw comes from a seed or a generator passed in."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .generator import CLASSES, batch
from .network import MEAN, STD

CROP = (0.75, 1.0)
"""Range of the side of a random crop, as a fraction of the image side; the crop stays square and upright."""

SIDES = (80, 96, 112, 128, 128)
"""Sides of the squares, in pixels, that a batch of crops may be resized to."""

_CHUNK = 50


class Images(NamedTuple):
    """A labelled set.

    Attributes:
        pixels: `(n rgb h w)` uint8.
        labels: `(n)` int64.
    """

    pixels: Tensor
    labels: Tensor


def rendered(per_class: int, *, seed: int, size: int = 128, workers: int = 0) -> Images:
    """Render `per_class` images of every class, in the order of the classes.

    Args:
        per_class: images of each class.
        seed: seed of the generator.
        size: image side in pixels.
        workers: processes to share the work; 0 renders in this one. The images do not depend on it.
    """
    jobs = [(c, range(k, min(k + _CHUNK, per_class))) for c in range(len(CLASSES)) for k in range(0, per_class, _CHUNK)]
    render = partial(batch, seed=seed, size=size)
    if workers:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            chunks = list(pool.map(render, *zip(*jobs, strict=True), chunksize=4))
    else:
        chunks = [render(*job) for job in jobs]
    pixels = torch.from_numpy(np.concatenate(chunks)).permute(0, 3, 1, 2)
    return Images(pixels, torch.arange(len(CLASSES), dtype=torch.int64, device="cpu").repeat_interleave(per_class))


def normalized(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels `(n rgb h w)` into the network's normalized float input."""
    return _standard(pixels.float() / 255)


def _standard(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return one batch `(n rgb s s)`, normalized, as seen through random crops, lenses and cameras.

    Square crops shifted beyond the border by up to a tenth (mirrored there), all resized to one side drawn for the batch; then colour,
    contrast and brightness jitter, a blur on a third of the images, an erased square on a tenth, and gaussian noise. Never flipped or
    turned: orientation is part of the stripe classes.

    Args:
        pixels: `(n rgb h w)` uint8.
        generator: source of all draws.
    """
    images = _cropped(pixels.float() / 255, generator)
    images = _recoloured(images, generator)
    soft = torch.rand(len(images), generator=generator, dtype=torch.float32, device="cpu") < 0.33
    images[soft] = _blurred(images[soft])
    _erase(images, generator)
    deviation = 0.06 * torch.rand(len(images), 1, 1, 1, generator=generator, dtype=torch.float32, device="cpu") ** 2
    return _standard(images + deviation * torch.randn(images.shape, generator=generator, dtype=torch.float32, device="cpu"))


def _cropped(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)
    side = SIDES[int(torch.randint(len(SIDES), (), generator=generator, dtype=torch.int64, device="cpu"))]
    scale = CROP[0] + (CROP[1] - CROP[0]) * torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")
    offset = (2 * torch.rand(count, 2, generator=generator, dtype=torch.float32, device="cpu") - 1) * (1.1 - scale)[:, None]
    theta = torch.zeros(count, 2, 3, dtype=torch.float32, device="cpu")
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = offset
    where = F.affine_grid(theta, [count, 3, side, side], align_corners=False)
    return F.grid_sample(images, where, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)
    contrast = 0.7 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float32, device="cpu")
    tilt = 1 + 0.2 * (2 * torch.rand(count, 3, 1, 1, generator=generator, dtype=torch.float32, device="cpu") - 1)
    shift = 0.1 * (2 * torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float32, device="cpu") - 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    grey = images.mean(1, keepdim=True)
    colour = torch.rand(count, 1, 1, 1, generator=generator, dtype=torch.float32, device="cpu").sqrt()
    return ((grey + colour * (images - grey) - mean) * contrast * tilt + mean + shift).clamp(0, 1)


def _blurred(images: Tensor) -> Tensor:
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float32, device="cpu")
    kernel = (weights[:, None] * weights[None, :]).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)


def _erase(images: Tensor, generator: torch.Generator) -> None:
    count, side = len(images), images.shape[-1]
    chosen = torch.rand(count, generator=generator, dtype=torch.float32, device="cpu") < 0.1
    places = torch.rand(count, 2, generator=generator, dtype=torch.float32, device="cpu")
    levels = torch.rand(count, 3, 1, 1, generator=generator, dtype=torch.float32, device="cpu")
    hole = side // 6
    for index in torch.nonzero(chosen).flatten().tolist():
        top, left = (places[index] * (side - hole)).long().tolist()
        images[index, :, top : top + hole, left : left + hole] = levels[index]
