"""Class of a stored result: the one of that name in this package or process, else a new one with the same name and fields."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from convscope.results.base import Result, axes

_restored: dict[Any, type[Result]] = {}


def result_class(name: str, module: str, fields: Sequence[dict[str, Any]], extras: Sequence[str]) -> type[Result]:
    """The class that can hold a stored result.

    A class that has gained or lost fields since is not used. Where several fit, the one of the same module is taken, and of these the
    one defined last (notebooks run their cells again).

    Args:
        name: Name of the class that was saved.
        module: Where it was defined.
        fields: The array fields as the manifest declares them: name, axes, kind, unit.
        extras: Names of the plain fields.

    Raises:
        ValueError: The name is not that of a class.
    """
    _import_own(name)
    declared = {field["name"]: tuple(field["axes"]) for field in fields}
    known = [cls for cls in _subclasses(Result) if cls.__name__ == name and _holds(cls, declared, extras)]
    known.sort(key=lambda cls: cls.__module__ == module)
    return known[-1] if known else _restore(name, fields, extras)


def _import_own(name: str) -> None:
    """Imports the file of this package that defines the class of that name, if there is one; a stored name can import nothing else."""
    for module in pkgutil.iter_modules(importlib.import_module(__package__ or "").__path__):
        if module.name.replace("_", "") == name.lower():
            importlib.import_module(f"{__package__}.{module.name}")


def _subclasses(cls: type[Result]) -> Iterator[type[Result]]:
    for child in cls.__subclasses__():
        if child not in _restored.values():
            yield child
        yield from _subclasses(child)


def _holds(cls: type[Result], declared: dict[str, tuple[str, ...]], extras: Sequence[str]) -> bool:
    if not dataclasses.is_dataclass(cls):
        return False
    own = {field.name: field for field in dataclasses.fields(cls) if field.name != "manifest"}
    arrays = {name: field.metadata["axes"] for name, field in own.items() if "axes" in field.metadata}
    return arrays == declared and set(own) - set(arrays) == set(extras)


def _restore(name: str, fields: Sequence[dict[str, Any]], extras: Sequence[str]) -> type[Result]:
    if not str(name).isidentifier():
        raise ValueError(f"{name!r} is not the name of a class")
    signature = (name, tuple((field["name"], tuple(field["axes"]), field["kind"], field["unit"]) for field in fields), tuple(extras))
    if signature not in _restored:
        arrays = [(field["name"], np.ndarray, axes(" ".join(field["axes"]), field["kind"], unit=field["unit"])) for field in fields]
        plain = [(extra, Any) for extra in extras]
        options: dict[str, Any] = {"frozen": True, "eq": False, "repr": False}
        namespace = {"__doc__": f"A stored {name} whose class is not defined here: fields only, no methods."}
        _restored[signature] = dataclasses.make_dataclass(name, [*arrays, *plain], bases=(Result,), namespace=namespace, **options)
    return _restored[signature]
