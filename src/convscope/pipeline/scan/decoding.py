"""Decoding in worker processes: bytes in, 8-bit RGB of the network's size out, in order, a bounded number ahead.

A worker is a plain subprocess that knows Pillow and no torch: it starts in a fraction of a second, needs no guard in the caller's script,
forks nothing, ends when its pipe closes (also when the parent is killed), and a file that crashes the decoder costs that worker and is
skipped, not the scan.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from convscope.errors import BadImage
from convscope.pictures import SUFFIXES, covering, decode, fit
from convscope.pipeline.scan.sources import Source, read_bytes

_START = "import sys; sys.path[:] = {path!r}; from convscope.pipeline.scan.decoding import serve; serve()"
_LENGTH = struct.Struct("<q")


@dataclass(frozen=True)
class Target:
    """What pictures are made into; as :class:`~convscope.Inputs`.

    Attributes:
        size: (height, width).
        interpolation, crop: How they are resized.
        draft: Whether large JPEGs may be decoded at a fraction of their size.
    """

    size: tuple[int, int]
    interpolation: str
    crop: float | None
    draft: bool


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


def to_pixels(data: bytes, target: Target) -> tuple[np.ndarray, int, int]:
    """What a network is fed for an encoded picture, uint8 (h w 3), and the height and width of the original.

    Raises:
        BadImage: It cannot be decoded.
    """
    draft = covering(target.size, target.crop) if target.draft else None
    picture, (height, width) = decode(io.BytesIO(data), _NAME, draft)
    return np.asarray(fit(picture, target.size, target.interpolation, target.crop)), height, width


_NAME = "image"


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
        if os.path.splitext(source.name)[1].lower() not in SUFFIXES:
            return Decoded(source, reason="not an image file by its name")
        try:
            data = read_bytes(source)
            answer = _answer(data, self.target) if self._in_process else self._ask(data)
        except BadImage as error:
            return Decoded(source, reason=error.message)
        if isinstance(answer, str):
            return Decoded(source, reason=answer)
        pixels, height, width = answer
        return Decoded(source, np.frombuffer(pixels, np.uint8).reshape(*self.target.size, 3), height, width)

    def _ask(self, data: bytes) -> Any:
        worker: subprocess.Popen[bytes] | None = getattr(self._here, "worker", None)
        if worker is None:
            worker = self._here.worker = self._start()
        try:
            _send(worker.stdin, data)
            return pickle.loads(_receive(worker.stdout))
        except (OSError, EOFError, ValueError):  # the worker died over it
            self._here.worker = None
            code = worker.wait()
            _end(worker)
            return f"the decoder crashed over it (exit code {code})"

    def _start(self) -> subprocess.Popen[bytes]:
        code = _START.format(path=sys.path)
        worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._workers.append(worker)
        _send(worker.stdin, pickle.dumps(self.target))
        return worker


@contextmanager
def decoders(count: int, target: Target) -> Generator[Decoders]:
    """Within the block, `count` worker processes decode for one target; 0: a thread of this process does."""
    made = Decoders(count, target)
    try:
        yield made
    finally:
        made.close()


def serve() -> None:
    """The worker's main loop: answers until its input closes."""
    taken, given = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write into the answers
    if hasattr(os, "nice"):
        os.nice(5)  # the network comes first
    try:
        target = pickle.loads(_receive(taken))
        while True:
            _send(given, pickle.dumps(_answer(_receive(taken), target), protocol=5))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _answer(data: bytes, target: Target) -> tuple[bytes, int, int] | str:
    try:
        pixels, height, width = to_pixels(data, target)
    except BadImage as error:
        return error.message.removeprefix(f"{_NAME}: ")
    except MemoryError:
        return "too large for this machine's memory"
    return pixels.tobytes(), height, width


def _send(pipe: IO[bytes] | None, data: bytes) -> None:
    if pipe is None:
        raise EOFError
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> bytes:
    head = pipe.read(_LENGTH.size) if pipe is not None else b""
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)  # type: ignore[union-attr]
    if len(data) < length:
        raise EOFError
    return data


def _end(worker: subprocess.Popen[bytes]) -> None:
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass
    worker.kill()
    worker.wait()
