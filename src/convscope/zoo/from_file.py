"""Networks from a user's own file: ``path/to/file.py:function``."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convscope.errors import BadInput, ConvscopeError
from convscope.names import near_hint
from convscope.scope import Inputs, Scope
from convscope.text import one_line
from convscope.zoo.loaded import PRETRAINED, Loaded
from convscope.zoo.weights import load_weights

_log = logging.getLogger("convscope")
_LIBRARIES = (Path(__file__).resolve().parents[1], Path(ast.__file__).parent)
"""Folders of convscope and of the standard library."""


def is_file_name(name: str) -> bool:
    """Whether a name is of the form ``path/to/file.py:function``, or lacks only the function."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def load_file(name: str, weights: str | Path | None) -> Loaded:
    """Loads the network that a function in a user's file returns, as it is or with the weights of a file.

    The function is called without arguments and returns a module, ``(module, Inputs)`` or a Scope. Files next to it can be imported. Where
    it draws random numbers and no weights are given, it is called once more, with another seed: tensors that differ are random, and said.

    Raises:
        BadInput: No such file or function, an error inside it, or a return value that is no network.
        BadWeights: The weights cannot be read, or do not fit.
    """
    path, function = _split(name)
    with _errors_of(path), _importable(path.parent):
        module, before = _imported(path), torch.get_rng_state()
        made = _made(module, path, function)
        loaded = _checked(made, f"{path}:{function}")
        if weights == PRETRAINED and not torch.equal(before, torch.get_rng_state()):
            _say_random(name, loaded.model, lambda: _made(module, path, function))
    if weights is not None and weights != PRETRAINED:
        load_weights(loaded.model, weights, name)
    return loaded


def _say_random(name: str, model: nn.Module, make: Callable[[], Any]) -> None:
    """Says which weights of a network are random, if another seed gives others."""
    torch.default_generator.manual_seed(1)
    try:
        again = make()
    except Exception:  # a function that can be called only once
        return
    other = again[0] if isinstance(again, tuple) else again.model if isinstance(again, Scope) else again
    weights, others = (
        {key: one.detach() for key, one in each.named_parameters() if not isinstance(one, nn.UninitializedParameter)}
        for each in (model, other)
    )
    found = [key for key, one in weights.items() if key in others and not torch.equal(one, others[key])]
    if found:
        share = sum(weights[key].numel() for key in found) / sum(one.numel() for one in weights.values())
        which = "its weights are random" if share > 0.5 else f"weights are random: {', '.join(found[:3])}{' and others' * (len(found) > 3)}"
        _log.warning("%s: %s, others at each seed; give those of your training by --weights (in Python, weights=)", name, which)


def named_in(name: str) -> Any:
    """What ``path/to/file.py:name`` names: a value that the file defines, or a function whose errors are BadInput with file and line.

    Raises:
        BadInput: No such file or name, or an error while the file is run.
    """
    path, attribute = _split(name)
    with _errors_of(path), _importable(path.parent):
        found = getattr(_imported(path), attribute, None)
    if found is None:
        raise BadInput(f"{path} has no function {attribute!r}{near_hint(attribute, _defined(path)) or _listed(_defined(path))}")
    if not inspect.isfunction(found):
        return found

    @functools.wraps(found)
    def call(*given: Any, **options: Any) -> Any:
        with _errors_of(path), _importable(path.parent):
            return found(*given, **options)

    return call


def _split(name: str) -> tuple[Path, str]:
    file, function = (name, "") if name.endswith(".py") else (name.rpartition(":")[0], name.rpartition(":")[2])
    path = Path(file).expanduser()
    if not path.is_file():
        siblings = near_hint(path.name, (other.name for other in path.parent.glob("*.py"))) if path.parent.is_dir() else ""
        raise BadInput(f"{path}: no such file{siblings}")
    if not function:
        defined = _defined(path)
        raise BadInput(f"{name}: say which function is meant: {file}:NAME{', with NAME one of ' + ', '.join(defined) if defined else ''}")
    return path.resolve(), function


def _defined(path: Path) -> list[str]:
    """The public functions and classes at the top of a file, found without running it."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return []
    return [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]


def _imported(path: Path) -> ModuleType:
    """Runs the file as a module of its own, afresh at each call."""
    private = f"_convscope_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module  # dataclasses and pickle look their module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
    return module


def _made(module: ModuleType, path: Path, function: str) -> Any:
    made = getattr(module, function, None)
    if made is None:
        raise BadInput(f"{path} has no function {function!r}{near_hint(function, _defined(path)) or _listed(_defined(path))}")
    if isinstance(made, (nn.Module, Scope, tuple)):
        return made
    if not callable(made):
        raise BadInput(f"{path}: {function} is of type {type(made).__name__}, not a function")
    try:
        inspect.signature(made).bind()
    except TypeError as error:
        line = getattr(getattr(made, "__code__", None), "co_firstlineno", 1)
        raise BadInput(f"{path}:{line}: {function} is called without arguments, but has a {error}") from None
    except ValueError:  # a signature that cannot be known beforehand
        pass
    return made()


def _listed(defined: list[str]) -> str:
    return f"; it has {', '.join(defined)}" if defined else "; it defines none"


def _checked(made: Any, origin: str) -> Loaded:
    if isinstance(made, Scope):
        return Loaded(made.model, made.inputs, precision=made.precision, fast=made.fast, output=made.output)
    if isinstance(made, nn.Module):
        _log.warning(
            "%s: assuming RGB in [0,1], 224 px, no normalization; to say otherwise: return (model, convscope.Inputs(224, MEAN, STD, "
            "crop=0.875)), where 0.875 means resize 256, crop 224",
            origin,
        )
        return Loaded(made, Inputs())
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and isinstance(made[1], Inputs):
        return Loaded(made[0], made[1])
    got = f"({', '.join(type(part).__name__ for part in made)})" if isinstance(made, tuple) else type(made).__name__
    raise BadInput(f"{origin} returned {got}; expected an nn.Module, (nn.Module, convscope.Inputs) or a convscope.Scope")


@contextmanager
def _importable(folder: Path) -> Generator[None]:
    """Within the block, modules of a folder can be imported. Loaded modules of the same name are hidden, and restored afterwards."""
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    hidden = {key: module for key, module in sys.modules.items() if key.partition(".")[0] in names and _is_users(module, folder)}
    for key in hidden:
        del sys.modules[key]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        sys.modules.update(hidden)


def _is_users(module: ModuleType | None, but_not_in: Path) -> bool:
    """Whether a module is the user's own and from another folder."""
    file = getattr(module, "__file__", None)
    return file is not None and _users_own(Path(file)) and but_not_in not in Path(file).resolve().parents


def _users_own(file: Path) -> bool:
    """Whether a source file belongs to neither an installed package, the standard library nor convscope."""
    return not any(library in file.parents for library in _LIBRARIES) and "site-packages" not in file.parts


@contextmanager
def _errors_of(path: Path) -> Generator[None]:
    """Turns any exception of a user's code into a one-line BadInput with file and line number."""
    try:
        yield
    except (Exception, SystemExit) as error:
        place = _place(error, path.parent)
        if isinstance(error, ConvscopeError):
            if place is None:  # raised here, about the file
                raise
            raise type(error)(f"{place}: {error.message}") from error
        reason = error.msg if isinstance(error, SyntaxError) else one_line(error)
        raise BadInput(f"{place or path}: {type(error).__name__}{'' if reason == type(error).__name__ else f': {reason}'}") from error


def _place(error: BaseException, folder: Path) -> str | None:
    """File and line of the innermost frame of an exception that is in the user's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [f"{file}:{line}" for file, line in frames if folder in file.parents and _users_own(file)]
    return own[-1] if own else None
