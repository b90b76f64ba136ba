"""Decoding in worker processes: bytes in, 8-bit RGB of the network's size out, in order, a bounded number ahead.

A worker is a plain subprocess that knows Pillow and no torch: it starts in a fraction of a second, needs no guard in the caller's script,
forks nothing, ends when its pipe closes (also when the parent is killed), and a file that crashes the decoder costs that worker and is
skipped, not the scan.
"""

from __future__ import annotations

import os
import pickle
import posixpath
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.errors import BadImage
from convscope.preprocessing import SUFFIXES
from convscope.scanner.decoder import Target, answer, receive, send
from convscope.scanner.sources import Source, read_bytes

_START = "import sys; sys.path[:] = {path!r}; from convscope.scanner.decoder import serve; serve()"


@dataclass(frozen=True)
class Decoded:
    """A picture, or why there is none.

    Attributes:
        source: Where it comes from.
        pixels: uint8 (h w 3); None if it was skipped.
        height, width: Of the file, upright.
        reason: Why it was skipped.
    """

    source: Source
    pixels: np.ndarray | None = None
    height: int = 0
    width: int = 0
    reason: str = ""


class Decoders:
    """Worker processes that decode. Use within :func:`decoders`."""

    def __init__(self, count: int, target: Target) -> None:
        self.target = target
        self.ahead = 4 * max(1, count)
        self._here = threading.local()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(max(1, count), thread_name_prefix="convscope-decode")
        self._in_process = count == 0

    def stream(self, sources: Iterable[Source], ahead: int) -> Iterator[Decoded]:
        """The pictures of sources, in order; at most `ahead` are decoded before they are asked for."""
        waiting: deque[Future[Decoded]] = deque()
        try:
            for source in sources:
                waiting.append(self._threads.submit(self._one, source))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Ends the workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            _end(worker)
        self._threads.shutdown(wait=True)

    def _one(self, source: Source) -> Decoded:
        if posixpath.splitext(source.name)[1].lower() not in SUFFIXES:
            return Decoded(source, reason="not an image file by its name")
        try:
            data = read_bytes(source)
            told = answer(data, self.target) if self._in_process else self._ask(data)
        except BadImage as error:
            return Decoded(source, reason=error.message)
        if isinstance(told, str):
            return Decoded(source, reason=told)
        pixels, height, width = told
        return Decoded(source, np.frombuffer(pixels, np.uint8).reshape(*self.target.size, 3), height, width)

    def _ask(self, data: bytes) -> Any:
        worker: subprocess.Popen[bytes] | None = getattr(self._here, "worker", None)
        if worker is None:
            worker = self._here.worker = self._start()
        try:
            send(worker.stdin, data)
            return pickle.loads(receive(worker.stdout))
        except (OSError, EOFError, ValueError):  # the worker died over it
            self._here.worker = None
            code = worker.wait()
            _end(worker)
            return f"the decoder crashed over it (exit code {code})"

    def _start(self) -> subprocess.Popen[bytes]:
        code = _START.format(path=sys.path)
        worker = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        )
        self._workers.append(worker)
        send(worker.stdin, pickle.dumps(self.target))
        return worker


@contextmanager
def decoders(count: int, target: Target) -> Generator[Decoders]:
    """Within the block, `count` worker processes decode for one target; 0: a thread of this process does."""
    made = Decoders(count, target)
    try:
        yield made
    finally:
        made.close()


def _end(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    worker.kill()
    worker.wait()
