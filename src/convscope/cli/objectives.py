"""Objectives of feature visualization as words: "neuron", "neuron:3,5", "direction:vector.npy", "deepdream", "file.py:function"."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convscope.cli import words
from convscope.errors import BadInput
from convscope.files import read_file
from convscope.text import one_line

if TYPE_CHECKING:
    from convscope.optimize.objective import Objective
    from convscope.techniques.feature_visualization import ObjectiveLike

HELP = (
    "Written neuron or neuron:Y,X (one position of a unit's map, by default the middle), direction:VECTOR.npy (a number per unit of the "
    "layer), deepdream (all values of the layer), or FILE.py:FUNCTION (your function: unit number to objective). "
    "direction and deepdream make one image and take no --units."
)
_MOST_BYTES = 2**26
PENALTIES = ("total_variation", "norm", "natural_norm", "natural_variation", "power_norm")
PENALTY_HELP = f"Written total_variation*1e-4; names: {', '.join(PENALTIES)}."


@dataclass(frozen=True)
class OfLayer:
    """An objective whose layer is not known yet.

    Attributes:
        text: The words.
        make: Layer name to the objective.
    """

    text: str
    make: Callable[[str], ObjectiveLike]


def objective(text: str) -> OfLayer:
    """What is maximized instead of a unit's activation.

    Args:
        text: "neuron" or "neuron:Y,X": every unit at one position of its map; "direction:VECTOR.npy": the layer's values along a vector
            with a number per unit; "deepdream": all values of the layer; "FILE.py:FUNCTION": an objective of a file of yours, or a
            function of a unit number that makes one.

    Raises:
        BadInput: None of these, or a file that cannot be read.
    """
    from convscope.optimize import objectives
    from convscope.optimize.objective import Objective
    from convscope.zoo.from_file import is_file_name, named_in

    name, _, value = text.partition(":")
    if is_file_name(text):
        found = named_in(text)
        return OfLayer(text, lambda _layer: found if isinstance(found, Objective) else _from_file(found, text))
    if name == "neuron":
        y, x = words.position(value) if value else (None, None)
        return OfLayer(text, lambda layer: partial(objectives.neuron, layer, y=y, x=x))
    if name == "direction" and value:
        vector = _vector(Path(value))
        return OfLayer(text, lambda layer: objectives.direction(layer, vector))
    if text == "deepdream":
        return OfLayer(text, objectives.deepdream)
    raise BadInput(f"{text!r} is no objective: expected neuron, neuron:Y,X, direction:VECTOR.npy, deepdream or FILE.py:FUNCTION")


def penalty(text: str) -> Objective:
    """A penalty and its weight, "total_variation*1e-4".

    Raises:
        BadInput: It cannot be read that way.
    """
    from convscope.optimize import objectives

    name, _, weight = text.partition("*")
    name = name.strip().replace("-", "_")
    if name not in PENALTIES:
        raise BadInput(
            f"{text!r} is no penalty: expected NAME*WEIGHT such as total_variation*1e-4, with NAME one of {', '.join(PENALTIES)}"
        )
    try:
        return float(weight or 1) * objectives.build(name, {})
    except ValueError:
        raise BadInput(f"{text!r}: the weight {weight!r} is not a number") from None


def _vector(path: Path) -> Any:
    try:
        return np.load(io.BytesIO(read_file(path, _MOST_BYTES)), allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, TypeError) as error:
        raise BadInput(f"{path}: not a NumPy array ({one_line(error)})") from None


def _from_file(function: Callable[[int], Any], text: str) -> Callable[[int], Any]:
    """A function of a user's file whose objectives are called after the file and its content, so that receipts tell them apart."""
    path = Path(text.rpartition(":")[0])
    parameters = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def make(unit: int) -> Any:
        made = function(unit)
        return replace(made, name=text, parameters=parameters | {"unit": unit}) if hasattr(made, "named") else made

    return make
