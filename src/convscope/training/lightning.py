"""A watcher as a callback of Lightning, which need not be installed for anything else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from convscope.errors import NotInstalled

_HOMES = ("lightning.pytorch", "pytorch_lightning")
"""The packages that have a trainer; their callbacks are classes of their own."""


def callback(step: Callable[[int], Any], finish: Callable[[], Any]) -> Any:
    """A callback that calls `step` with the trainer's number of optimizer steps after every batch, and `finish` at the end.

    Raises:
        NotInstalled: Lightning is not installed.
    """

    def on_train_batch_end(_self: Any, trainer: Any, *_: Any) -> None:
        step(int(trainer.global_step))

    def on_train_end(_self: Any, *_: Any) -> None:
        finish()

    hooks = {"on_train_batch_end": on_train_batch_end, "on_train_end": on_train_end}
    return type("WatchCallback", (_base(),), hooks)()


def _base() -> Any:
    """The class of callbacks: of the package that the program has loaded, else of one that is installed."""
    for home in sorted(_HOMES, key=lambda name: name not in sys.modules):
        try:
            return import_module(home).Callback
        except ImportError:
            continue
    raise NotInstalled("a callback for Lightning needs lightning", "lightning")
