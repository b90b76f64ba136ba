"""The one worker that owns the network, and the queue before it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from convscope.errors import ConvscopeError
from convscope.progress import reporting, watching

MOST = 8
"""Jobs that wait or run at a time; further ones are refused."""


def unseen(_what: str, _value: Any) -> None:
    """Nobody looks at what is still being made."""


class Full(Exception):
    """As many jobs as may wait are waiting."""


class Cancelled(Exception):
    """Nobody waits for the result any more."""


class Job:
    """Work for the network.

    Attributes:
        done: Its result.
    """

    def __init__(self, work: Callable[[], Any], seen: Callable[[str, Any], None]) -> None:
        self.done: Future[Any] = Future()
        self._work, self._seen, self._cancelled = work, seen, threading.Event()

    def cancel(self) -> None:
        """Ends the work at its next step; without effect when it is done."""
        self._cancelled.set()

    def run(self) -> None:
        """Does the work, on the worker's thread."""

        def watch(what: str, value: Callable[[], Any]) -> None:
            if self._cancelled.is_set():
                raise Cancelled
            self._seen(what, value())

        try:
            if self._cancelled.is_set():
                raise Cancelled
            with watching(watch), reporting(None):
                result = self._work()
        except BaseException as error:  # whatever the network's own code raises; the worker goes on
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


class Desk:
    """Takes jobs, and does one after another."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job] = queue.Queue()
        self._lock, self._count = threading.Lock(), 0
        self._known: set[Job] = set()
        threading.Thread(target=self._run, daemon=True, name="convscope worker").start()

    def submit(self, work: Callable[[], Any], seen: Callable[[str, Any], None] = unseen) -> Job:
        """Takes a job.

        Args:
            work: What to do.
            seen: Called on the worker's thread with results that are still being made, see :func:`convscope.progress.hand_on`.

        Raises:
            Full: Too many are waiting.
        """
        job = Job(work, seen)
        with self._lock:
            if self._count >= MOST:
                raise Full
            self._count += 1
            self._known.add(job)
        self._jobs.put(job)
        return job

    @property
    def busy(self) -> int:
        """Jobs that wait or run."""
        return self._count

    def cancel_all(self) -> None:
        """Cancels every job."""
        with self._lock:
            for job in self._known:
                job.cancel()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job.run()
            finally:
                with self._lock:
                    self._count -= 1
                    self._known.discard(job)


def line_of(error: BaseException) -> str:
    """What a client is told of an error: the library's own words, nothing of the machine."""
    return error.message if isinstance(error, ConvscopeError) else f"the network fails on this ({type(error).__name__})"
