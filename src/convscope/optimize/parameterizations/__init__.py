"""Parameterizations: how an optimized picture is written as free numbers, one file each.

A parameterization has ``start(sides, generators)`` -> free numbers (n ...), ``picture(numbers, h, w)`` -> (n 3 h w) in pixel space, and,
if pictures can grow, ``enlarge(numbers, side, blur)``.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Generator, Tensor

from convscope.optimize.parameterizations.fourier import Fourier
from convscope.optimize.parameterizations.mean_subtracted import MeanSubtracted
from convscope.optimize.parameterizations.pixels import NormalizedPixels, Pixels
from convscope.optimize.parameterizations.sigmoid import Sigmoid
from convscope.scope import Inputs


class Parameterization(Protocol):
    """How a batch of pictures is written as free numbers."""

    def start(self, height: int, width: int, generators: list[Generator]) -> Tensor:
        """Free numbers (n ...) of the start pictures, one drawn from each generator."""
        ...

    def picture(self, numbers: Tensor, height: int, width: int) -> Tensor:
        """The pictures (n 3 h w) that the numbers stand for, differentiable."""
        ...

    def enlarge(self, numbers: Tensor, side: int, blur: int | None) -> Tensor:
        """Numbers of the same pictures at another size, blurred with a box of `blur` pixels if given."""
        ...


PARAMETERIZATIONS: dict[str, Callable[[Inputs, tuple[float, float]], Parameterization]] = {
    "pixels": Pixels,
    "normalized": NormalizedPixels,
    "sigmoid": Sigmoid,
    "fourier": Fourier,
    "mean-subtracted": MeanSubtracted,
}

__all__ = ["PARAMETERIZATIONS", "Fourier", "MeanSubtracted", "NormalizedPixels", "Parameterization", "Pixels", "Sigmoid"]
