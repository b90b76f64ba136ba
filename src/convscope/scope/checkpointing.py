"""Gradient checkpointing without effect: what it would compute again in the backward pass is kept.

A forward pass that is truncated, edited or run faster cannot be repeated later, outside of the edit. Checkpointing saves memory in
training; values and derivatives are the same without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch.utils.checkpoint


class _Depth(threading.local):
    """How many sessions are open in this thread."""

    value = 0


_depth = _Depth()
_lock = threading.Lock()
_replaced: dict[str, Any] = {}
_users = 0


def keep_activations() -> Callable[[], None]:
    """From now on, in this thread, checkpointed functions are called like any other. Returns a function that ends it."""
    global _users
    with _lock:
        if not _users:
            for name, ours in (("_checkpoint_without_reentrant_generator", _plainly), ("CheckpointFunction", _Plain)):
                _replaced[name] = getattr(torch.utils.checkpoint, name)
                setattr(torch.utils.checkpoint, name, ours)
        _users += 1
    _depth.value += 1

    def end() -> None:
        global _users
        _depth.value -= 1
        with _lock:
            _users -= 1
            if not _users:
                for name, theirs in _replaced.items():
                    setattr(torch.utils.checkpoint, name, theirs)

    return end


def _plainly(*args: Any, **kwargs: Any) -> Iterator[None]:
    """What torch does before and after the function of a checkpoint without reentrance."""
    return iter([None]) if _depth.value else _replaced["_checkpoint_without_reentrant_generator"](*args, **kwargs)


class _Plain:
    """The reentrant kind."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args) if _depth.value else _replaced["CheckpointFunction"].apply(function, preserve, *args)
