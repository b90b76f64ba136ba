"""Objectives: differentiable scores of images that add, subtract and scale like numbers, and say what they are.

An objective reads layer values and images and gives one score per image; larger is better. Penalties are objectives too, and are
subtracted: ``unit("features.12", 3) - 0.1 * total_variation()``. The built-in ones are in :mod:`convscope.optimize.objectives`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeAlias

import numpy as np
import torch
from torch import Tensor

from convscope.errors import BadInput
from convscope.scope import Scope
from convscope.scope.precision import wide

UNNAMED = "unnamed"
"""What stands in a description for the name of an objective that has none."""

_OF_TERMS = ("sum", "relative")

LARGEST = 2**14
"""Most values of a vector that a description holds; of a longer one it holds a hash."""

_SIGNATURES: dict[str, inspect.Signature] = {}
"""Signatures of functions that make objectives, for printing calls without default values."""

P = ParamSpec("P")
Parameters: TypeAlias = Mapping[str, Any]


class Values(Mapping[str, Tensor]):
    """Layer values of a batch, {layer: (n c ...)} in float32 (or the network's own wider type), units on axis 1.

    Args:
        values: The values.
        units: Of layers of which only some units were computed, these units in order.
    """

    def __init__(self, values: Mapping[str, Tensor], units: Mapping[str, Sequence[int]] | None = None) -> None:
        self._values = dict(values)
        self._units = dict(units or {})

    def __getitem__(self, layer: str) -> Tensor:
        if layer in self._units:
            raise KeyError(f"only units {self._units[layer]} of {layer} were asked for: an objective on all of it must not name units")
        return wide(self._values[layer])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def chosen(self, layer: str, units: int | Sequence[int]) -> Tensor:
        """One unit's value for each image, (n ...); only these values, and their gradients, are converted to float32."""
        value = self._values[layer]
        if layer in self._units:
            units = [self._units[layer].index(unit) for unit in as_list(units)]
        index = torch.as_tensor(units, dtype=torch.int64, device=value.device).expand(len(value))
        return wide(value[torch.arange(len(value), dtype=torch.int64, device=value.device), index])

    def rows(self, part: slice) -> Values:
        """The values of some images of the batch."""
        return Values({layer: value[part] for layer, value in self._values.items()}, self._units)


@dataclass(frozen=True, eq=False)
class Objective:
    """A differentiable score per image, to be maximized.

    Attributes:
        layers: The layers whose values it reads.
        score: (values {layer: (n c ...)}, images (n c h w)) -> (n,). Values come with their units on axis 1.
        units: Of layers that it does not read as a whole, the units that it reads by :meth:`Values.chosen`.
        name: Its name in manifests; by default that of the score function. A lambda has none.
        parameters: What it was made with; numbers, text, vectors, objectives and lists of them.
        independent: Whether an image's score depends on that image alone. If not, it is computed for the copies of one unit at a time.
    """

    layers: frozenset[str]
    score: Callable[[Values, Tensor], Tensor]
    units: Mapping[str, frozenset[int]] = field(default_factory=dict[str, frozenset[int]])
    name: str = ""
    parameters: Parameters = field(default_factory=dict[str, Any])
    independent: bool = False

    def __post_init__(self) -> None:
        own = getattr(self.score, "__name__", "<lambda>")
        if not self.name and own != "<lambda>":
            object.__setattr__(self, "name", own)

    def __call__(self, scope: Scope, images: Tensor) -> Tensor:
        """(n,) scores of images (n c h w), differentiable."""
        return self.score(self.read(scope, images), images)

    def read(self, scope: Scope, images: Tensor) -> Values:
        """The layer values that it needs, from one pass; images of a size that the network does not take are resized for it."""
        units = {layer: sorted(asked) for layer, asked in self.units.items()}
        values = scope.run(images, sorted(self.layers), units=units, channels_first=True, widen=False, resize=True) if self.layers else {}
        return Values(values, units)

    def __add__(self, other: Objective | float) -> Objective:
        other = _objective(other)
        terms = [*self.parameters["terms"], other] if self.name == "sum" else [self, other]
        return Objective(
            self.layers | other.layers,
            lambda values, images: self.score(values, images) + other.score(values, images),
            _read_units((self, other)),
            "sum",
            {"terms": terms},
            self.independent and other.independent,
        )

    def __mul__(self, factor: float) -> Objective:
        def score(values: Values, images: Tensor) -> Tensor:
            return factor * self.score(values, images)

        return replace(
            self,
            score=score,
            name="multiple",
            parameters={"factor": factor, "objective": self},
        )

    def __sub__(self, other: Objective | float) -> Objective:
        return self + -1.0 * _objective(other)

    def __rsub__(self, other: Objective | float) -> Objective:
        return _objective(other) - self

    def __neg__(self) -> Objective:
        return -1.0 * self

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def named(self) -> bool:
        """Whether it and all its parts have names."""
        parts = [self.parameters["objective"]] if self.name == "multiple" else self.parameters["terms"] if self.name in _OF_TERMS else ()
        return bool(self.name) and all(part.named for part in parts)

    def describe(self) -> dict[str, Any]:
        """Name and parameters as JSON can hold them; :func:`convscope.objectives.from_description` makes a built-in one again."""
        return {"name": self.name or UNNAMED, "parameters": {key: _described(value) for key, value in self.parameters.items()}}

    def __str__(self) -> str:
        if self.name == "sum":
            first, *others = self.parameters["terms"]
            return _term(first, leading=True) + "".join(_term(other) for other in others)
        if self.name == "multiple":
            return _term(self, leading=True)
        if self.name == "relative":
            term, to = self.parameters["terms"]
            return f"|{to}|*{term}"
        if self.name == "constant":
            return f"{self.parameters['value']:g}"
        return f"{self.name}({', '.join(self._written())})" if self.name else "an objective without a name"

    __repr__ = __str__

    def _written(self) -> Iterator[str]:
        """The parameters as in a call, without those that have their default value."""
        known = _SIGNATURES[self.name].parameters if self.name in _SIGNATURES else {}
        by_name = False
        for key, value in self.parameters.items():
            shown = f"<{math.prod(value.shape)} values>" if hasattr(value, "shape") else _shown(value)
            by_name = by_name or key not in known or known[key].kind is inspect.Parameter.KEYWORD_ONLY
            if key in known and shown == _shown(known[key].default):
                by_name = True
            else:
                yield f"{key}={shown}" if by_name else shown


def named(function: Callable[P, Objective]) -> Callable[P, Objective]:
    """Decorates a function that makes objectives: they carry its name and the arguments of the call."""
    signature = _SIGNATURES[function.__name__] = inspect.signature(function)

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Objective:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return replace(function(*args, **kwargs), name=function.__name__, parameters=dict(bound.arguments))

    return make


def constant(value: float) -> Objective:
    """The same score for every image."""
    return Objective(
        frozenset(),
        lambda _, images: images.new_full((len(images),), value),
        name="constant",
        parameters={"value": value},
        independent=True,
    )


def relative(term: Objective, to: Objective) -> Objective:
    """A term times the magnitude of another objective's score, which counts as a constant: it has no gradient."""
    return Objective(
        term.layers | to.layers,
        lambda values, images: to.score(values, images).detach().abs() * term.score(values, images),
        _read_units((term, to)),
        "relative",
        {"terms": [term, to]},
        term.independent and to.independent,
    )


def grouped(objectives: Sequence[Objective], size: int) -> Objective:
    """One objective for a batch of groups of images: each of `objectives` scores `size` consecutive images, and sees no others."""

    def score(values: Values, images: Tensor) -> Tensor:
        scores: list[Tensor] = []
        for index, objective in enumerate(objectives):
            part = slice(index * size, (index + 1) * size)
            scores.append(objective.score(values.rows(part), images[part]))
            if scores[-1].shape != (size,):
                raise BadInput(f"objective {objective}: gave {tuple(scores[-1].shape)}, expected one score per image, ({size},)")
        return torch.cat(scores)

    return Objective(frozenset[str]().union(*(objective.layers for objective in objectives)), score, _read_units(objectives))


def as_list(units: int | Sequence[int]) -> list[int]:
    """One or several unit numbers as a list."""
    return [units] if isinstance(units, int) else list(units)


def _read_units(parts: Sequence[Objective]) -> dict[str, frozenset[int]]:
    """The units that several objectives read of each layer, where none of them reads the whole layer."""
    return {
        layer: frozenset[int]().union(*(part.units.get(layer, ()) for part in parts))
        for layer in frozenset[str]().union(*(part.units for part in parts))
        if all(layer in part.units for part in parts if layer in part.layers)
    }


def _objective(value: Objective | float) -> Objective:
    return value if isinstance(value, Objective) else constant(float(value))


def _term(objective: Objective, leading: bool = False) -> str:
    """An objective as a term of a sum: factors multiplied out, the sign in front."""
    factor = 1.0
    while objective.name == "multiple":
        factor, objective = factor * objective.parameters["factor"], objective.parameters["objective"]
    text = f"({objective})" if objective.name == "sum" and (factor != 1 or not leading) else str(objective)
    times = "" if abs(factor) == 1 else f"{abs(factor):g}*"
    sign = ("-" if factor < 0 else "") if leading else (" - " if factor < 0 else " + ")
    return f"{sign}{times}{text}"


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _described(value: Any) -> Any:
    if isinstance(value, Objective):
        return value.describe()
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.ndim:
        data = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        known = {"dtype": str(value.dtype), "shape": list(value.shape)}
        if data.size <= LARGEST:
            return known | {"base64": base64.b64encode(data.tobytes()).decode()}
        return known | {"sha256": hashlib.sha256(data.tobytes()).hexdigest()}
    if isinstance(value, np.ndarray | np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_described(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def vector_of(description: Mapping[str, Any]) -> np.ndarray:
    """The array that a description holds by value.

    Raises:
        BadInput: It holds a hash only, or is damaged.
    """
    if "sha256" in description:
        raise BadInput(f"the description holds only a hash of a vector of {description.get('shape')} values: pass the objective itself")
    try:
        data = base64.b64decode(description["base64"], validate=True)
        return np.frombuffer(data, np.dtype(description["dtype"]).newbyteorder("<")).reshape(description["shape"]).copy()
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"the description of a vector is damaged ({error})") from None
