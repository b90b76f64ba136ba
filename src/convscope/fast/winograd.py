"""Winograd convolution F(4x4, 3x3): 3x3 convolutions with a quarter of the multiplications, for optimization in float32.

Tiles of 6x6 values and kernels are transformed into 36 numbers each, in which the convolution is an elementwise product; over channels
that is 36 matrix products, which give 4x4 values per tile. From 128 and 256 channels on it takes 0.4 to 0.9 of the time of direct
convolution (measured on a CPU with AVX512). The rounding error is three times as large, about 3e-6 of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE, _REACH = 4, 6
_INPUT = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
    dtype=torch.float64,
    device="cpu",
)
_KERNEL = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64, device="cpu") / 24
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64, device="cpu"
)
_FEWEST_WEIGHTS, _FEWEST_TILES = 128 * 256, 25
"""Below so many pairs of channels, or tiles in an image, direct convolution is faster."""
_CACHED, _ROWS = 2**19, 128
"""Transformed values that fit into the cache, and rows from which a matrix product is efficient."""


@dataclass(frozen=True, eq=False)
class Winograd:
    """A 3x3 convolution of stride 1, no dilation, no groups.

    Transformed kernels take four times the memory of the kernels, forward and backward each: 0.46 GB in all for VGG-16.

    Attributes:
        kernels: (k c 3 3).
        bias: (k), or None.
        padding: Of each axis, 0 to 2.

    Source:
        Lavin and Gray 2016 (arXiv 1509.09308), section 4.3.
    """

    kernels: Tensor
    bias: Tensor | None
    padding: tuple[int, int]

    @classmethod
    def of(
        cls, kernels: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Any, dilation: Sequence[int], groups: int
    ) -> Winograd | None:
        """The convolution with these arguments, or None where it is another kind or has too few channels."""
        plain = groups == 1 and tuple(stride) == tuple(dilation) == (1, 1) and tuple(kernels.shape[2:]) == (3, 3)
        if not plain or isinstance(padding, str) or max(padding) > 2 or kernels.requires_grad or kernels.device.type != "cpu":
            return None
        if kernels.dtype not in (torch.float32, torch.float64) or kernels.shape[0] * kernels.shape[1] < _FEWEST_WEIGHTS:
            return None  # in half precision the transforms lose too many digits
        return cls(kernels, bias, (int(padding[0]), int(padding[1])))

    def __call__(self, values: Tensor) -> Tensor:
        """(n k h' w') of values (n c h w). Each image's result is independent of the batch."""
        tiles = -(-values.shape[2] // _TILE) * -(-values.shape[3] // _TILE)
        if tiles < _FEWEST_TILES:
            return F.conv2d(values, self.kernels, self.bias, 1, self.padding)
        return _Winograd.apply(values, self)

    @cached_property
    def _transformed(self) -> Tensor:
        """(36 c k)."""
        each = torch.einsum("yi,xj,kcij->yxck", _KERNEL, _KERNEL, self.kernels.double())
        return each.flatten(0, 1).to(self.kernels.dtype).contiguous()

    @cached_property
    def backward(self) -> Winograd:
        """The convolution of the backward pass."""
        kernels = self.kernels.flip(2, 3).transpose(0, 1)
        return Winograd(kernels, None, (2 - self.padding[0], 2 - self.padding[1]))

    def run(self, values: Tensor) -> Tensor:
        """(n k h' w') of values (n c h w), without autograd."""
        values = values.contiguous(memory_format=torch.channels_last)
        (count, channels, height, width), filters = values.shape, len(self.kernels)
        size = height + 2 * self.padding[0] - 2, width + 2 * self.padding[1] - 2
        across, down = -(-size[1] // _TILE), -(-size[0] // _TILE)
        rows = min(down, max(_CACHED // (_REACH**2 * across * max(channels, filters)), -(-_ROWS // across)))
        result = values.new_empty((count, down * _TILE, across * _TILE, filters)).permute(0, 3, 1, 2)
        numbers = _REACH**2 * rows * across
        tiles, transformed = values.new_empty(numbers * channels), values.new_empty(numbers * channels)
        products, finished = values.new_empty(numbers * filters), values.new_empty(_TILE**2 * rows * across * filters)
        into, back = (torch.kron(one, one).to(values.dtype) for one in (_INPUT, _OUTPUT))
        for number in range(count):
            for row in range(0, down, rows):
                taken = min(rows, down - row)
                tile_count = taken * across
                held = tiles[: _REACH**2 * tile_count * channels].view(_REACH, _REACH, taken, across, channels)
                self._gather(values[number], row, held)
                seen = transformed[: held.numel()].view(_REACH**2, tile_count, channels)
                torch.mm(into, held.view(_REACH**2, -1), out=seen.view(_REACH**2, -1))
                product = torch.bmm(
                    seen, self._transformed, out=products[: _REACH**2 * tile_count * filters].view(_REACH**2, tile_count, filters)
                )
                block = finished[: _TILE**2 * tile_count * filters].view(_TILE, _TILE, taken, across, filters)
                torch.mm(back, product.view(_REACH**2, -1), out=block.view(_TILE**2, -1))
                _, _, line, pixel = result.stride()
                target = result.as_strided(
                    block.shape, (line, pixel, _TILE * line, _TILE * pixel, 1), result[number, :, row * _TILE].storage_offset()
                )
                if self.bias is None:
                    target.copy_(block)
                else:
                    torch.add(block, self.bias, out=target)
        return result[:, :, : size[0], : size[1]]

    def _gather(self, image: Tensor, row: int, tiles: Tensor) -> None:
        """Copies tiles (6 6 rows tiles c) of an image (c h w), from a row of tiles on; zero outside the image."""
        channels, height, width = image.shape
        step, line, pixel = image.stride()
        up, left = self.padding
        for y, top, bottom in _positions_inside(up, height, row, tiles.shape[2]):
            some = tiles[y]
            some[:, :, : top - row].zero_()
            some[:, :, bottom - row :].zero_()
            for x, first, last in _positions_inside(left, width, 0, tiles.shape[3]):
                part = some[:, x, top - row : bottom - row]
                part[..., :first, :].zero_()
                part[..., last:, :].zero_()
                if top < bottom and first < last:
                    start = (_TILE * top + y.start - up) * line + (_TILE * first + x.start - left) * pixel
                    shape = len(part), part.shape[1], bottom - top, last - first, channels
                    strides = line, pixel, _TILE * line, _TILE * pixel, step
                    part[..., first:last, :].copy_(image.as_strided(shape, strides, image.storage_offset() + start))


def _positions_inside(padding: int, length: int, first: int, count: int) -> list[tuple[slice, int, int]]:
    """Groups of positions in a tile that lie inside 0..length for the same tiles of first..first+count: (positions, first tile, end)."""
    found: list[tuple[slice, int, int]] = []
    for position in range(_REACH):
        offset = position - padding
        begin = min(max(first, -(offset // _TILE)), first + count)
        end = max(begin, min(first + count, (length - 1 - offset) // _TILE + 1))
        if found and found[-1][1:] == (begin, end):
            found[-1] = slice(found[-1][0].start, position + 1), begin, end
        else:
            found.append((slice(position, position + 1), begin, end))
    return found


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, convolution: Winograd) -> Tensor:
        ctx.convolution = convolution
        return convolution.run(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Winograd.apply(grads[0], ctx.convolution.backward), None
