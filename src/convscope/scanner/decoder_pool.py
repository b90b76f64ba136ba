"""Decoding in worker processes: encoded bytes in, 8-bit RGB of the network's size out, in order, a bounded number ahead.

A worker is a plain subprocess that loads Pillow and no torch. It starts in a fraction of a second, needs no guard in the caller's script,
forks nothing, and ends when its pipe closes (also when the parent is killed). A file that crashes the decoder ends that worker only: the
image is skipped, and the scan goes on with a new worker.
"""

from __future__ import annotations

import os
import pickle
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
from convscope.image_files import Source, is_image
from convscope.preprocessing import Preprocessing
from convscope.scanner.decoder_process import answer, receive, send

_START = "import sys; sys.path[:] = {path!r}; from convscope.scanner.decoder_process import serve; serve()"


@dataclass(frozen=True)
class Decoded:
    """A decoded image, or why there is none.

    Attributes:
        source: The image's file.
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
    """Worker processes that decode images. Use within :func:`decoders`."""

    def __init__(self, count: int, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.ahead = 4 * max(1, count)
        self._here = threading.local()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(max(1, count), thread_name_prefix="convscope-decode")
        self._in_process = count == 0

    def stream(self, sources: Iterable[Source], ahead: int) -> Iterator[Decoded]:
        """The images of sources, in order; at most `ahead` are decoded before they are asked for."""
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
        if not source.reason and not is_image(source.name):
            return Decoded(source, reason="not an image file by its name")
        try:
            data = source.read()
            told = answer(data, self.preprocessing) if self._in_process else self._ask(data)
        except BadImage as error:
            return Decoded(source, reason=error.reason)
        if isinstance(told, str):
            return Decoded(source, reason=told)
        pixels, height, width = told
        return Decoded(
            source, np.frombuffer(pixels, np.uint8).reshape(self.preprocessing.height, self.preprocessing.width, -1), height, width
        )

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
        send(worker.stdin, pickle.dumps(self.preprocessing))
        return worker


@contextmanager
def decoders(count: int, preprocessing: Preprocessing) -> Generator[Decoders]:
    """Within the block, `count` worker processes decode images; with 0, a thread of this process does."""
    made = Decoders(count, preprocessing)
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
