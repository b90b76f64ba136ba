"""What a decoding process runs. It loads Pillow and NumPy, and neither torch nor pyarrow, so that it starts at once and has no threads."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from dataclasses import dataclass
from typing import IO

import numpy as np

from convscope.errors import BadImage
from convscope.preprocessing import covering, decode, fit

_LENGTH = struct.Struct("<q")
_NAME = "image"


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


def to_pixels(data: bytes, target: Target) -> tuple[np.ndarray, int, int]:
    """What a network is fed for an encoded picture, uint8 (h w 3), and the height and width of the original.

    Raises:
        BadImage: It cannot be decoded.
    """
    draft = covering(target.size, target.crop) if target.draft else None
    picture, (height, width) = decode(io.BytesIO(data), _NAME, draft)
    return np.asarray(fit(picture, target.size, target.interpolation, target.crop)), height, width


def serve() -> None:
    """The worker's main loop: answers until its input closes."""
    taken, given = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write into the answers
    if hasattr(os, "nice"):
        os.nice(19)  # the network comes first
    try:
        target = pickle.loads(receive(taken))
        while True:
            send(given, pickle.dumps(answer(receive(taken), target), protocol=5))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def answer(data: bytes, target: Target) -> tuple[bytes, int, int] | str:
    try:
        pixels, height, width = to_pixels(data, target)
    except BadImage as error:
        return error.message.removeprefix(f"{_NAME}: ")
    except MemoryError:
        return "too large for this machine's memory"
    return pixels.tobytes(), height, width


def send(pipe: IO[bytes] | None, data: bytes) -> None:
    if pipe is None:
        raise EOFError
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes] | None) -> bytes:
    head = pipe.read(_LENGTH.size) if pipe is not None else b""
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)  # type: ignore[union-attr]
    if len(data) < length:
        raise EOFError
    return data
