"""Pixels as the sigmoid of free numbers: always in [0,1]. The parameterization of FeatureMapVisualizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convscope.ops.resize import box_blur, cubic
from convscope.optimize.parameterizations.pixels import noise_8bit
from convscope.scope import Inputs


@dataclass(frozen=True)
class Sigmoid:
    """Free numbers are logits, (n 3 h w); enlarging resizes the logits, not the picture.

    Attributes:
        inputs: Not used: a sigmoid picture knows its range by itself.
        start_range: The logits of the start are drawn uniformly from these bounds times 1/255 (150 to 180: 0.59 to 0.70), as 8-bit noise.
    """

    inputs: Inputs
    start_range: tuple[float, float] = (150, 180)

    def start(self, height: int, width: int, generators: list[Generator]) -> Tensor:
        return noise_8bit(height, width, generators, self.start_range)

    def picture(self, numbers: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002 - logits know their size
        return sigmoid_of_each(numbers)

    def enlarge(self, numbers: Tensor, side: int, blur: int | None) -> Tensor:
        larger = cubic(numbers, side)
        return box_blur(larger, blur) if blur else larger


def sigmoid_of_each(numbers: Tensor) -> Tensor:
    """The sigmoid of (n ...), picture by picture.

    The last few values of a tensor go through other code than the rest, with another rounding on some processors: taken together, a
    picture would depend on its place in the batch.
    """
    return torch.stack([torch.sigmoid(one) for one in numbers])
