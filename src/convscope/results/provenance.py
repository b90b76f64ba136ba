"""Provenance of results: the `technique` decorator checks the call and gives the result a manifest of what made it.

What the network itself adds to it is `Scope.provenance`.
"""

from __future__ import annotations

import functools
import inspect
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, ParamSpec, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from convscope.errors import BadInput, LayerNotFound, asking
from convscope.image_files import is_image
from convscope.names import is_whole, layer_names, near_hint
from convscope.results.base import Result
from convscope.text import printable

P = ParamSpec("P")
R = TypeVar("R", bound=Result)

SUBJECTS = {
    "scope": "a scope, as convscope.open(name) or convscope.Scope(model) gives it",
    "survey": "a survey, as convscope.read_survey(folder) gives it",
    "detector": "a detector, as convscope.detector(survey, layer) gives it",
}
"""What a technique's first parameter may be, by its name."""


_version = functools.cache(version)


class Subject(Protocol):
    """The first argument of a technique: a scope, a survey or a detector."""

    subject: ClassVar[str]
    """Name of the parameter that takes it: a key of :data:`SUBJECTS`."""

    def provenance(self) -> Mapping[str, Any]:
        """Its entries in a manifest; "libraries" names packages whose versions are recorded."""
        ...

    def entered(self, seed: int | None = None) -> AbstractContextManager[Any]:
        """A context manager for the duration of a technique, whose seed is given if it has one."""
        ...


def technique(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of every technique: checks the arguments, adds them to error messages, and records them in the result's manifest.

    The name of the first parameter says what it takes (:data:`SUBJECTS`), and so does that of a further one. A layer may be given by its
    number (:func:`convscope.names.layer_name`). A parameter annotated with `Literal` takes these values only. Arguments that JSON cannot
    hold (images) are recorded as a description.

    Raises:
        BadInput: Such an argument is of another kind, or a value is not among the choices of its parameter.
    """
    signature = inspect.signature(function)
    choices = {name: found for name, hint in get_type_hints(function).items() if (found := Choices.of(hint))}
    first, *others = signature.parameters
    subjects = [first, *(name for name in others if name in SUBJECTS and signature.parameters[name].default is inspect.Parameter.empty)]
    named = [name for name in signature.parameters if name.endswith(("layer", "layers"))]
    order = ", ".join([first, *(name for name in others if signature.parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY)])

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}({order}): {error}") from None
        bound.apply_defaults()
        subject: Any = bound.arguments[first]
        for name in subjects:
            if getattr(bound.arguments[name], "subject", None) != name:
                got = type(bound.arguments[name]).__name__
                raise BadInput(f"{function.__name__}({order}): {name} must be {SUBJECTS[name]}, got {got}")
        layers = [bound.arguments[name] for name in ("layer", "layers") if bound.arguments.get(name) is not None]
        if wrong := next(filter(None, map(_no_name, layers)), ""):
            raise LayerNotFound(f"{function.__name__}({order}): {wrong}")
        seed = bound.arguments.get("seed")
        with asking(technique=function.__name__, layer=bound.arguments.get("layer")), subject.entered(seed if is_whole(seed) else None):
            for name, allowed in choices.items():
                allowed.check(name, bound.arguments[name])
            if is_whole(seed):
                check_seed(seed)
            for name, value in bound.arguments.items():
                if name not in _OWN_RANGE and is_whole(value) and abs(value) > _MOST:
                    raise BadInput(f"{name} must be at most {_MOST}, got {value}")
            for name in named:
                if bound.arguments.get(name) is not None:
                    bound.arguments[name] = layer_names(bound.arguments[name], getattr(subject, "layers", {}))
            try:
                result = function(*bound.args, **bound.kwargs)
            except LayerNotFound as error:
                if files := [each for layer in layers for each in ([layer] if isinstance(layer, str) else layer) if _is_file(each)]:
                    error.message = f"{function.__name__}({order}): {_NAME}, got the file or folder {printable(files[0])}"
                raise
        given = {name: describe(value) for name, value in list(bound.arguments.items())[1:]}
        return result.with_manifest(manifest(subject, function.__name__, given) | dict(result.manifest))

    return run


_MOST, _OWN_RANGE = 10**7, ("seed", "unit", "units", "target")
"""The largest whole number that an argument may be, lest it fills memory, and arguments whose range is checked elsewhere."""


def check_seed(seed: int) -> None:
    """Raises BadInput if a seed has more bits than receipts hold."""
    if not -(2**63) <= seed < 2**63:
        raise BadInput(f"seed must be a whole number of at most 63 bits, got {seed}")


_NAME = "layer must be the name of a layer"


def _no_name(layer: Any) -> str:
    """Why a `layer`, or one of several, cannot be a name, as when arguments come in another order; "" if it can."""
    several = isinstance(layer, (list, tuple))
    wrong = next((each for each in (layer if several else [layer]) if not isinstance(each, str)), "")
    if isinstance(wrong, os.PathLike):
        return f"{_NAME}, got the file or folder {printable(wrong)}"
    return "" if isinstance(wrong, str) else f"{_NAME}, got {type(wrong).__name__}"


def _is_file(name: str) -> bool:
    return is_image(name) or os.path.lexists(name)


@dataclass(frozen=True)
class Choices:
    """The values that a parameter annotated with `Literal` takes.

    Attributes:
        values: The values, in order.
        optional: Whether None is allowed.
        others: Whether the parameter takes values of other types as well; then only text is checked.
    """

    values: tuple[Any, ...]
    optional: bool
    others: bool

    @classmethod
    def of(cls, hint: Any) -> Choices | None:
        """The choices of a resolved annotation; None if it has none, or takes any text."""
        parts: tuple[Any, ...] = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        values = tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))
        others = {part for part in parts if get_origin(part) is not Literal}
        return cls(values, NoneType in others, bool(others - {NoneType})) if values and str not in others else None

    def check(self, name: str, value: Any) -> None:
        """Raises BadInput if `value` is not among the choices of the parameter `name`; the message lists them."""
        if any(isinstance(value, type(choice)) and value == choice for choice in self.values):
            return
        if (value is None and self.optional) or (self.others and not isinstance(value, str)):
            return
        *first, last = map(str, self.values)
        allowed = f"{', '.join(first)} or {last}" if first else last
        raise BadInput(f"{name} must be {allowed}, got {value!r}{near_hint(value, [*first, last]) if isinstance(value, str) else ''}")


def manifest(subject: Subject, technique_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a result, ready for JSON: technique, parameters, subject and versions."""
    known = dict(subject.provenance())
    versions = {name: _version(name) for name in ("convscope", "numpy", *known.pop("libraries", ()))} | {
        "python": platform.python_version()
    }
    return {"technique": technique_name, "parameters": dict(parameters), **known, "versions": versions}


def describe(value: Any) -> Any:
    """`value` itself if JSON can hold it, else a description: paths as text, arrays by type and shape, objects by their fields."""
    match value:
        case None | bool() | int() | float():
            return value
        case str() | os.PathLike():
            return printable(value)
        case slice():
            parts = ("" if part is None else str(part) for part in (value.start, value.stop, value.step))
            return ":".join(parts).removesuffix(":") or ":"
        case np.generic():
            return value.item()
        case Mapping():
            return {str(key): describe(item) for key, item in value.items()}
        case list() | tuple() | range():
            return [describe(item) for item in value]
        case Result():
            return {"technique": value.technique, "parameters": describe(value.manifest.get("parameters", {}))}
        case _ if callable(getattr(value, "describe", None)):
            return value.describe()
        case _ if hasattr(value, "dtype") and hasattr(value, "shape"):
            return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
        case _ if hasattr(value, "__dataclass_fields__"):
            return {name: describe(getattr(value, name)) for name in value.__dataclass_fields__}
        case _ if callable(value):
            return getattr(value, "__name__", type(value).__name__)
        case _:
            return type(value).__name__ if " at 0x" in str(value) else str(value)  # an address differs from run to run
