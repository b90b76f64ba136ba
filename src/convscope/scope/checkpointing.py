"""Gradient checkpointing without effect: what it would compute again in the backward pass is kept.

A forward pass that is truncated, edited or run faster cannot be repeated later, outside of the edit. Checkpointing saves memory in
training; values and derivatives are the same without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch.utils.checkpoint


class _Depth(threading.local):
    """How many sessions are open in this thread."""

    value = 0


_depth = _Depth()
_lock = threading.Lock()
_theirs: dict[str, Any] = {}
_users = 0
_GENERATORS = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
_FUNCTION = "CheckpointFunction"
"""What torch.utils.checkpoint.checkpoint calls, under whatever name a network has imported that."""


def keep_activations() -> Callable[[], None]:
    """From now on, in this thread, checkpointed functions are called like any other. Returns a function that ends it."""
    global _users
    with _lock:
        if not _users:
            for name in (*_GENERATORS, _FUNCTION):
                if hasattr(torch.utils.checkpoint, name):  # the first is called otherwise in older versions
                    _theirs[name] = theirs = getattr(torch.utils.checkpoint, name)
                    setattr(torch.utils.checkpoint, name, _Plain if name == _FUNCTION else partial(_around, theirs))
        _users += 1
    _depth.value += 1

    def end() -> None:
        global _users
        _depth.value -= 1
        with _lock:
            _users -= 1
            if not _users:
                for name, theirs in _theirs.items():
                    setattr(torch.utils.checkpoint, name, theirs)

    return end


def _around(theirs: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[None]:
    """What torch does before and after a checkpointed function, if it is not the reentrant kind."""
    return _nothing() if _depth.value else theirs(*args, **kwargs)


def _nothing() -> Iterator[None]:
    yield


class _Plain:
    """The reentrant kind."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args) if _depth.value else _theirs[_FUNCTION].apply(function, preserve, *args)
