"""Checks of a network as a whole: unwrapping, finite weights, weights hash, device, out of memory, frozen copies."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convscope.errors import BadInput, BadWeights

M = TypeVar("M", bound=nn.Module)


def check_tensors(model: nn.Module, name: str) -> None:
    """Raises BadWeights if a parameter or buffer has no values yet, belongs to inference mode, is sparse, or holds NaN or infinity."""
    for key, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise BadWeights(f"network {name}: {key} has no shape before the first forward; run the network once on an image, then open it")
        if tensor.is_inference():
            raise BadWeights(f"network {name}: {key} was made in torch's inference mode; make the network outside of it")
        if tensor.is_meta:
            raise BadWeights(f"network {name}: {key} is on the meta device, without values; load its weights first")
        if tensor.layout is not torch.strided:
            raise BadWeights(f"network {name}: {key} is sparse ({str(tensor.layout).removeprefix('torch.')}); convert it with .to_dense()")
    for key, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
            continue  # a sum keeps NaN and infinity and takes a tenth of the time; finite values may overflow in it
        if not bool(torch.isfinite(tensor).all()):
            raise BadWeights(f"network {name}: {key} holds NaN or infinity, so its activations are meaningless")


def weights_hash(model: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over all parameters and buffers (names, types, shapes, values) and the settings of torch's layers.

    The same on every device. With another stride or activation the same weights are another network, whose results must not be taken
    for this one's.

    It is remembered for a network as long as a faster hash over the same bytes stays the same: every result holds it, and the weights may
    have changed since the last one.
    """
    quick = xxhash.xxh3_128()
    for piece in _pieces(model):
        quick.update(piece)
    known = _HASHES.get(model)
    if known is None or known[0] != quick.digest():
        digest = hashlib.sha256()
        for piece in _pieces(model):
            digest.update(piece)
        known = _HASHES[model] = quick.digest(), digest.hexdigest()[:16]
    return known[1]


_HASHES: WeakKeyDictionary[nn.Module, tuple[bytes, str]] = WeakKeyDictionary()
"""The fast hash and the SHA-256 of networks, as they were last."""


def _pieces(model: nn.Module) -> Iterator[bytes | memoryview]:
    """The bytes that :func:`weights_hash` is over."""
    unsaved = itertools.chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(({**dict(unsaved), **model.state_dict()}).items()):
        if not isinstance(tensor, Tensor):  # a module's own extra state
            yield f"{name} {tensor!r}".encode()
            continue
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        if tensor.numel():
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    for name, module in model.named_modules():
        kind, parts = type(module), list(module.children())
        if kind.__module__.startswith("torch.nn.modules") and not parts:  # the user's own classes may be renamed
            settings = {key: vars(module).get(key) for key in getattr(kind, "__constants__", ()) if key != "inplace"}
            yield f"{name} {kind.__name__} {settings}".encode()


def unwrapped(model: object) -> nn.Module:
    """The module inside the wrappers of parallel training and compilation.

    Raises:
        BadInput: It is no module, or one whose layers cannot be hooked.
    """
    wrapped = None
    while model is not wrapped:  # wrappers may be nested
        wrapped = model
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        model = getattr(model, "_orig_mod", model)  # torch.compile: hooks do not fire inside compiled code
    if not isinstance(model, nn.Module):
        raise BadInput(f"expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise BadInput("the layers of a scripted or traced module cannot be hooked; pass the original nn.Module")
    return model


def usable_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        BadInput: No such device on this machine, or one of another kind.
    """
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise BadInput(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise BadInput(f"device {device!r} is not supported: convscope runs on cpu and cuda; use cpu")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {device!r} asked for, but this machine has no usable CUDA device")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device {device!r} asked for, but this machine has {torch.cuda.device_count()} CUDA devices, counted from 0")
    return chosen


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch means that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error) or "can't allocate memory" in str(error)


def no_derivative(layer: str) -> BadInput:
    """The error where a derivative is wanted of a layer that has none."""
    why = "something before it runs in integers, in NumPy, or without gradients"
    return BadInput(f"layer {layer}: its value does not depend differentiably on the image: {why}")


def lacks_derivative(error: RuntimeError) -> bool:
    """Whether an exception of torch means that a network leaves what torch can differentiate."""
    return any(words in str(error) for words in ("numpy() on Tensor that requires grad", "Inference tensors cannot be saved for backward"))


def frozen_copy(model: M) -> M:
    """A copy of a network for export: on the CPU, in evaluation mode, without gradients. The network itself is not changed."""
    return copy.deepcopy(model).cpu().eval().requires_grad_(False)
