"""Words of the command line as values of Python: units, images, edits, fills, class maps, pairs of numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convscope.errors import BadInput

MOST_UNITS = 1_000_000
"""No layer has more units than this: a longer range is a slip."""


def units(text: str) -> list[int | str] | None:
    """Units written as "0,3,8-11", "all" (None), or class names; :func:`convscope.names.unit_numbers` says which of them exist.

    Raises:
        BadInput: A range that counts backwards or is longer than any layer.
    """
    if text.strip() == "all":
        return None
    chosen: list[int | str] = []
    for part in _parts(text):
        if numbers := _range(part):
            chosen += numbers
        else:
            chosen.append(part)
    return chosen


def some_units(text: str) -> list[int | str]:
    """Units written as those of :func:`units`, where all of them make no sense."""
    if (chosen := units(text)) is None:
        raise BadInput('which units? "all" says nothing here; write their numbers, e.g. 0,3,8-11')
    return chosen


def names(text: str) -> str | list[str]:
    """Names with commas in between; one alone is text."""
    parts = _parts(text)
    return parts[0] if len(parts) == 1 else parts


def folders(given: Sequence[str]) -> list[Path]:
    """Folders, a word for each."""
    return [Path(folder) for folder in given]


def several_names(text: str) -> list[str]:
    """Names with commas in between."""
    return _parts(text)


def pair(text: str) -> int | tuple[int, int]:
    """A whole number for both axes, "16", or one for each, "16x32" or "16,32" (down, across)."""
    if not (match := re.fullmatch(r"\s*(\d+)\s*(?:[x,]\s*(\d+)\s*)?", text)):
        raise BadInput(f"{text!r} is neither a whole number nor two such as 16x32 (down, across)")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


def position(text: str) -> tuple[int, int]:
    """Two whole numbers, "3,5": y (down), x (across)."""
    found = pair(text)
    if isinstance(found, int):
        raise BadInput(f"{text!r} is not a position: expected y,x such as 3,5")
    return found


def fill(text: str) -> Any:
    """A fill: a grey value "0.5", a colour "#rrggbb", or else a name or a file, as it is."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return tuple(int(text[place : place + 2], 16) / 255 for place in (1, 3, 5))
    try:
        return float(text)
    except ValueError:
        return text


def edits(text: str) -> list[Any]:
    """Edits of a code: "own" (None), "map=3", "map=0-4", "reallocate=0" (a seed), "purposeful=FILE", with commas in between."""
    from convscope.ops.codes import FeatureMap, Purposeful, Reallocate

    kinds: dict[str, Callable[[int], Any]] = {"map": FeatureMap, "reallocate": Reallocate}
    found: list[Any] = []
    for part in _parts(text):
        kind, _, numbers = part.partition("=")
        if kind == "purposeful" and numbers:
            found.append(Purposeful(images([numbers])))
            continue
        if part != "own" and (kind not in kinds or not _range(numbers)):
            raise BadInput(f"{part!r} is no edit: expected own, map=3, map=0-4, reallocate=0 or purposeful=STYLE.jpg")
        found += [None] if part == "own" else map(kinds[kind], _range(numbers))
    return found


def prior(text: str) -> Any:
    """An image prior: "ijcv2016", or one with a weight, "cvpr2015*0.1"."""
    name, times, weight = text.partition("*")
    if times and not re.fullmatch(r"\d*\.?\d+(e-?\d+)?", weight):
        raise BadInput(f"{text!r} is no prior: expected a name, or one with a weight such as cvpr2015*0.1")
    return (name, float(weight)) if times else name


def numbers_of(given: Sequence[str]) -> dict[str, int]:
    """Numbers by name, each written "NAME=NUMBER"."""
    return {name: _number(value) for name, value in map(_assignment, given)}


def named(given: Sequence[str]) -> dict[str, int | str]:
    """Numbers or names by name, each written "NAME=VALUE"."""
    return {name: int(value) if value.strip().isdigit() else value for name, value in map(_assignment, given)}


def lists_of(given: Sequence[str]) -> dict[str, list[int | str]]:
    """Numbers or names by label, each written "LABEL=0,3,8-11" or "LABEL=NAME"."""
    found: dict[str, list[int | str]] = {}
    for label, value in map(_assignment, given):
        found[label] = some_units(value)
    return found


def maps(given: Sequence[str]) -> Any:
    """Class maps: the folder of a result of class-maps, or channels of labels, each written "LABEL=0,3,8"."""
    if len(given) == 1 and "=" not in given[0]:
        from convscope.results.class_maps import ClassMaps

        return result(given[0], ClassMaps)
    return lists_of(given)


def results_units(given: Sequence[str]) -> Any:
    """A saved result that names units, by its folder: class maps, a detector, exemplars, ...; or units of labels, "LABEL=0,3,8"."""
    if len(given) == 1 and "=" not in given[0]:
        from convscope.results.base import Result

        return result(given[0], Result)
    return lists_of(given)


def survey(path: str) -> Any:
    """A survey by its folder or URL."""
    return surveys([path])[0]


def surveys(given: Sequence[str]) -> list[Any]:
    """Surveys, each by its folder or URL."""
    from convscope.survey import read_survey

    return [read_survey(path) for path in given]


def layer_and_surveys(given: Sequence[str]) -> tuple[str | None, list[Any]]:
    """A layer and further surveys in any order: what is a folder or a URL is a survey.

    Raises:
        BadInput: Several words are neither.
    """
    places = [text for text in given if "://" in text or Path(text).is_dir()]
    layers = [text for text in given if text not in places]
    if len(layers) > 1:
        raise BadInput(f"{layers[0]} and {layers[1]} are no folders of surveys, and there can be one layer only")
    return (layers[0] if layers else None), surveys(places)


def images(given: Sequence[str]) -> Any:
    """Image files, folders, lists, tar shards or URLs; one alone as it is."""
    paths = [text if "://" in text else Path(text) for text in given]
    return paths[0] if len(paths) == 1 else paths


def settings(given: Sequence[str]) -> dict[str, Any]:
    """Values by name, each written "NAME=VALUE" with a Python literal, true or false, or a plain word."""
    found: dict[str, Any] = {}
    for name, value in map(_assignment, given):
        try:
            meant = ast.literal_eval({"true": "True", "false": "False"}.get(value.strip(), value))
        except (ValueError, SyntaxError):
            meant = value
        found[name.strip().replace("-", "_")] = meant
    return found


def result(folder: str | Path, kind: type[Any]) -> Any:
    """A saved result of one kind.

    Raises:
        BadInput: It is of another kind.
    """
    from convscope.results.folder import load

    loaded = load(folder)
    if not isinstance(loaded, kind):
        raise BadInput(f"{folder}: holds a result of {loaded.technique}, not of {kind.technique}")
    return loaded


def listing(given: str | Sequence[str]) -> str:
    """One name, or several with commas in between."""
    return given if isinstance(given, str) else ", ".join(given)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _range(text: str) -> range:
    """The numbers of "3" or "3-7"; none if it is neither."""
    if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", text)):
        return range(0)
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise BadInput(f"{text} counts backwards")
    if last - first >= MOST_UNITS:
        raise BadInput(f"{text}: no layer has so many units")
    return range(first, last + 1)


def _assignment(text: str) -> tuple[str, str]:
    name, _, value = text.rpartition("=")
    if not name or not value:
        raise BadInput(f"{text}: expected NAME=VALUE")
    return name, value


def _number(text: str) -> int:
    if not text.strip().isdigit():
        raise BadInput(f"{text!r} is not a whole number")
    return int(text)
