"""What views say about any result: names along axes, title, provenance, how a value is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from convscope.render.panels import Heat, number

if TYPE_CHECKING:
    from convscope.results.base import Result

_WIDEST = 1200
_IN_FILE = re.compile(r"^.*[/\\](?=[^/\\]+\.py\b)")
"""The folders of a network that comes from a file, FOLDERS/FILE.py:FUNCTION."""


def axis_names(result: Result, axis: str, length: int) -> list[str]:
    """A name for every index along an axis.

    A plain field that is called like the axis in the plural (``units`` for ``unit``) or ``names`` (for ``n``) and has the right
    length gives the names, and ``labels`` adds to those of units and channels.
    """
    extras = result.extras()
    own = _fitting(extras.get("names" if axis == "n" else f"{axis}s"), length)
    if axis == "n" and own:
        return own
    labels = _fitting(extras.get("labels"), length) if axis == "unit" else []
    numbers = own or [str(index) for index in range(length)]
    return [f"{axis} {name} {label}".strip() for name, label in zip(numbers, labels or [""] * length, strict=True)]


def _fitting(names: Any, length: int) -> list[str]:
    return [str(name) for name in names] if isinstance(names, (tuple, list)) and len(names) == length else []


def unit_name(unit: int, labels: tuple[str, ...]) -> str:
    """``"12"`` or ``"12 tabby"`` where the channels have labels."""
    label = labels[unit] if 0 <= unit < len(labels) else ""
    return f"{unit} {label}".strip()


def title(result: Result) -> str:
    """The technique in words."""
    return result.technique.replace("_", " ").capitalize()


def provenance(result: Result) -> str:
    """Network, layer, seed and precision, as far as the result knows them, in one line; of a network's path, the file's name."""
    extras, manifest = result.extras(), result.manifest
    parameters = manifest.get("parameters")
    parameters = parameters if isinstance(parameters, Mapping) else {}
    parts: list[str] = []
    for key in ("network", "layer", "seed", "precision"):
        value = next((each[key] for each in (extras, manifest, parameters) if key in each), None)
        value = value.get("name") if isinstance(value, Mapping) else value
        if key == "network" and isinstance(value, str):
            value = _IN_FILE.sub("", value)
        if isinstance(value, (str, int)) and value != "":
            parts.append(f"{key} {value}" if key in ("layer", "seed") else str(value))
    return " · ".join(parts)


def plain(value: Any, limit: int = 90) -> str:
    """A value as a reader would write it, in one line of at most `limit` characters."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, (tuple, list)):
        text = ", ".join(plain(each, limit) for each in value[:24]) + (", …" if len(value) > 24 else "")
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def matrix(values: np.ndarray, rows: list[str], **style: Any) -> Heat:
    """A wide matrix as a map with a name for every row; neighbours are merged by their maximum where a screen has no room.

    Args:
        values: (n c), any range.
        rows: n names.
        style: Further attributes of the :class:`Heat`.
    """
    columns = values.shape[1]
    merged = -(-columns // _WIDEST)
    label = style.pop("x_label", "channel")
    if merged > 1:
        filled = np.full((len(values), -(-columns // merged) * merged), -np.inf)
        filled[:, :columns] = values
        values = filled.reshape(len(values), -1, merged).max(axis=2)
        label = f"{label} (each column: the largest of {merged} neighbours)"
    return Heat(values, rows=tuple(rows), x_label=label, x_step=merged, **style)
