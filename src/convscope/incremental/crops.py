"""Per-image crops of a feature map, and pasting recomputed crops onto the cached map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convscope.graph.geometry_rules import Spatial

Offsets = tuple[Tensor, Tensor]
"""First rows and columns of windows, (batch), on the device."""
Span = tuple[np.ndarray, np.ndarray]
"""First and last position of an interval, inclusive, for each image of a batch; may lie outside the map."""


@dataclass(frozen=True)
class Windows:
    """Windows of one size, one for each image of a batch.

    Attributes:
        y, x: First row and column of each, (batch).
        height, width: Their common size.
    """

    y: np.ndarray
    x: np.ndarray
    height: int
    width: int

    def same(self, other: Windows) -> bool:
        """Whether these are the same windows."""
        if (self.height, self.width) != (other.height, other.width):
            return False
        return np.array_equal(self.y, other.y) and np.array_equal(self.x, other.x)


@dataclass(frozen=True)
class Crops:
    """A value that differs from the cached one inside a window for each image.

    Attributes:
        value: The values inside the windows, (batch ...) with height and width of `windows`.
        windows: Where they are.
        offsets: Their first rows and columns, on the device of `value`, so that nothing waits for a transfer.
    """

    value: Tensor
    windows: Windows
    offsets: Offsets


def crop(cached: Tensor, spatial: Spatial | None, windows: Windows, offsets: Offsets) -> Tensor:
    """Windows of a value (1 ...), (batch ...), at `offsets`."""
    cells, restore = _cells(cached, spatial, 1)
    _, rows, columns, *rest = cells.shape
    index = _index(*offsets, windows.height, windows.width, columns)
    read = cells.reshape(rows * columns, -1).index_select(0, index.flatten())
    return restore(read.view(len(windows.y), windows.height, windows.width, *rest))


def paste(
    cached: Tensor, spatial: Spatial | None, crops: Crops, windows: Windows, offsets: Offsets, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    """Windows of a cached value (1 ...) with recomputed crops pasted onto it, (batch ...).

    Args:
        cached: The value, maybe padded.
        spatial: Where y and x are among its axes.
        crops: The recomputed crops.
        windows: The windows wanted, in coordinates without padding.
        offsets: Their first rows and columns on the device.
        padding: Rows and columns of padding before those of the value.
    """
    cells, restore = _cells(cached, spatial, 1)
    _, rows, columns, *rest = cells.shape
    table = cells.reshape(rows * columns, -1)
    index = _index(offsets[0] + padding[0], offsets[1] + padding[1], windows.height, windows.width, columns)
    read = table.new_empty(index.numel() + 1, table.shape[1])  # one row more, for what falls outside
    torch.index_select(table, 0, index.flatten(), out=read[:-1])
    _write(read, crops, spatial, windows, offsets)
    return restore(read[:-1].view(len(windows.y), windows.height, windows.width, *rest))


def paste_on_zeros(spatial: Spatial | None, crops: Crops, windows: Windows, offsets: Offsets) -> Tensor:
    """Windows that are zero outside of the crops, (batch ...); arguments as for :func:`paste`."""
    cells, restore = _cells(crops.value, spatial, len(windows.y))
    batch, _, _, *rest = cells.shape
    count = batch * windows.height * windows.width
    read = crops.value.new_zeros(count + 1, math.prod(rest))
    _write(read, crops, spatial, windows, offsets)
    return restore(read[:-1].view(batch, windows.height, windows.width, *rest))


def _write(read: Tensor, crops: Crops, spatial: Spatial | None, windows: Windows, offsets: Offsets) -> None:
    """Writes crops into windows, one row per cell, (batch * height * width + 1, ...); what falls outside, into the last row."""
    own, height, width = crops.windows, windows.height, windows.width
    values = _cells(crops.value, spatial, len(windows.y))[0].reshape(-1, read.shape[1])
    top, left, count = crops.offsets[0] - offsets[0], crops.offsets[1] - offsets[1], len(read) - 1
    target = (
        _index(top, left, own.height, own.width, width)
        + torch.arange(0, count, height * width, dtype=torch.int64, device=read.device)[:, None, None]
    )
    if _exceeds(own, windows):
        row = top[:, None] + torch.arange(own.height, dtype=torch.int64, device=read.device)
        column = left[:, None] + torch.arange(own.width, dtype=torch.int64, device=read.device)
        inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
        target = torch.where(inside, target, count)
    read.index_copy_(0, target.flatten(), values)


def _index(y: Tensor, x: Tensor, height: int, width: int, columns: int) -> Tensor:
    """Cell numbers of windows in a map of so many columns, (batch height width)."""
    inside = torch.arange(height, dtype=torch.int64, device=y.device)[:, None] * columns + torch.arange(
        width, dtype=torch.int64, device=y.device
    )
    return (y * columns + x)[:, None, None] + inside


def _exceeds(inner: Windows, outer: Windows) -> bool:
    """Whether some inner window is not inside its outer one."""
    rows = (inner.y < outer.y) | (inner.y + inner.height > outer.y + outer.height)
    columns = (inner.x < outer.x) | (inner.x + inner.width > outer.x + outer.width)
    return bool((rows | columns).any())


def _cells(value: Tensor, spatial: Spatial | None, batch: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A value as (batch h w ...), and the function that restores the order of axes."""
    if spatial is None:
        raise RuntimeError("a value without y and x has no windows")
    if spatial.rows:
        side = spatial.rows[1:]
        return value.reshape(batch, *side, *value.shape[1:]), lambda cells: cells.flatten(0, 2)
    axes = (spatial.y, spatial.x)
    return value.movedim(axes, (1, 2)), lambda cells: cells.movedim((1, 2), axes)
