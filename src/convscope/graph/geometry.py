"""How one spatial axis of an operation's output hangs together with the same axis of its input: exact interval rules.

Every rule has two directions: ``reads(a, b)``, the input positions from which outputs a .. b are computed (before clipping: beyond the
ends lies padding), and ``reaches(a, b)``, the outputs that change when inputs a .. b do. Bounds are inclusive; a > b means nothing.
They work on integers and on arrays of them alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Bound = TypeVar("Bound", int, np.ndarray)


@dataclass(frozen=True)
class Window:
    """A sliding window: convolution, pooling, padding and cropping (kernel 1), or the identity (`SAME`).

    Attributes:
        kernel, stride, dilation: As in the operation.
        padding: Positions before the first input; negative when inputs are cropped away.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def span(self) -> int:
        """Inputs from the first to the last that one output reads."""
        return self.dilation * (self.kernel - 1) + 1

    def reads(self, a: Bound, b: Bound) -> tuple[Bound, Bound]:
        return a * self.stride - self.padding, b * self.stride - self.padding + self.span - 1

    def reaches(self, a: Bound, b: Bound) -> tuple[Bound, Bound]:
        return -((self.span - 1 - a - self.padding) // self.stride), (b + self.padding) // self.stride


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution: output o takes from inputs i with o = i * stride - padding + t * dilation, 0 <= t < kernel."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def _mirror(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    def reads(self, a: Bound, b: Bound) -> tuple[Bound, Bound]:
        return self._mirror.reaches(a, b)

    def reaches(self, a: Bound, b: Bound) -> tuple[Bound, Bound]:
        return self._mirror.reads(a, b)


@dataclass(frozen=True)
class Repeat:
    """Every input position becomes `factor` equal outputs (nearest-neighbour enlargement)."""

    factor: int

    def reads(self, a: Bound, b: Bound) -> tuple[Bound, Bound]:
        return a // self.factor, b // self.factor

    def reaches(self, a: Bound, b: Bound) -> tuple[Bound, Bound]:
        return a * self.factor, b * self.factor + self.factor - 1


@dataclass(frozen=True)
class Whole:
    """Every output depends on every input: sums over the map, dense layers, attention, and whatever is not known better."""


Geometry = Window | Transposed | Repeat | Whole
SAME = Window()
