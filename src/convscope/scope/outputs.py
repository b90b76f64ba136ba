"""What a module returned: the tensors in a tuple, dict, dataclass or object, and which of them is meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import BadInput

PREFERRED = ("logits", "out")
"""Names under which networks return their predictions."""
_INTEGERS = (torch.int8, torch.uint8, torch.int32)
"""Types that quantized networks compute in."""
_DEPTH = 5


def is_value(tensor: Tensor | None) -> bool:
    """Whether a tensor can be the value of a layer: (n c ...) of floating-point or quantized numbers."""
    return tensor is not None and tensor.ndim >= 2 and (tensor.is_floating_point() or tensor.is_quantized or tensor.dtype in _INTEGERS)


def floating(value: Tensor) -> Tensor:
    """A layer's value in floating point."""
    if value.is_floating_point():
        return value
    return value.dequantize() if value.is_quantized else value.float()


def version_of(value: Tensor) -> int:
    """How often a tensor was written to, as far as torch counts that."""
    return 0 if value.is_inference() else value._version


def parts_of(output: Any, path: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Tensor]]:
    """(path, tensor) of everything that was returned, in order; ``head.logits`` or ``features.0``; "" for a bare tensor."""
    if isinstance(output, Tensor):
        yield path, output
        return
    inner: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        inner = output
    elif isinstance(output, (list, tuple)):
        names: Sequence[Any] = getattr(output, "_fields", range(len(output)))
        inner = dict(zip(names, output, strict=True))
    elif dataclasses.is_dataclass(output):
        inner = {field.name: getattr(output, field.name, None) for field in dataclasses.fields(output)}
    elif not isinstance(output, (type, nn.Module)):
        slots = [vars(each).get("__slots__", ()) for each in type(output).__mro__]
        names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
        inner = {name: getattr(output, name, None) for name in (*names, *getattr(output, "__dict__", ()))}
    for name, value in inner.items() if depth else ():
        yield from parts_of(value, f"{path}.{name}" if path else str(name), depth - 1)


def tensor_in(output: Any, path: str | None = None) -> Tensor | None:
    """The first tensor in what a module returned, or the one at a path; None if there is none."""
    if isinstance(output, Tensor):
        return None if path else output
    return next((tensor for own, tensor in parts_of(output) if path is None or own == path), None)


def prediction_in(output: Any, asked: str | None) -> tuple[str, Tensor] | None:
    """Which part of a network's output is its prediction: the one asked for, else logits, out, the first matrix, or the only one there is.

    What lies further out comes first, as ``logits`` before ``auxiliary.logits``, and a matrix of floating-point numbers before whole ones.

    Returns:
        (path, tensor); None if nothing fits.

    Raises:
        BadInput: There is no part of the name asked for.
    """
    found = [(path, tensor) for path, tensor in parts_of(output) if is_value(tensor)]
    if asked is not None:
        named = [(path, tensor) for path, tensor in found if path and f"{path}.".startswith(f"{asked}.")]
        if not named:
            raise BadInput(f"output={asked!r}: the network returned {described(output)}")
        return named[0]
    found.sort(key=lambda part: (part[0].count("."), not part[1].is_floating_point()))
    for name in PREFERRED:
        for path, tensor in found:
            if name in path.split("."):
                return path, tensor
    matrices = [(path, tensor) for path, tensor in found if tensor.ndim == 2]
    return matrices[0] if matrices else found[0] if len(found) == 1 else None


def described(output: Any) -> str:
    """What a network returned, on one line: types and shapes."""
    parts = [f"{path or 'a tensor'} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for path, tensor in parts_of(output)]
    if isinstance(output, Tensor):
        return parts[0]
    more = [f"and {len(parts) - 8} more"] if len(parts) > 8 else []
    return f"{type(output).__name__}: {', '.join(parts[:8] + more) or 'no tensor'}"
