"""Windows of a map, one for each picture of a batch: cutting them out, and laying changed ones over kept ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convscope.scope.operations import Spatial

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
        y, x: Their first rows and columns once more, (batch), on the device of `value`, where nothing has to wait for them.
    """

    value: Tensor
    places: Places
    y: Tensor
    x: Tensor


def windows(first: np.ndarray, last: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """Intervals cut to 0 .. length-1 and widened to one size: (starts, size); empty ones get any place inside."""
    first, last = np.maximum(first, 0), np.minimum(last, length - 1)
    size = int(np.max(last - first, initial=0)) + 1
    return np.clip(first, 0, length - size), size


def lengths(span: Span, length: int) -> np.ndarray:
    """How much of each interval lies in 0 .. length-1, (batch)."""
    return np.maximum(np.minimum(span[1], length - 1) - np.maximum(span[0], 0) + 1, 0)


def together(sides: np.ndarray, weights: np.ndarray, batch_cost: float) -> np.ndarray:
    """Which windows to run together along one axis, where all that run together get the size of the largest: merges the cheapest pair
    of groups for as long as a batch less is worth it.

    Args:
        sides: Length of each picture's window at each operation, (picture operation).
        weights: What one position costs at each operation, (operation).
        batch_cost: What a batch costs besides.

    Returns:
        The number of each picture's group, (picture).
    """
    kinds, kind, count = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    members = [[number] for number in range(len(kinds))]
    tops, counts = kinds.astype(float), count.astype(float)
    while len(members) > 1:
        joint = np.maximum(tops[:, None], tops[None]) @ weights * (counts[:, None] + counts[None])
        alone = tops @ weights * counts
        gain = joint - alone[:, None] - alone[None] - batch_cost
        gain[np.tril_indices(len(members))] = np.inf
        first, second = np.unravel_index(gain.argmin(), gain.shape)
        if gain[first, second] >= 0:
            break
        members[first] += members.pop(second)
        tops[first], counts[first] = np.maximum(tops[first], tops[second]), counts[first] + counts[second]
        tops, counts = np.delete(tops, second, 0), np.delete(counts, second)
    group = np.zeros(len(kinds), int)
    for number, kinds_in_it in enumerate(members):
        group[kinds_in_it] = number
    return group[kind.ravel()]


def cut(kept: Tensor, spatial: Spatial | None, places: Places, y: Tensor, x: Tensor) -> Tensor:
    """Windows of a value (1 ...), (batch ...); y and x are where they begin in it."""
    cells, restore = _cells(kept, spatial, 1)
    _, rows, columns, *rest = cells.shape
    index = _index(y, x, places.height, places.width, columns)
    read = cells.reshape(rows * columns, -1).index_select(0, index.flatten())
    return restore(read.view(len(y), places.height, places.width, *rest))


def laid_over(
    kept: Tensor, spatial: Spatial | None, frame: Frame, places: Places, corner: tuple[Tensor, Tensor], shift: tuple[int, int]
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
    batch, height, width = len(places.y), places.height, places.width
    table = cells.reshape(rows * columns, -1)
    index = _index(corner[0] + shift[0], corner[1] + shift[1], height, width, columns)
    count = batch * height * width
    fresh, now = _cells(frame.value, spatial, batch)[0].reshape(-1, table.shape[1]), frame.places
    top, left = frame.y - corner[0], frame.x - corner[1]
    outside = _sticks_out(now, places)
    read = table.new_empty(count + outside, table.shape[1])  # one row more, into which goes what lies outside
    torch.index_select(table, 0, index.flatten(), out=read[:count])
    target = _index(top, left, now.height, now.width, width) + torch.arange(0, count, height * width, device=read.device)[:, None, None]
    if outside:
        row = top[:, None] + torch.arange(now.height, device=read.device)
        column = left[:, None] + torch.arange(now.width, device=read.device)
        hit = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
        target = torch.where(hit, target, count)
    read.index_copy_(0, target.flatten(), fresh)
    return restore(read[:count].view(batch, height, width, *rest))


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
