"""Reads files of weights without running any code in them."""

from __future__ import annotations

import logging
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from convscope.errors import BadWeights
from convscope.files import check_regular, parse_json, path_text
from convscope.text import one_line, visible

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *_PICKLES)
"""Suffixes of the files that can be read."""
WHICH = "::"
"""Between a file and the key of the weights that are meant in it."""
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which checkpoints of training programs hold the weights."""
_NAMED = 6
_MOST_MAPPINGS, _DEEPEST = 10_000, 20
"""A checkpoint with more dictionaries, or deeper ones, is not searched to its end."""
_log = logging.getLogger("convscope")


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """The weights read from a file.

    Attributes:
        source: The file's name, for error messages.
        tensors: The weights by name, on the CPU.
        classes: Names of the network's outputs, where the file tells (safetensors metadata "classes", a JSON list).
    """

    source: str
    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None


def read_weights(path: str | Path) -> WeightsFile:
    """Reads a .safetensors file, or a .pth, .pt, .bin, .ckpt or .tar file through PyTorch's weights-only loader.

    A checkpoint with its weights under ``state_dict``, ``model`` or the like is unwrapped. Where it holds several sets of weights
    (ordinary ones and their moving average, a student and its teacher), `FILE::KEY` says which: a key of the checkpoint, several with
    slashes between, a word of one (``ema`` for ``state_dict_ema``), or what the names of the tensors begin with.

    Raises:
        BadWeights: No such file, no weights in it, several sets and no key, damaged, or a pickle that would run code.
    """
    path, key = _split(path_text(path))
    try:
        check_regular(path.stat())
    except OSError as error:
        raise BadWeights(f"weights {path}: {'no such file' if isinstance(error, FileNotFoundError) else one_line(error)}") from None
    if path.suffix.lower() not in SUFFIXES:
        raise BadWeights(f"weights {path}: expected a file {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}")
    if path.suffix.lower() == ".safetensors":
        file = _read_safetensors(path)
        return replace(file, tensors=_beginning(file.tensors, key, path)) if key else file
    content = _read_pickle(path)
    tensors = _chosen(content, key, path) if key else _unwrapped(content, path)
    if not tensors:
        raise BadWeights(f"weights {path}: no tensors in it, found {_described(content)}; expected what model.state_dict() returns")
    for name, value in tensors.items():
        _check_plain(path, name, value)
    return WeightsFile(f"{path}{WHICH}{key}" if key else str(path), tensors)


def _split(text: str) -> tuple[Path, str]:
    """The file and the key of FILE::KEY; a file whose name is just that comes first."""
    if re.match(r"[a-z0-9]+:/", text):
        raise BadWeights(f"weights {text}: weights are read from local files; download it first")
    file, _, key = text.rpartition(WHICH)
    whole = Path(text).expanduser()
    return (Path(file).expanduser(), key) if file and key and not os.path.lexists(whole) else (whole, "")


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise BadWeights(f"weights {path}: not a safetensors file, or damaged ({one_line(error)})") from None
    return WeightsFile(str(path), tensors, _classes(path, metadata["classes"]) if "classes" in metadata else None)


def _classes(path: Path, text: str) -> tuple[str, ...]:
    try:
        names = parse_json(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadWeights(f"weights {path}: metadata 'classes' should be a JSON list of names, got {one_line(text, 60)}")
    return tuple(map(visible, names))


def _read_pickle(path: Path) -> Any:
    advice = "save the tensors alone, with torch.save(model.state_dict(), FILE) or as .safetensors"
    _check_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; real problems are raised as errors
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None and not _looks_pickled(path):
            raise BadWeights(f"weights {path}: not a PyTorch weights file, or damaged") from None
        other = re.search(r"Unsupported \w+ \S+", str(error))
        what = f"would run code ({named[1]})" if named else f"might run code ({other[0] if other else 'unknown instructions'})"
        raise BadWeights(f"weights {path} refused: the file holds a pickle that {what}; {advice}") from None
    except Exception as error:  # damaged files raise RuntimeError, EOFError, KeyError, UnicodeDecodeError, struct.error, ...
        if "TorchScript" in str(error):
            raise BadWeights(f"weights {path} refused: a TorchScript archive holds a program; {advice}") from None
        reason = one_line(error, 120) if isinstance(error, (RuntimeError, OSError)) else type(error).__name__
        raise BadWeights(f"weights {path}: not a PyTorch weights file, or damaged ({reason})") from None


def _check_packed(path: Path) -> None:
    """Refuses an archive that unpacks to more than it is: PyTorch's are not compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return  # PyTorch's older format, or damaged: reading it tells
    if size > path.stat().st_size:
        raise BadWeights(f"weights {path} refused: its {path.stat().st_size} bytes unpack to {size}; save it anew with torch.save")


def _looks_pickled(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


def _mappings(content: Any) -> dict[str, Mapping[Any, Any]]:
    """All mappings of a checkpoint by their keys, "ema/state_dict"; the outermost is "". Nearest first, and none is entered twice."""
    found: dict[str, Mapping[Any, Any]] = {}
    seen: set[int] = set()
    waiting = deque([("", content)])
    while waiting and len(found) < _MOST_MAPPINGS:
        name, value = waiting.popleft()
        if not isinstance(value, Mapping) or name.count("/") >= _DEEPEST:
            continue
        found[name] = value
        if id(value) not in seen:
            seen.add(id(value))
            waiting.extend((f"{name}/{key}" if name else key, each) for key, each in value.items() if isinstance(key, str))
    return found


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one inside a checkpoint; other entries (an epoch, a score) are ignored.

    What else it holds that could be meant is logged.

    Raises:
        BadWeights: There are several, and none of them is the ordinary one.
    """
    mappings = _mappings(content)
    name = ""
    while (inner := next((key for each in _WRAPPERS if (key := f"{name}/{each}" if name else each) in mappings), None)) is not None:
        name = inner
    once = {id(mapping): other for other, mapping in reversed(mappings.items()) if mapping is not mappings[name]}
    others = {other: found for other in reversed(once.values()) if (found := _tensors(mappings[other]))}
    taken = _tensors(mappings.get(name, {}))
    if not taken:
        if len(others) > 1:
            example = f"{path.name}{WHICH}{next(iter(others))}"
            raise BadWeights(f"weights {path}: holds several sets of weights ({_few(others)}); say which: {example}")
        return next(iter(others.values()), {})
    shapes = _shapes(taken)
    if alike := [other for other, found in others.items() if (shapes & _shapes(found)).total() * 2 > shapes.total()]:
        what = f"the weights under {name!r} were taken" if name else "the outermost weights were taken"
        _log.warning("weights %s: %s; it also holds %s: %s%s%s takes those", path, what, _few(alike), path.name, WHICH, alike[0])
    return taken


def _chosen(content: Any, key: str, path: Path) -> dict[str, Tensor]:
    """The tensors that a key of a checkpoint means."""
    mappings = _mappings(content)
    names = [name for name in mappings if name]
    near = [name for name in names if key.lower() in re.split(r"[^a-z0-9]+", name.lower())]
    outermost = [name for name in near if not any(name.startswith(f"{other}/") for other in near)]
    if key not in mappings and len(outermost) > 1:
        raise BadWeights(f"weights {path}: {key!r} may mean {_few(outermost)}")
    if key in mappings or outermost:
        return _unwrapped(mappings[key if key in mappings else outermost[0]], path)
    return _beginning(_unwrapped(content, path), key, path, names)


def _beginning(tensors: dict[str, Tensor], key: str, path: Path, names: Iterable[str] = ()) -> dict[str, Tensor]:
    """The tensors whose names begin with a key and a dot, without it."""
    found = {name.removeprefix(f"{key}."): value for name, value in tensors.items() if name.startswith(f"{key}.")}
    if not found:
        heads = [*names, *dict.fromkeys(name.partition(".")[0] for name in tensors)]
        raise BadWeights(f"weights {path}: nothing in it is called {key!r}; it holds {_few(heads)}")
    return found


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value.detach() for name, value in mapping.items() if isinstance(value, Tensor)}


def _shapes(tensors: Mapping[str, Tensor]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(value.shape) for value in tensors.values() if value.ndim)


def _few(names: Iterable[str]) -> str:
    listed = [name or "the outermost" for name in names]
    return ", ".join(listed[:_NAMED]) + (f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else "")


def _check_plain(path: Path, name: str, value: Tensor) -> None:
    """Refuses tensors that are not what they seem: sparse, nested or without values, or larger than the memory behind them."""
    if value.layout != torch.strided or value.is_nested or value.is_meta:
        raise BadWeights(f"weights {path}: {name} is no plain tensor (sparse, nested or without values)")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise BadWeights(f"weights {path}: {name} repeats the same values ({tuple(value.shape)} of a smaller tensor); save a plain copy")


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    keys = [str(key) for key in content]
    return f"the keys {one_line(', '.join(keys[:6]))}{', ...' if len(keys) > 6 else ''}" if keys else "an empty dict"
