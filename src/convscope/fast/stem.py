"""A network's first convolution with a faster backward to the image: half the time on a CPU.

An image has three channels, and a convolution with three output channels leaves most lanes of a vector unit empty. So the derivative is
computed for blocks of pixels, whose channels fill the lanes, and then rearranged into single pixels (pixel shuffle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_FEW = 4
"""Most input channels for which blocks are faster."""


@dataclass(frozen=True, eq=False)
class Stem:
    """A convolution of images: the same stride along both axes, no dilation, no groups.

    Attributes:
        kernels: (k c h w).
        bias: (k), or None.
        stride: Of both axes.
        padding: Of each axis.
        blocks: The kernels of the backward convolution, from gradients to blocks of side x side pixels, (c*side*side k h' w').
        side: Of the blocks, a multiple of the stride.
        first: Offset of the first gradient that a block reads, of each axis.
    """

    kernels: Tensor
    bias: Tensor | None
    stride: int
    padding: tuple[int, int]
    blocks: Tensor
    side: int
    first: tuple[int, int]

    @classmethod
    def of(
        cls, kernels: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Any, dilation: Sequence[int], groups: int
    ) -> Stem | None:
        """The convolution with these arguments, or None where blocks are not faster or not supported."""
        plain = groups == 1 and tuple(dilation) == (1, 1) and stride[0] == stride[1] and not isinstance(padding, str)
        if not plain or kernels.requires_grad or kernels.shape[1] > _FEW or kernels.device.type != "cpu":
            return None
        step, padding = int(stride[0]), (int(padding[0]), int(padding[1]))
        side = max(2, step)
        first_y, taps_y = _taps(kernels.shape[2], padding[0], step, side)
        first_x, taps_x = _taps(kernels.shape[3], padding[1], step, side)
        padded = F.pad(kernels, (0, 1, 0, 1))  # the last tap is zero, for gradients that no window reads
        blocks = padded[:, :, taps_y[:, :, None, None], taps_x[None, None]]  # (k c side h' side w')
        blocks = blocks.permute(1, 2, 4, 0, 3, 5).flatten(0, 2).contiguous(memory_format=torch.channels_last)
        return cls(kernels, bias, step, padding, blocks, side, (first_y, first_x))

    def __call__(self, images: Tensor) -> Tensor:
        """(n k h w) of images (n c h w)."""
        return _Stem.apply(images, self)

    def backward(self, gradient: Tensor, height: int, width: int) -> Tensor:
        """The gradient with respect to images of that size, from that with respect to the result."""
        counts = -(-height // self.side), -(-width // self.side)
        step = self.side // self.stride
        before = [-first for first in self.first]
        after = [
            step * (count - 1) + first + reach - length
            for count, first, reach, length in zip(counts, self.first, self.blocks.shape[2:], gradient.shape[2:], strict=True)
        ]
        if min(before) >= 0 and all(late <= early for late, early in zip(after, before, strict=True)):
            found = F.conv2d(gradient, self.blocks, None, step, before)[:, :, : counts[0], : counts[1]]
        else:
            found = F.conv2d(F.pad(gradient, (before[1], after[1], before[0], after[0])), self.blocks, None, step)
        return F.pixel_shuffle(found, self.side)[:, :, :height, :width]


def _taps(length: int, padding: int, stride: int, side: int) -> tuple[int, Tensor]:
    """For each pixel of a block and each gradient that it reads, the kernel tap between them: (first gradient's offset, (side reach))."""
    pixels = torch.arange(side, dtype=torch.int64, device="cpu") + padding
    first, last = -((length - 1 - padding) // stride), (side - 1 + padding) // stride
    taps = pixels[:, None] - stride * torch.arange(first, last + 1, dtype=torch.int64, device="cpu")
    return first, torch.where((taps >= 0) & (taps < length), taps, length)


class _Stem(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, stem: Stem) -> Tensor:
        ctx.stem, ctx.size = stem, images.shape[2:]
        return F.conv2d(images, stem.kernels, stem.bias, stem.stride, stem.padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return ctx.stem.backward(grads[0], *ctx.size), None
