"""Pixels in 0..255 minus the mean colour, as Caffe's networks were fed: the space that the inversion papers' numbers are in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convscope.errors import BadInput
from convscope.scope import Inputs

MEAN_COLOR = (123.68, 116.779, 103.939)
"""Mean of ImageNet's pixels in 0..255, RGB, as published with VGG."""


@dataclass(frozen=True)
class MeanSubtracted:
    """Free numbers are 255 x - mean colour, (n 3 h w), free to leave the range of pixels.

    Attributes:
        inputs: Not used: the papers' mean colour does not depend on the network.
        start_range: The start is drawn uniformly from these bounds.
    """

    inputs: Inputs
    start_range: tuple[float, float] = (-0.1, 0.1)

    def start(self, height: int, width: int, generators: list[Generator]) -> Tensor:
        low, high = self.start_range
        return low + (high - low) * torch.stack([torch.rand(3, height, width, generator=generator) for generator in generators])

    def picture(self, numbers: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002 - pixels know their size
        return (numbers + _mean_color(numbers)) / 255

    def numbers(self, pictures: Tensor) -> Tensor:
        """The inverse of :meth:`picture`."""
        return mean_subtracted(pictures)

    def enlarge(self, numbers: Tensor, side: int, blur: int | None) -> Tensor:  # noqa: ARG002
        raise BadInput("pictures in 0..255 minus the mean colour are not enlarged: use image='pixels' for that")


def mean_subtracted(pictures: Tensor) -> Tensor:
    """255 x - mean colour, of pictures (n 3 h w) in [0,1]."""
    return 255 * pictures - _mean_color(pictures)


def _mean_color(like: Tensor) -> Tensor:
    return torch.tensor(MEAN_COLOR, dtype=like.dtype, device=like.device).view(3, 1, 1)
