"""Windows of a map, one for each picture of a batch: cutting them out, and laying changed ones over kept ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convscope.graph.operations import Spatial

Corner = tuple[Tensor, Tensor]
"""First rows and columns of windows, (batch), on the device."""
Span = tuple[np.ndarray, np.ndarray]
"""First and last position of an interval, inclusive, for each picture of a batch; they may lie outside the map."""


@dataclass(frozen=True)
class Places:
    """Windows of one size, one for each picture of a batch.

    Attributes:
        y, x: First row and column of each, (batch).
        height, width: Their common size.
    """

    y: np.ndarray
    x: np.ndarray
    height: int
    width: int

    def same(self, other: Places) -> bool:
        """Whether these are the same windows."""
        if (self.height, self.width) != (other.height, other.width):
            return False
        return np.array_equal(self.y, other.y) and np.array_equal(self.x, other.x)


@dataclass(frozen=True)
class Frame:
    """A value that differs from the kept one in a window for each picture.

    Attributes:
        value: What is in the windows, (batch ...) with `places` height and width.
        places: Where they are.
        corner: Their first rows and columns once more, on the device of `value`, where nothing has to wait for them.
    """

    value: Tensor
    places: Places
    corner: Corner


def cut(kept: Tensor, spatial: Spatial | None, places: Places, corner: Corner) -> Tensor:
    """Windows of a value (1 ...), (batch ...); `corner` is where they begin in it."""
    cells, restore = _cells(kept, spatial, 1)
    _, rows, columns, *rest = cells.shape
    index = _index(*corner, places.height, places.width, columns)
    read = cells.reshape(rows * columns, -1).index_select(0, index.flatten())
    return restore(read.view(len(places.y), places.height, places.width, *rest))


def laid_over(
    kept: Tensor, spatial: Spatial | None, frame: Frame, places: Places, corner: Corner, shift: tuple[int, int] = (0, 0)
) -> Tensor:
    """Windows of a kept value (1 ...) with those of a frame laid over them, (batch ...).

    Args:
        kept: The value, maybe padded.
        spatial: Where y and x are among its axes.
        frame: Windows that differ from it.
        places: The windows wanted, in coordinates without padding.
        corner: Their first rows and columns on the device.
        shift: Rows and columns of padding before the value's own.
    """
    cells, restore = _cells(kept, spatial, 1)
    _, rows, columns, *rest = cells.shape
    table = cells.reshape(rows * columns, -1)
    index = _index(corner[0] + shift[0], corner[1] + shift[1], places.height, places.width, columns)
    read = table.new_empty(index.numel() + 1, table.shape[1])  # one row more, into which goes what lies outside
    torch.index_select(table, 0, index.flatten(), out=read[:-1])
    _lay(read, frame, spatial, places, corner)
    return restore(read[:-1].view(len(places.y), places.height, places.width, *rest))


def alone(spatial: Spatial | None, frame: Frame, places: Places, corner: Corner) -> Tensor:
    """Windows that are zero outside of a frame, (batch ...); arguments as for :func:`laid_over`."""
    cells, restore = _cells(frame.value, spatial, len(places.y))
    batch, _, _, *rest = cells.shape
    count = batch * places.height * places.width
    read = frame.value.new_zeros(count + 1, math.prod(rest))
    _lay(read, frame, spatial, places, corner)
    return restore(read[:-1].view(batch, places.height, places.width, *rest))


def _lay(read: Tensor, frame: Frame, spatial: Spatial | None, places: Places, corner: Corner) -> None:
    """Writes a frame into windows, given cell by cell, (batch * height * width + 1, ...); what lies outside of them, into the last row."""
    now, height, width = frame.places, places.height, places.width
    fresh = _cells(frame.value, spatial, len(places.y))[0].reshape(-1, read.shape[1])
    top, left, count = frame.corner[0] - corner[0], frame.corner[1] - corner[1], len(read) - 1
    target = _index(top, left, now.height, now.width, width) + torch.arange(0, count, height * width, device=read.device)[:, None, None]
    if _sticks_out(now, places):
        row = top[:, None] + torch.arange(now.height, device=read.device)
        column = left[:, None] + torch.arange(now.width, device=read.device)
        hit = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
        target = torch.where(hit, target, count)
    read.index_copy_(0, target.flatten(), fresh)


def _index(y: Tensor, x: Tensor, height: int, width: int, columns: int) -> Tensor:
    """Numbers of the cells of windows in a map of so many columns, (batch height width)."""
    inside = torch.arange(height, device=y.device)[:, None] * columns + torch.arange(width, device=y.device)
    return (y * columns + x)[:, None, None] + inside


def _sticks_out(inner: Places, outer: Places) -> bool:
    """Whether some inner window is not inside its outer one."""
    rows = (inner.y < outer.y) | (inner.y + inner.height > outer.y + outer.height)
    columns = (inner.x < outer.x) | (inner.x + inner.width > outer.x + outer.width)
    return bool((rows | columns).any())


def _cells(value: Tensor, spatial: Spatial | None, batch: int):
    """A value as (batch h w ...), and the way back for windows of it."""
    if spatial is None:
        raise RuntimeError("a value without y and x has no windows")
    if spatial.rows:
        side = spatial.rows[1:]
        return value.reshape(batch, *side, *value.shape[1:]), lambda cells: cells.flatten(0, 2)
    axes = (spatial.y, spatial.x)
    return value.movedim(axes, (1, 2)), lambda cells: cells.movedim((1, 2), axes)
