"""Random transforms applied at each step of an optimization, sampled independently per image.

A transform is one affine sampling, whatever it is made of, so that every image of a batch gets its own in one operation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


class Transform(Protocol):
    """Draws random affine transforms."""

    def draw(self, generator: Generator, progress: float, side: int) -> Tensor:
        """One transform: affine matrix (2 3), float64, from normalized output coordinates to normalized image coordinates.

        Args:
            generator: The image's own random generator.
            progress: Share of the run that is over, 0 to 1.
            side: The image's side in pixels.
        """
        ...

    def output_side(self, side: int) -> int:
        """Side of the transformed image in pixels, for an image of `side` pixels."""
        ...


@dataclass(frozen=True)
class RandomCrops:
    """A random square crop whose side shrinks over the run: first the composition, then the detail.

    Attributes:
        start: Range of the crop's side at the start, as a share of the image's side.
        end: The same at the end.
        size: Side to which a crop is resized, in pixels.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    size: int

    def draw(self, generator: Generator, progress: float, side: int) -> Tensor:  # noqa: ARG002 - shares do not depend on pixels
        low, high = (a + (b - a) * progress for a, b in zip(self.start, self.end, strict=True))
        share, y, x = torch.rand(3, generator=generator, dtype=torch.float32, device="cpu").tolist()
        scale = low + (high - low) * share
        return torch.tensor(
            [[scale, 0.0, (2 * x - 1) * (1 - scale)], [0.0, scale, (2 * y - 1) * (1 - scale)]], dtype=torch.float64, device="cpu"
        )

    def output_side(self, side: int) -> int:  # noqa: ARG002 - the same for every image
        return self.size


@dataclass(frozen=True)
class RandomAffine:
    """Lucid's transformation robustness: the padded image is shifted, scaled, rotated and shifted again by a little.

    Attributes:
        pad: Width of the grey border in pixels.
        jitter: Largest shift before and after, in pixels (each shift is drawn from 0 .. jitter and cropped away).
        scale: Range of the scale factor.
        rotate: Largest angle in degrees; five draws in 26 are not rotated at all.

    Source:
        Lucid `optvis/transform.py` standard_transforms: pad 12, jitter 8, scale 0.90 to 1.10, rotate -10 to 10 and five zeros, jitter 4.
        The five operations are one sampling here, so that nothing is blurred twice.
    """

    pad: int
    jitter: tuple[int, int]
    scale: tuple[float, float]
    rotate: float

    def draw(self, generator: Generator, progress: float, side: int) -> Tensor:  # noqa: ARG002 - the same from start to end
        share, turn, still, y0, x0, y1, x1 = torch.rand(7, generator=generator, dtype=torch.float32, device="cpu").tolist()
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * share
        angle = 0.0 if still < 5 / 26 else math.radians(self.rotate * (2 * turn - 1))
        shift_y, shift_x = (
            (math.floor(first * (self.jitter[0] + 1)) - self.jitter[0] / 2)
            + (math.floor(second * (self.jitter[1] + 1)) - self.jitter[1] / 2)
            for first, second in ((y0, y1), (x0, x1))
        )
        zoom = self.output_side(side) / side / scale  # the output is wider than the image by what padding leaves
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        return torch.tensor([[cos, -sin, 2 * shift_x / side], [sin, cos, 2 * shift_y / side]], dtype=torch.float64, device="cpu")

    def output_side(self, side: int) -> int:
        return side + 2 * self.pad - sum(self.jitter)


def warp(images: Tensor, matrices: Tensor, side: int) -> Tensor:
    """Images (n c h w) sampled through affine matrices (n 2 3): (n c side side), bilinear, 0.5 grey outside. Differentiable."""
    grid = F.affine_grid(matrices.to(images), [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images - 0.5, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + 0.5
