"""The manifest of a result: technique, parameters, what was examined, versions. One decorator for every technique."""

from __future__ import annotations

import functools
import inspect
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar

import numpy as np

from convscope.errors import BadInput, asking
from convscope.results.base import Result

P = ParamSpec("P")
R = TypeVar("R", bound=Result)

SUBJECTS = {
    "scope": "a scope, as convscope.open(name) or convscope.Scope(model) gives it",
    "survey": "a survey, as convscope.read_survey(folder) gives it",
    "detector": "a detector, as convscope.detector(survey, layer) gives it",
}
"""What a technique's first parameter may be, by its name."""


class Subject(Protocol):
    """What a technique is asked of: a scope, a survey or a detector."""

    subject: ClassVar[str]
    """The name of the parameter that takes it: a key of :data:`SUBJECTS`."""

    def provenance(self) -> Mapping[str, Any]:
        """What a manifest says of it, and the versions of the libraries that it depends on."""
        ...

    def entered(self) -> AbstractContextManager[Any]:
        """The state in which a technique works with it."""
        ...


def technique(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function a technique: its errors carry the caller's question, and its result a manifest of every parameter.

    The first parameter is the subject, and its name says which kind. Parameters that JSON cannot hold (images) are described instead.

    Raises:
        BadInput: The first argument is something else.
    """
    signature = inspect.signature(function)
    first, *others = signature.parameters
    order = ", ".join([first, *(name for name in others if signature.parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY)])

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}({order}): {error}") from None
        bound.apply_defaults()
        subject: Any = bound.arguments[first]
        if getattr(subject, "subject", None) != first:
            raise BadInput(f"{function.__name__}({order}): {first} must be {SUBJECTS[first]}, got {type(subject).__name__}")
        with asking(technique=function.__name__, layer=bound.arguments.get("layer")), subject.entered():
            result = function(*args, **kwargs)
        given = {name: describe(value) for name, value in list(bound.arguments.items())[1:]}
        return result.with_manifest(manifest(subject, function.__name__, given) | dict(result.manifest))

    return run


def manifest(subject: Subject, technique_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Technique, parameters, subject and versions, ready for JSON."""
    known = dict(subject.provenance())
    versions = {name: version(name) for name in ("convscope", "numpy", *known.pop("libraries", ()))} | {"python": platform.python_version()}
    return {"technique": technique_name, "parameters": dict(parameters), **known, "versions": versions}


def describe(value: Any) -> Any:
    """`value` itself if JSON can hold it, otherwise words: paths as text, tensors and arrays by type and shape, objects by their fields."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case os.PathLike():
            return os.fspath(value)
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
        case _:
            return str(value)
