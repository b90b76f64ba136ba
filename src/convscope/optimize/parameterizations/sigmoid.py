"""Pixels as the sigmoid of parameters: always in [0,1]. The parameterization of FeatureMapVisualizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convscope.ops.resize import box_blur, cubic
from convscope.optimize.parameterizations.pixels import noise_8bit
from convscope.scope import Inputs


@dataclass(frozen=True)
class Sigmoid:
    """Parameters are logits, (n c h w); enlarging resizes the logits, not the image.

    Attributes:
        inputs: For the number of channels.
        start_range: The logits of the start are drawn uniformly from these bounds times 1/255 (150 to 180: 0.59 to 0.70), as 8-bit noise.
    """

    inputs: Inputs
    start_range: tuple[float, float] = (150, 180)

    def start(self, height: int, width: int, generators: list[Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        return noise_8bit((self.inputs.channel_count, height, width), generators, self.start_range, dtype)

    def image(self, parameters: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002 - logits know their size
        return sigmoid_of_each(parameters)

    def enlarge(self, parameters: Tensor, side: int, blur: int | None) -> Tensor:
        larger = cubic(parameters, side)
        return box_blur(larger, blur) if blur else larger


def sigmoid_of_each(parameters: Tensor) -> Tensor:
    """The sigmoid of (n ...), image by image.

    The last few values of a tensor go through other code than the rest, with another rounding on some processors: taken together, a
    image would depend on its place in the batch.
    """
    return torch.stack([torch.sigmoid(one) for one in parameters])
