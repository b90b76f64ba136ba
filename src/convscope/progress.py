"""Ambient progress: work announces itself here; whoever wants to show it installs a reporter.

On a terminal and in notebooks a line on standard error is shown, anywhere else nothing; :func:`show` turns that line on or off.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


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


_reporter: ContextVar[Reporter | None] = ContextVar("convscope_progress")
"""None: silence. Not set: what :func:`show` has said."""
_shown: list[bool] = []
"""What :func:`show` was told last."""


def show(on: bool = True) -> None:
    """Shows progress as a line on standard error from here on, in pipes and files too; ``on=False``: never, not even on a terminal.

    Without it, progress is shown on a terminal and in notebooks.

    Example:
        >>> import convscope as cs
        >>> cs.progress.show()
        >>> cs.progress.show(False)
    """
    _shown[:] = [on]


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
    reporter = _reporter.get(_Line() if (_shown[-1] if _shown else _in_notebook() or _on_terminal()) else None)
    if reporter is None:
        yield _silent
        return
    handle = reporter.begin(description, total)
    token = _reporter.set(None)

    left = total

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal left
        taken = max(0, min(steps, left))  # what is tried again takes longer than was said
        left -= taken
        reporter.advance(handle, taken, note)

    try:
        yield advance
    finally:
        _reporter.reset(token)
        reporter.end(handle)


def _silent(steps: int = 1, note: str = "") -> None: ...


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _on_terminal() -> bool:
    """Whether standard error is a terminal that can write over a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"  # pyright: ignore[reportUnnecessaryComparison] (None without a console)


class _Line:
    """A line that is written over, at most twice a second, and gone at the end."""

    EVERY = 0.5

    def begin(self, description: str, total: int) -> int:
        self.description, self.total, self.done = description, total, 0
        self.started = self.said = time.monotonic()
        self.width = 0
        return 0

    def advance(self, task: int, steps: int, note: str) -> None:  # noqa: ARG002 - there is one task at a time
        self.done += steps
        now = time.monotonic()
        if now - self.said < self.EVERY or not 0 < self.done < self.total:
            return
        self.said = now
        left = (self.total - self.done) * (now - self.started) / self.done
        self._write(f"{self.description}: {100 * self.done // self.total} %, {left:.0f} s left{'  ' if note else ''}{note}")

    def end(self, task: int) -> None:  # noqa: ARG002
        if self.width:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _write(self, line: str) -> None:
        line = "".join(sign if sign.isprintable() else " " for sign in line)[: _room()]
        sys.stderr.write(f"\r{line.ljust(self.width)}")
        sys.stderr.flush()
        self.width = len(line)


def _room() -> int:
    """Longest line: a wrapped one could not be written over."""
    try:
        return min(120, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
    except (OSError, ValueError):
        return 120


_watcher: ContextVar[Callable[[str, Callable[[], Any]], None] | None] = ContextVar("convscope_watcher", default=None)


@contextmanager
def watching(watcher: Callable[[str, Callable[[], Any]], None]) -> Generator[None]:
    """Within the block, results that are still being made go to `watcher`: what they are, and a function that returns them.

    What the watcher raises ends the work.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def watched() -> bool:
    """Whether someone watches, so that parts of a result are wanted soon."""
    return _watcher.get() is not None


def hand_on(what: str, value: Callable[[], Any]) -> None:
    """Hands on a result that is still being made, if someone watches; `value` is called only then."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(what, value)
