"""Ambient progress: work announces itself here; whoever wants to show it installs a reporter. Silent by default."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Reporter(Protocol):
    """Shows the progress of named tasks."""

    def begin(self, description: str, total: int) -> int:
        """Starts a task of `total` steps and returns its handle."""
        ...

    def advance(self, task: int, steps: int, note: str) -> None:
        """Says that `steps` more are done; `note` is a short remark such as the current score."""
        ...

    def end(self, task: int) -> None:
        """Closes the task, finished or not."""
        ...


_reporter: ContextVar[Reporter | None] = ContextVar("convscope_progress", default=None)


@contextmanager
def reporting(reporter: Reporter | None) -> Generator[None]:
    """Within the block, progress goes to `reporter` (None: silence)."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def task(description: str, total: int) -> Generator[Callable[..., None]]:
    """Announces a task; the block calls the yielded ``advance(steps=1, note="")`` as it goes.

    Inside a task, further tasks report nothing: the outermost one is what the user waits for.
    """
    reporter = _reporter.get()
    if reporter is None:
        yield _silent
        return
    handle = reporter.begin(description, total)
    token = _reporter.set(None)

    def advance(steps: int = 1, note: str = "") -> None:
        reporter.advance(handle, steps, note)

    try:
        yield advance
    finally:
        _reporter.reset(token)
        reporter.end(handle)


def _silent(steps: int = 1, note: str = "") -> None: ...
