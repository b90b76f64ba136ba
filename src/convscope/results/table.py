"""Results as tables: a row for each unit, image or pair, by the axes that the fields declare; in Python as a pandas data frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from convscope.errors import BadInput, NotInstalled

if TYPE_CHECKING:
    from pandas import DataFrame

    from convscope.results.base import Result

_PARTS = {"yx": ("y", "x"), "edge": ("y0", "x0", "y1", "x1"), "side": ("before", "after")}
"""Names along short axes that become columns of their own, `positions_y` and `positions_x`."""
_END = {2: ("low", "high"), 3: ("", "low", "high")}
"""The same of intervals, with or without the value itself first."""


class Rows:
    """What a row of a result's table is.

    Args:
        axes: The axes that rows run along, the slowest first: "unit top" has a row for each exemplar of each unit.
        named: {column: what stands in it}. An axis numbers along that axis. "unit:units" is the plain field `units`, which goes along
            the axis unit, "unit top:names" one that is nested. A tuple of names goes along the axis that the column is called like.

    Array fields whose axes are among these become columns under their own names, also where a short axis of coordinates or ends of an
    interval comes last. A field `layer_index` becomes the column `layer`, by the field `layers`.
    """

    def __init__(self, axes: str, **named: str | tuple[str, ...]) -> None:
        self.axes, self.named = tuple(axes.split()), named

    def __bool__(self) -> bool:
        return bool(self.axes)


def columns_of(result: Result) -> dict[str, np.ndarray]:
    """{column: values, (row)} of a result's table.

    Raises:
        BadInput: The result is no table.
    """
    if not result.tabled:
        arrays = ", ".join(field.name for field in result.arrays())
        raise BadInput(f"{result.technique} is no table; its arrays are {arrays}")
    axes = result.tabled.axes
    fields = {field.name: field for field in result.arrays()}
    lengths = {name: length for field in fields.values() for name, length in zip(field.axes, field.array.shape, strict=True)}
    shape = tuple(lengths[axis] for axis in axes)
    columns: dict[str, np.ndarray] = {}
    kept = np.ones(shape, bool)
    if layer := getattr(result, "layer", ""):
        columns["layer"] = np.full(shape, layer, object)
    taken: set[str] = set()
    for column, meant in result.tabled.named.items():
        along, _, name = (column, "", "") if isinstance(meant, tuple) else meant.partition(":")
        own = tuple(along.split())
        values = meant if isinstance(meant, tuple) else getattr(result, name) if name else range(lengths[along])
        taken.add(name)
        filled, there = _filled(values, tuple(lengths[axis] for axis in own))
        if filled is not None:
            columns[column] = _spread(filled, own, axes, shape)
            kept &= _spread(there, own, axes, shape)
    for name, field in fields.items():
        if name in taken or not (own := _own(field.axes, axes)):
            continue
        if name.endswith("_index") and (names := getattr(result, f"{name.removesuffix('_index')}s", ())):
            columns = {name.removesuffix("_index"): _spread(np.array(names, object)[field.array], own, axes, shape), **columns}
        elif len(own) == len(field.axes):
            columns[name] = _spread(field.array, own, axes, shape)
        else:
            last, length = field.axes[-1], field.array.shape[-1]
            parts = _PARTS.get(last) or _END.get(length, ()) if last in (*_PARTS, "end") else [str(place) for place in range(length)]
            for part, place in zip(parts, range(length), strict=True):
                columns[f"{name}_{part}".rstrip("_")] = _spread(field.array[..., place], own, axes, shape)
    return {name: values[kept] for name, values in columns.items()}


def records(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The rows of a table as JSON holds them; what is no number is None."""
    lists = [[plain(value) for value in values.tolist()] for values in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def plain(value: Any) -> Any:
    """A value as JSON holds it: None in place of what is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def frame(columns: Mapping[str, np.ndarray]) -> DataFrame:
    """The table as a pandas data frame.

    Raises:
        NotInstalled: pandas is not installed.
    """
    return pandas().DataFrame(dict(columns)).infer_objects()


def pandas() -> Any:
    """The package pandas, which nothing but data frames needs.

    Raises:
        NotInstalled: It is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise NotInstalled("a data frame needs pandas", "pandas") from None
    return pandas


def _filled(values: Any, shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray]:
    """Plain values as an array of a shape, and where there is one; None where the field is left empty, as names may be."""
    there = np.zeros(shape, bool)
    if isinstance(values, (np.ndarray, range)):
        return np.asarray(values), ~there
    filled = np.full(shape, None, object)
    for place, value in enumerate(values):
        if len(shape) == 1:
            filled[place], there[place] = value, True
        else:
            filled[place, : len(value)], there[place, : len(value)] = value, True
    return (filled, there) if len(values) else (None, ~there)


def _spread(values: np.ndarray, own: tuple[str, ...], axes: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Values along some axes repeated along all."""
    wide = values.reshape([shape[place] if axis in own else 1 for place, axis in enumerate(axes)])
    return np.broadcast_to(wide, shape)


def _own(field: tuple[str, ...], axes: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of a field that rows run along, in their order; none where it has others, but for a short one at the end."""
    own = field[:-1] if field[-1:] and field[-1] in (*_PARTS, "end", "rank") else field
    return own if own and own == tuple(axis for axis in axes if axis in own) else ()
