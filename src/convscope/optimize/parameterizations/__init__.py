"""Parameterizations: how an image is written as parameters to optimize, one file each.

A parameterization has ``start(h, w, generators, dtype)`` -> parameters (n ...), ``image(parameters, h, w)`` -> (n c h w) in pixel space,
and, if images can grow, ``enlarge(parameters, side, blur)``.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor

from convscope.optimize.parameterizations.fourier import Fourier
from convscope.optimize.parameterizations.mean_subtracted import MeanSubtracted
from convscope.optimize.parameterizations.pixels import NormalizedPixels, Pixels
from convscope.optimize.parameterizations.sigmoid import Sigmoid
from convscope.scope import Inputs, Scope


class Parameterization(Protocol):
    """How a batch of images is written as parameters."""

    def start(self, height: int, width: int, generators: list[Generator], dtype: torch.dtype = torch.float32) -> Tensor:
        """Parameters (n ...) of the start images, one drawn in float32 from each generator, in `dtype`."""
        ...

    def image(self, parameters: Tensor, height: int, width: int) -> Tensor:
        """The images (n c h w) that the parameters stand for, differentiable."""
        ...

    def enlarge(self, parameters: Tensor, side: int, blur: int | None) -> Tensor:
        """Parameters of the same images at another size, blurred with a box of `blur` pixels if given."""
        ...


def started(form: Parameterization, height: int, width: int, generators: list[Generator], scope: Scope) -> Tensor:
    """Parameters of the start images where they are optimized: on the scope's device, in float64 for a network in float64."""
    return form.start(height, width, generators, torch.promote_types(scope.dtype, torch.float32)).to(scope.device)


PARAMETERIZATIONS: dict[str, Callable[[Inputs, tuple[float, float]], Parameterization]] = {
    "pixels": Pixels,
    "normalized": NormalizedPixels,
    "sigmoid": Sigmoid,
    "fourier": Fourier,
    "mean-subtracted": MeanSubtracted,
}

__all__ = ["PARAMETERIZATIONS", "Fourier", "MeanSubtracted", "NormalizedPixels", "Parameterization", "Pixels", "Sigmoid", "started"]
