"""How a picture is looked at while it is optimized: every step another crop, shift, turn or noise, drawn for each picture by itself.

A view of a picture is one affine sampling, whatever it is made of, so that all pictures of a batch can be looked at differently in
one operation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


class View(Protocol):
    """Draws how to look at a picture."""

    def draw(self, generator: Generator, done: float, side: int) -> Tensor:
        """One look at a picture: affine matrix (2 3) from normalized view to normalized picture coordinates.

        Args:
            generator: The picture's own stream of draws.
            done: How much of the run is over, 0 to 1.
            side: The picture's side in pixels.
        """
        ...

    def side(self, picture: int) -> int:
        """Side of the view in pixels, for a picture of side `picture`."""
        ...

    @property
    def noise(self) -> float:
        """Standard deviation of the noise laid over a view."""
        ...


@dataclass(frozen=True)
class Crops:
    """A random square crop whose side shrinks over the run: first the composition, then the detail.

    Attributes:
        first: Range of the crop's side at the start, as a share of the picture's side.
        last: The same at the end.
        crop_size: Side to which a crop is resized, in pixels.
        noise: Standard deviation of the noise laid over a view, in pixel units of [0,1].
    """

    first: tuple[float, float]
    last: tuple[float, float]
    crop_size: int
    noise: float

    def draw(self, generator: Generator, done: float, side: int) -> Tensor:  # noqa: ARG002 - shares do not depend on pixels
        low, high = (a + (b - a) * done for a, b in zip(self.first, self.last, strict=True))
        share, y, x = torch.rand(3, generator=generator).tolist()
        scale = low + (high - low) * share
        return torch.tensor([[scale, 0.0, (2 * x - 1) * (1 - scale)], [0.0, scale, (2 * y - 1) * (1 - scale)]])

    def side(self, picture: int) -> int:  # noqa: ARG002 - the same for every picture
        return self.crop_size


@dataclass(frozen=True)
class Robust:
    """Lucid's transformation robustness: the padded picture is shifted, scaled, turned and shifted again by a little.

    Attributes:
        pad: Width of the grey border that the picture gets.
        jitter: Largest shift before and after, in pixels (each shift is drawn from 0 .. jitter and cropped away).
        scale: Range of the scale factor.
        rotate: Largest angle in degrees; five draws in 26 are not turned at all.
        noise: Standard deviation of the noise laid over a view.

    Source:
        Lucid `optvis/transform.py` standard_transforms: pad 12, jitter 8, scale 0.90 to 1.10, rotate -10 to 10 and five zeros, jitter 4.
        The five steps are one sampling here, so that nothing is blurred twice.
    """

    pad: int
    jitter: tuple[int, int]
    scale: tuple[float, float]
    rotate: float
    noise: float

    def draw(self, generator: Generator, done: float, side: int) -> Tensor:  # noqa: ARG002 - the same from start to end
        share, turn, still, y0, x0, y1, x1 = torch.rand(7, generator=generator).tolist()
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * share
        angle = 0.0 if still < 5 / 26 else math.radians(self.rotate * (2 * turn - 1))
        shift_y, shift_x = (
            (math.floor(first * (self.jitter[0] + 1)) - self.jitter[0] / 2)
            + (math.floor(second * (self.jitter[1] + 1)) - self.jitter[1] / 2)
            for first, second in ((y0, y1), (x0, x1))
        )
        zoom = self.side(side) / side / scale  # a view is wider than the picture by what padding leaves
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        return torch.tensor([[cos, -sin, 2 * shift_x / side], [sin, cos, 2 * shift_y / side]])

    def side(self, picture: int) -> int:
        return picture + 2 * self.pad - sum(self.jitter)


def look(pictures: Tensor, matrices: Tensor, side: int) -> Tensor:
    """Pictures (n 3 h w) as seen through affine matrices (n 2 3): (n 3 side side), bilinear, 0.5 grey outside. Differentiable."""
    grid = F.affine_grid(matrices.to(pictures), [len(pictures), 3, side, side], align_corners=False)
    return F.grid_sample(pictures - 0.5, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + 0.5
