"""Pixels in 0..255 minus the mean colour, as Caffe's networks were fed: the space that the inversion papers' constants are in."""

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
    """Parameters are 255 x - mean colour, (n c h w), free to leave the range of pixels.

    Attributes:
        inputs: For the number of channels: the papers' mean colour does not depend on the network.
        start_range: The start is drawn uniformly from these bounds.
    """

    inputs: Inputs
    start_range: tuple[float, float] = (-0.1, 0.1)

    def start(self, height: int, width: int, generators: list[Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        low, high = self.start_range
        draws = [
            torch.rand(self.inputs.channel_count, height, width, generator=generator, dtype=torch.float32, device="cpu")
            for generator in generators
        ]
        return low + (high - low) * torch.stack(draws).to(dtype)

    def image(self, parameters: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002 - pixels know their size
        return (parameters + _mean_color(parameters)) / 255

    def parameters(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`image`."""
        return mean_subtracted(images)

    def enlarge(self, parameters: Tensor, side: int, blur: int | None) -> Tensor:  # noqa: ARG002
        raise BadInput("images in 0..255 minus the mean colour are not enlarged: use parameterization='pixels' for that")


def mean_subtracted(images: Tensor) -> Tensor:
    """255 x - mean colour, of images (n c h w) in [0,1]."""
    return 255 * images - _mean_color(images)


def _mean_color(like: Tensor) -> Tensor:
    """The mean colour, (c 1 1); its grey where images are not RGB."""
    channels = like.shape[-3]
    color = MEAN_COLOR if channels == 3 else (sum(MEAN_COLOR) / 3,) * channels
    return torch.tensor(color, dtype=like.dtype, device=like.device).view(channels, 1, 1)
