"""Puts a file's weights into a network: name, shape, type and values of all tensors are checked before the first is copied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convscope.errors import BadWeights
from convscope.zoo.weights_file import WeightsFile, read_weights

_MODULE = re.compile(r"(?:^|(?<=\.))module\.")
_MOST_CLASSES = 1_000_000
_NAMED = 3
"""How many tensors of each kind an error names."""


def load_weights(model: nn.Module, path: str | Path, name: str = "the network") -> None:
    """Loads the weights of a file into a network: all of them or, if anything is wrong, none.

    Prefixes left by DataParallel, torch.compile and training frameworks are stripped, and floating-point values are converted to the
    network's own types. ``num_batches_tracked`` may be missing.

    Args:
        model: Any network; changed in place.
        path: A .safetensors, .pth, .pt, .bin, .ckpt or .tar file; see :func:`~convscope.zoo.weights_file.read_weights`.
        name: The network's name in error messages.

    Raises:
        BadWeights: The file cannot be read or trusted, does not fit, or holds NaN or infinity.
    """
    put_weights(model, read_weights(path), name)


def put_weights(model: nn.Module, file: WeightsFile, name: str) -> None:
    """:func:`load_weights` for weights that are in memory."""
    own = _own_tensors(model, name)
    given = _renamed(file.tensors, own)
    _check_names_and_shapes(own, given, f"weights {file.source} do not fit {name}")
    ready: dict[str, Tensor] = {}
    for key, value in given.items():
        target = own[key]
        if (value.is_floating_point(), value.is_complex()) != (target.is_floating_point(), target.is_complex()):
            raise BadWeights(f"weights {file.source} do not fit {name}: {key} is {value.dtype} in the file, {target.dtype} in the network")
        ready[key] = value.to(target.dtype)
        if target.is_floating_point() and not bool(torch.isfinite(ready[key]).all()):
            cast = f" as {target.dtype}" if value.dtype != target.dtype else ""
            raise BadWeights(f"weights {file.source}: {key} {_shape(value)} holds NaN or infinity{cast}")
    with torch.no_grad():
        for key, value in ready.items():
            own[key].copy_(value)


def class_count(model: nn.Module, tensors: Mapping[str, Tensor]) -> int | None:
    """The number of classes of the weights, if the network differs from them in that number alone; otherwise None."""
    own = _own_tensors(model, "the network")
    given = _renamed(tensors, own)
    if _missing(own, given) or any(key not in own for key in given):
        return None
    differing = [(own[key].shape, value.shape) for key, value in given.items() if own[key].shape != value.shape]
    if any(len(ours) != len(theirs) or ours[1:] != theirs[1:] for ours, theirs in differing):
        return None
    counts = {(ours[0], theirs[0]) for ours, theirs in differing}
    return next(iter(counts))[1] if len(counts) == 1 and all(theirs <= _MOST_CLASSES for _, theirs in counts) else None


def _own_tensors(model: nn.Module, name: str) -> dict[str, Tensor]:
    """A network's own parameters and buffers by name, without the prefixes of parallel training and compilation."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    state = {key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    names = _plain(state)
    own = {names[key]: value for key, value in state.items()}
    for key, value in own.items():
        if is_lazy(value) or value.is_meta:
            raise BadWeights(
                f"{name}: {key} has no values yet ({'a lazy layer' if is_lazy(value) else 'meta device'}); run one forward first"
            )
    return own


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Names without the parts that compilation (``_orig_mod``) and parallel training (``module``) put into them, anywhere.

    A ``module`` stays where two names would become one.
    """
    given = {name: name.replace("_orig_mod.", "") for name in names}
    shorter = {name: _MODULE.sub("", plain) for name, plain in given.items()}
    return shorter if len(set(shorter.values())) == len(given) else given


def _renamed(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors renamed to the network's names: a prefix that all share (``model.``) is dropped if some names match then."""
    names = _plain(tensors)
    given = {names[key]: value for key, value in tensors.items()}
    if "n_averaged" not in own:
        given.pop("n_averaged", None)  # the counter of an averaged model
    stripped = given
    while stripped and not any(key in own for key in stripped):
        heads = {key.partition(".")[0] for key in stripped}
        if len(heads) != 1 or not all("." in key for key in stripped):
            return given
        stripped = {key.partition(".")[2]: value for key, value in stripped.items()}
    return stripped


def _missing(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Names of the network's tensors that are not given, without counters and tensors shared with a given one."""
    covered = {id(own[key]) for key in given if key in own}
    return [key for key in own if key not in given and id(own[key]) not in covered and not key.endswith("num_batches_tracked")]


def _check_names_and_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], complaint: str) -> None:
    missing = _missing(own, given)
    unexpected = [key for key in given if key not in own]
    misshapen = [key for key in given if key in own and given[key].shape != own[key].shape]
    faults: list[str] = []
    if missing:
        faults.append(f"{len(missing)} of {len(own)} missing ({_some(f'{key} {_shape(own[key])}' for key in missing)})")
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected ({_some(f'{key} {_shape(given[key])}' for key in unexpected)})")
    if misshapen:
        pairs = (f"{key}: file {_shape(given[key])}, network {_shape(own[key])}" for key in misshapen)
        faults.append(f"{len(misshapen)} of another shape ({_some(pairs)})")
    if faults:
        raise BadWeights(f"{complaint}: {'; '.join(faults)}")


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


def _shape(tensor: Tensor) -> str:
    return f"({' '.join(str(side) for side in tensor.shape)})"
