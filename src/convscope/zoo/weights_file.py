"""Reads files of weights without running any code in them."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from convscope.errors import BadWeights

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *_PICKLES)
"""Suffixes of the files that can be read."""
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which checkpoints of training programs hold the weights."""


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

    A checkpoint with its weights under ``state_dict``, ``model`` or the like is unwrapped.

    Raises:
        BadWeights: No such file, no weights in it, damaged, or a pickle that would run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadWeights(f"weights {path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    if path.suffix not in SUFFIXES:
        raise BadWeights(f"weights {path}: expected a file {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _read_pickle(path)
    tensors = _tensors(content)
    if not tensors:
        raise BadWeights(f"weights {path}: no tensors in it, found {_described(content)}; expected what model.state_dict() returns")
    return WeightsFile(str(path), tensors)


def one_line(error: object, limit: int = 200) -> str:
    """An error's message on one line, or its type if the message is empty."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


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
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadWeights(f"weights {path}: metadata 'classes' should be a JSON list of names, got {one_line(text, 60)}")
    return tuple(names)


def _read_pickle(path: Path) -> Any:
    advice = "save the tensors alone, with torch.save(model.state_dict(), FILE) or as .safetensors"
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


def _looks_pickled(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one inside a checkpoint; other entries (an epoch, a score) are ignored."""
    while isinstance(content, Mapping) and (inner := next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)):
        content = inner
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    keys = [str(key) for key in content]
    return f"the keys {one_line(', '.join(keys[:6]))}{', ...' if len(keys) > 6 else ''}" if keys else "an empty dict"
