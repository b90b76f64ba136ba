"""How a result came about: the manifest that every technique's result and every picture's receipt carries."""

from __future__ import annotations

import functools
import inspect
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from convscope.errors import asking
from convscope.result import Result
from convscope.scope.precision import own_modes
from convscope.scope.scope import Scope

P = ParamSpec("P")
R = TypeVar("R", bound=Result)


def technique(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function a technique: its errors carry the caller's question, and its result a manifest of every parameter.

    The first parameter is the scope. Parameters that JSON cannot hold (images) are described instead.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        scope, *_ = bound.arguments.values()
        with asking(technique=function.__name__, layer=bound.arguments.get("layer")), ExitStack() as stack:
            if isinstance(scope, Scope):
                stack.enter_context(own_modes(scope.device))
            result = function(*args, **kwargs)
        if not isinstance(scope, Scope):
            return result
        given = {name: describe(value) for name, value in list(bound.arguments.items())[1:]}
        return result.with_manifest(manifest(scope, function.__name__, given) | dict(result.manifest))

    return run


def manifest(scope: Scope, technique_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Technique, parameters, network, device, precision and versions, ready for JSON."""
    return {
        "technique": technique_name,
        "parameters": dict(parameters),
        **scope.manifest(),
        "precision": scope.precision,
        "versions": {name: version(name) for name in ("convscope", "torch", "torchvision", "numpy")}
        | {"python": platform.python_version()},
    }


def describe(value: Any) -> Any:
    """`value` itself if JSON can hold it, otherwise words: paths as text, tensors and arrays by type and shape."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, slice):
        return f"{value.start if value.start is not None else ''}:{value.stop if value.stop is not None else ''}:{value.step or ''}".rstrip(
            ":"
        )
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    if isinstance(value, (list, tuple, range)):
        return [describe(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: describe(getattr(value, name)) for name in value.__dataclass_fields__}
    return item() if callable(item := getattr(value, "item", None)) else repr(value)
