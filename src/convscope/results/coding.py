"""JSON encoding of a result's plain fields, and back, exactly: tuples stay tuples, NaN stays NaN, arrays go to the array file.

Tuples are stored as JSON lists. What JSON cannot represent is an object with one key that begins with ``$``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convscope.errors import BadInput


def encode(value: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value as JSON.

    Args:
        value: None, bool, int, float, str, NumPy scalar or array, or tuples, lists and mappings (string keys) of those.
        where: The name of the field, for error messages and for the names of arrays.
        arrays: Receives the arrays inside the value.

    Raises:
        BadInput: The value holds something else.
    """
    match value:
        case None | bool() | str():
            return value
        case np.generic():
            return {"$scalar": encode(value.item(), where, arrays), "dtype": _dtype(value.dtype, where)}
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        case tuple():
            return [encode(each, f"{where}.{index}", arrays) for index, each in enumerate(value)]
        case list():
            return {"$list": [encode(each, f"{where}.{index}", arrays) for index, each in enumerate(value)]}
        case np.ndarray():
            arrays[where] = value
            return {"$array": where}
        case Mapping():
            return {"$table": [[_key(key, where), encode(each, f"{where}.{key}", arrays)] for key, each in value.items()]}
        case _:
            raise BadInput(f"the field {where} holds {type(value).__name__}, which a stored result cannot hold")


def decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that :func:`encode` was given; raises KeyError, TypeError or ValueError for other JSON."""
    match value:
        case list():
            return tuple(decode(each, arrays) for each in value)
        case {"$scalar": inner, "dtype": str(dtype)}:
            return np.dtype(dtype).type(decode(inner, arrays))
        case {"$float": str(text)}:
            return float(text)
        case {"$list": list(inner)}:
            return [decode(each, arrays) for each in inner]
        case {"$array": str(name)}:
            return arrays[name]
        case {"$table": list(pairs)}:
            return {key: decode(each, arrays) for key, each in pairs}
        case dict():
            raise ValueError(f"unknown entry {sorted(value)}")
        case _:
            return value


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise BadInput(f"the field {where} is a mapping with a key of type {type(key).__name__}; stored results have text keys only")
    return key


def _dtype(dtype: np.dtype[Any], where: str) -> str:
    if dtype.kind not in "biuf":
        raise BadInput(f"the field {where} holds a NumPy scalar of type {dtype}, which a stored result cannot hold")
    return dtype.str
