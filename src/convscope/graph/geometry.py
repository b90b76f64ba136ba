"""Which inputs an output reads, and which outputs an input affects, along one spatial axis: exact interval rules.

Every rule has two directions: ``reads(a, b)``, the input positions that outputs a .. b are computed from (not clipped: positions outside
the map are padding), and ``reaches(a, b)``, the outputs that change when inputs a .. b do. Ends are inclusive; a > b is an empty interval.
Ends are integers or integer arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

End = TypeVar("End", int, np.ndarray)


@dataclass(frozen=True)
class Window:
    """A sliding window: convolution, pooling, padding and cropping (kernel 1), or the identity (`SAME`).

    Attributes:
        kernel, stride, dilation: As in the operation.
        padding: Positions before the first input; negative for cropping.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def span(self) -> int:
        """Positions from the first to the last input of one output."""
        return self.dilation * (self.kernel - 1) + 1

    def reads(self, a: End, b: End) -> tuple[End, End]:
        return a * self.stride - self.padding, b * self.stride - self.padding + self.span - 1

    def reaches(self, a: End, b: End) -> tuple[End, End]:
        return -((self.span - 1 - a - self.padding) // self.stride), (b + self.padding) // self.stride

    def reads_inside(self, a: np.ndarray, b: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The same without padding, for a map of `length`: the outermost kernel taps that lie inside, where dilation leaves gaps."""
        low, high = self.reads(a, b)
        if self.dilation == 1 or self.padding >= self.span:
            return np.maximum(low, 0), np.minimum(high, length - 1)
        first, last = np.full_like(low, length), np.full_like(high, -1)
        begins_inside = a * 0 - (-self.padding // self.stride)  # the first output whose window begins inside
        ends_inside = a * 0 + (length + self.padding - self.span) // self.stride  # the last output whose window ends inside
        near = [output for step in range(self.dilation) for output in (a + step, b - step)]  # those between repeat their offsets
        for output in (*near, begins_inside, ends_inside):
            start, end = self.reads(output, output)
            low = np.where(start < 0, start % self.dilation, start)
            high = np.where(end >= length, length - 1 - (length - 1 - start) % self.dilation, end)
            counts = (a <= output) & (output <= b) & (low < length) & (low <= end) & (high >= 0) & (high >= start)
            first, last = np.where(counts, np.minimum(first, low), first), np.where(counts, np.maximum(last, high), last)
        return first, last


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution: output o reads inputs i with o = i * stride - padding + t * dilation, 0 <= t < kernel."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def _mirror(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    def reads(self, a: End, b: End) -> tuple[End, End]:
        return self._mirror.reaches(a, b)

    def reaches(self, a: End, b: End) -> tuple[End, End]:
        return self._mirror.reads(a, b)


@dataclass(frozen=True)
class Repeat:
    """Upsampling by a whole factor: nearest-neighbour, pixel shuffle (defaults), or interpolation between neighbours.

    Output o reads inputs n - before .. n + after, where n = (o - shift) // factor.
    """

    factor: int
    before: int = 0
    after: int = 0
    shift: int = 0

    def reads(self, a: End, b: End) -> tuple[End, End]:
        return (a - self.shift) // self.factor - self.before, (b - self.shift) // self.factor + self.after

    def reaches(self, a: End, b: End) -> tuple[End, End]:
        return (a - self.after) * self.factor + self.shift, (b + self.before + 1) * self.factor + self.shift - 1


@dataclass(frozen=True)
class Whole:
    """Every output depends on every input: sums over the map, dense layers, attention, and unknown operations."""


Geometry = Window | Transposed | Repeat | Whole
SAME = Window()
