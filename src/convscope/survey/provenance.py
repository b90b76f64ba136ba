"""How a result read from a survey came about: the manifest that each of them carries."""

from __future__ import annotations

import functools
import inspect
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import numpy as np

from convscope.errors import BadInput, asking
from convscope.result import Result
from convscope.survey.survey import Survey

P = ParamSpec("P")
R = TypeVar("R", bound=Result)


def reader(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function whose first parameter is a survey a technique.

    Its errors carry the caller's question, and its result a manifest of every parameter and of the survey.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        survey, *_ = bound.arguments.values()
        with asking(technique=function.__name__, layer=bound.arguments.get("layer")):
            if not isinstance(survey, Survey):
                raise BadInput(f"expected a survey, as read_survey(folder) gives it, got {type(survey).__name__}")
            result = function(*args, **kwargs)
        given = {name: _describe(value) for name, value in list(bound.arguments.items())[1:]}
        return result.with_manifest(manifest(survey, function.__name__, given) | dict(result.manifest))

    return run


def manifest(survey: Survey, technique: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Technique, parameters, survey, network and versions, ready for JSON."""
    return {
        "technique": technique,
        "parameters": dict(parameters),
        "survey": {"path": survey.path, "images": survey.manifest["images"], "skipped": survey.manifest["skipped"]},
        "network": survey.manifest["network"],
        "versions": {name: version(name) for name in ("convscope", "numpy", "pyarrow", "duckdb", "scikit-learn")}
        | {"python": platform.python_version()},
    }


def _describe(value: Any) -> Any:
    """`value` itself if JSON can hold it, otherwise words: paths as text, surveys by path, results and arrays by what they are."""
    match value:
        case Survey():
            return value.path
        case Result():
            return {"technique": value.technique, "parameters": dict(value.manifest.get("parameters", {}))}
        case os.PathLike():
            return os.fspath(value)
        case np.generic():
            return value.item()
        case np.ndarray():
            return f"array {value.dtype} {value.shape}"
        case Mapping():
            return {str(key): _describe(each) for key, each in value.items()}
        case list() | tuple() | range():
            return [_describe(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)
