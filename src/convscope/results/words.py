"""Text that the views of results share: names along axes, title, subtitle, lists, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convscope.render.panels import Heat, number

if TYPE_CHECKING:
    from convscope.results.base import Result

_WIDEST = 1200
"""Most columns of a matrix, in pixels of a screen."""

_IN_FILE = re.compile(r"^.*[/\\](?=[^/\\]+\.py\b)")
"""The folders of a network that comes from a file, FOLDERS/FILE.py:FUNCTION."""


def axis_names(result: Result, axis: str, length: int) -> list[str]:
    """A name for every index along an axis.

    A plain field that is called like the axis in the plural (``units`` for ``unit``) or ``names`` (for ``n``) and has the right
    length gives the names, and ``unit_names`` adds to those of units.
    """
    extras = result.extras()
    own = _fitting(extras.get("names" if axis == "n" else f"{axis}s"), length)
    if axis == "n" and own:
        return own
    labels = _fitting(extras.get("unit_names"), length) if axis == "unit" else []
    indices = own or [str(index) for index in range(length)]
    return [f"{axis} {name} {label}".strip() for name, label in zip(indices, labels or [""] * length, strict=True)]


def _fitting(names: Any, length: int) -> list[str]:
    return [str(name) for name in names] if isinstance(names, (tuple, list)) and len(names) == length else []


def named(number: int, label: str) -> str:
    """A unit or class as its number and label: ``"12 tabby"``, or ``"12"`` without a label."""
    return f"{number} {label}".strip()


def unit_name(unit: int, labels: Sequence[str]) -> str:
    """:func:`named` with the label at index `unit` of `labels`, which may be empty."""
    return named(unit, labels[unit] if 0 <= unit < len(labels) else "")


def stem(name: str) -> str:
    """The name of an image without its folders and suffix."""
    return name.rpartition("/")[2].rpartition(".")[0] or name


def listed(items: Iterable[object], most: int) -> str:
    """The first `most` items separated by commas, and ", ..." where there are more."""
    texts = list(map(str, items))
    return ", ".join(texts[:most]) + (", ..." if len(texts) > most else "")


def first(shown: int, count: int, what: str = "") -> str:
    """``"first 20 of 300 layers"`` where not all of `count` are shown, else an empty text."""
    return f"first {shown} of {count} {what}".strip() if count > shown else ""


def plural(count: int, noun: str) -> str:
    """``"1 image"``, ``"2 images"``."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def title(result: Result) -> str:
    """Name of the technique, as a title."""
    return result.technique.replace("_", " ").capitalize()


def subtitle(result: Result, *parts: str) -> str:
    """:func:`provenance` and further parts in one line; empty ones are left out."""
    return " · ".join(part for part in (provenance(result), *parts) if part)


def note(*sentences: str) -> str:
    """The sentences of a note, empty ones left out."""
    return " ".join(sentence for sentence in sentences if sentence)


def provenance(result: Result) -> str:
    """Network, layer, seed and precision in one line, as far as the result has them; a network from a file without its folders."""
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


def recipe(made: Mapping[str, Any]) -> str:
    """The recipe of a feature visualization with the parameters changed in it, from a manifest or receipt; "" if it has none."""
    name, changed = made.get("recipe", {}).get("name"), made.get("changed", {})
    return ", ".join([f"recipe {name}", *(f"{key} {plain(value)}" for key, value in changed.items())]) if name else ""


def optimized(result: Result, images: np.ndarray) -> tuple[str, str, str]:
    """How images were optimized, as far as the manifest says: pooling, size and optimizer."""
    manifest: Mapping[str, Any] = result.manifest
    pooling, recipe = manifest.get("parameters", {}).get("pooling"), manifest.get("recipe", {})
    pools = {"average": "average pooling", "own": "the network's own pooling"}.get(str(pooling), "")
    return pools, f"{images.shape[-2]}x{images.shape[-1]} px", " ".join(map(str, filter(None, [recipe.get("optimizer")])))


def plain(value: Any, limit: int = 90) -> str:
    """A value as text in one line of at most `limit` characters."""
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
    """A matrix as a heat map with a name for every row; where a screen is too narrow, neighbouring columns become their maximum.

    Args:
        values: (n c), any range.
        rows: n names.
        style: Further attributes of the :class:`Heat`.
    """
    columns = values.shape[1]
    merged = -(-columns // _WIDEST)
    label = style.pop("x_label", "unit")
    if merged > 1:
        filled = np.full((len(values), -(-columns // merged) * merged), -np.inf)
        filled[:, :columns] = values
        values = filled.reshape(len(values), -1, merged).max(axis=2)
        label = f"{label} (each column: the largest of {merged} neighbours)"
    return Heat(values, rows=tuple(rows), x_label=label, x_step=merged, **style)


def verdict(unit: int | None, winner: int, likely: float, name: str) -> str:
    """What a network takes the image of a class for: "98 %", or "network: scales 62 %" where that is another class."""
    share = f"{100 * likely:.0f} %"
    return share if winner == unit else f"network: {name or winner} {share}"
