"""The main loop of a decoder process. It loads Pillow and NumPy, but neither torch nor pyarrow: it starts at once and has no threads."""

from __future__ import annotations

import os
import pickle
import struct
import sys
from typing import IO

from convscope.errors import BadImage
from convscope.preprocessing import Preprocessing

_LENGTH = struct.Struct("<q")


def serve() -> None:
    """Reads encoded images from stdin and writes answers to stdout, until stdin closes."""
    taken, given = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write into the answers
    if hasattr(os, "nice"):
        os.nice(19)  # the network comes first
    try:
        preprocessing = pickle.loads(receive(taken))
        while True:
            send(given, pickle.dumps(answer(receive(taken), preprocessing), protocol=5))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def answer(data: bytes, preprocessing: Preprocessing) -> tuple[bytes, int, int] | str:
    """The network's input for an encoded image: uint8 (h w 3) as bytes, with the file's height and width; or why there is none."""
    try:
        image, (height, width) = preprocessing.decode(data)
        return preprocessing.fit(image).tobytes(), height, width
    except BadImage as error:
        return error.reason
    except MemoryError:
        return "too large for this machine's memory"


def send(pipe: IO[bytes] | None, data: bytes) -> None:
    """Writes a message: its length, then its bytes."""
    if pipe is None:
        raise EOFError
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> bytes:
    """Reads a message.

    Raises:
        EOFError: The other side has closed the pipe.
    """
    if pipe is None:
        raise EOFError
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
