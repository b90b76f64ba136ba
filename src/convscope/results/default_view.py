"""Default view of a result: every array field displayed by its declared kind, plain fields in tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from convscope.render.panels import Bars, Group, Heat, Image, Panel, Signed, Table, View, number, shared_range
from convscope.results import channels, words

if TYPE_CHECKING:
    from convscope.results.base import ArrayField, Result

_MOST_TILES, _MOST_ROWS, _MOST_PLOTS, _LONGEST = 1000, 20, 8, 16384


def default_view(result: Result) -> View:
    """Images and maps as contact sheets, series as bars, everything else in tables."""
    panels: list[Panel] = []
    notes: list[str] = []
    for field in result.arrays():
        if field.array.size == 0:
            notes.append(f"{field.name} is empty: shape {field.array.shape}.")
        elif _is_image(field):
            panels.append(_images(result, field, notes))
        elif field.kind in ("heat", "signed") and field.array.ndim >= 2:
            panels.append(_maps(result, field, notes))
        elif field.kind == "series" and field.array.ndim >= 1:
            panels.append(_series(result, field, notes))
    panels.extend(_tables(result))
    return View(words.title(result), tuple(panels), subtitle=words.provenance(result), note=" ".join(notes))


def _leading(result: Result, field: ArrayField, inner: int, notes: list[str]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Each index along the leading axes with its name; the last `inner` axes belong to the tile."""
    lengths = field.array.shape[: field.array.ndim - inner]
    names = [words.axis_names(result, axis, length) for axis, length in zip(field.axes, lengths, strict=False)]
    count = math.prod(lengths)
    if count > _MOST_TILES:
        notes.append(f"{field.name}: the first {_MOST_TILES} of {count} are shown.")
    every = itertools.product(*(range(length) for length in lengths))
    for index in itertools.islice(every, _MOST_TILES):
        yield index, ", ".join(name[at] for name, at in zip(names, index, strict=True))


def _columns(field: ArrayField, inner: int) -> int | None:
    """Tiles in a row: with two leading axes of moderate length, a row per index of the first; None lets the layout choose."""
    lengths = field.array.shape[: field.array.ndim - inner]
    return lengths[1] if len(lengths) == 2 and lengths[0] > 1 and 2 <= lengths[1] <= 16 else None


def _images(result: Result, field: ArrayField, notes: list[str]) -> Panel:
    tiles = tuple(Image(channels.shown(result, field.array[index]), name) for index, name in _leading(result, field, 3, notes))
    return Group(tiles, _columns(field, 3), field.name)


def _maps(result: Result, field: ArrayField, notes: list[str]) -> Panel:
    kind = Signed if field.kind == "signed" else Heat
    tiles = tuple(kind(field.array[index], name, unit=field.unit) for index, name in _leading(result, field, 2, notes))
    return Group(shared_range(tiles), _columns(field, 2), field.name)


def _series(result: Result, field: ArrayField, notes: list[str]) -> Panel:
    length = field.array.shape[-1]
    if length > _LONGEST:
        notes.append(f"{field.name}: the first {_LONGEST} of {length} values are shown.")
    rows = field.array.reshape(-1, length)[:, :_LONGEST]
    leading = list(_leading(result, field, 1, []))
    if len(rows) > _MOST_PLOTS:
        names = [name for _, name in leading]
        if len(rows) > len(names):
            notes.append(f"{field.name}: the first {len(names)} of {len(rows)} rows are shown.")
        return words.matrix(rows[: len(names)], names, title=field.name, unit=field.unit, x_label=field.axes[-1])
    y_label = f"{field.name} ({field.unit})" if field.unit else field.name
    plots = tuple(Bars(row, name or field.name, field.axes[-1], y_label) for row, (_, name) in zip(rows, leading, strict=True))
    return Group(plots, 1, field.name if field.array.ndim > 1 else "")


def _tables(result: Result) -> Iterator[Panel]:
    """Tables of everything else: arrays along one axis share a table, arrays of more axes are summarized, plain fields come last."""
    rest = [field for field in result.arrays() if field.array.size and not _drawn(field)]
    for axis in dict.fromkeys(field.axes[0] for field in rest if field.array.ndim == 1):
        columns = [field for field in rest if field.axes == (axis,)]
        length = len(columns[0].array)
        names = words.axis_names(result, axis, length)
        rows = [(names[row], *(_cell(field.array[row]) for field in columns)) for row in range(min(length, _MOST_ROWS))]
        caption = f"first {_MOST_ROWS} of {length}" if length > _MOST_ROWS else ""
        yield Table((axis, *(_head(field) for field in columns)), tuple(rows), caption)
    summaries = [(_head(field), " ".join(field.axes), *_summary(field.array)) for field in rest if field.array.ndim != 1]
    if summaries:
        yield Table(("field", "axes", "shape", "min", "mean", "max"), tuple(summaries))
    extras = [(key, words.plain(value)) for key, value in result.extras().items()]
    if extras:
        yield Table(("field", "value"), tuple(extras))


def _is_image(field: ArrayField) -> bool:
    return field.kind == "image" and field.array.ndim >= 3 and field.axes[-3] in ("c", "rgb")


def _drawn(field: ArrayField) -> bool:
    if field.kind == "image":
        return _is_image(field)
    return (field.kind in ("heat", "signed") and field.array.ndim >= 2) or (field.kind == "series" and field.array.ndim >= 1)


def _head(field: ArrayField) -> str:
    return f"{field.name} ({field.unit})" if field.unit else field.name


def _cell(value: np.generic) -> str:
    return number(float(value)) if np.issubdtype(value.dtype, np.number) else str(value)


def _summary(array: np.ndarray) -> tuple[str, str, str, str]:
    shape = " x ".join(map(str, array.shape)) or "one number"
    if not np.issubdtype(array.dtype, np.number):
        return shape, "", "", ""
    finite = array[np.isfinite(array)]
    if not finite.size:
        return shape, "n/a", "n/a", "n/a"
    return shape, number(finite.min()), number(finite.mean(dtype=np.float64)), number(finite.max())
