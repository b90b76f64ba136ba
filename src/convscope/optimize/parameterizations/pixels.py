"""Plain pixels, unbounded: in units of [0,1], or in the network's normalized units as in the forty-line article."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from convscope.ops.resize import box_blur, cubic
from convscope.scope import Inputs


@dataclass(frozen=True)
class Pixels:
    """Parameters are the pixels themselves, (n c h w), in units of [0,1] and free to leave that range.

    Attributes:
        inputs: The network's inputs.
        start_range: The start is 8-bit noise drawn uniformly from these bounds (0 to 255, upper bound exclusive).
    """

    inputs: Inputs
    start_range: tuple[float, float] = (128, 148)

    def start(self, height: int, width: int, generators: list[Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        return noise_8bit((self.inputs.channel_count, height, width), generators, self.start_range, dtype)

    def image(self, parameters: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002 - pixels know their size
        return parameters

    def enlarge(self, parameters: Tensor, side: int, blur: int | None) -> Tensor:
        larger = cubic(parameters, side)
        return box_blur(larger, blur) if blur else larger


@dataclass(frozen=True)
class NormalizedPixels(Pixels):
    """Parameters are (x - mean) / std, so that a step of the optimizer is as long in every channel as it is for the network."""

    def start(self, height: int, width: int, generators: list[Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.inputs.normalize(super().start(height, width, generators, dtype))

    def image(self, parameters: Tensor, height: int, width: int) -> Tensor:  # noqa: ARG002
        return self.inputs.denormalize(parameters)

    def parameters(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`image`."""
        return self.inputs.normalize(images)

    def enlarge(self, parameters: Tensor, side: int, blur: int | None) -> Tensor:
        return self.inputs.normalize(super().enlarge(self.inputs.denormalize(parameters), side, blur))


def noise_8bit(shape: tuple[int, int, int], generators: list[Generator], bounds: tuple[float, float], dtype: torch.dtype) -> Tensor:
    """(n c h w) whole numbers drawn uniformly from [low, high), over 255; one image from each generator."""
    low, high = bounds
    draws = [torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for generator in generators]
    return (low + (high - low) * torch.stack(draws).to(dtype)).floor() / 255
