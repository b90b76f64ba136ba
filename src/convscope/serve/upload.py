"""Uploaded images: limits of bytes, pixels, time and memory (`LIMITS`), and decoding in a process of its own (`decode_upload.py`)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convscope.errors import BadImage
from convscope.preprocessing import Preprocessing
from convscope.serve import decode_upload
from convscope.text import one_line

MOST_BYTES = 12 * 2**20
"""Bytes of an uploaded file."""
LIMITS = {"bytes": MOST_BYTES, "pixels": 50_000_000, "seconds": 5, "memory": 3 * 2**30}
_PATIENCE = 10.0
_AT_ONCE = 2


class Uploaded(NamedTuple):
    """An image as the network is fed it, (h w c) uint8, and width and height of the file."""

    pixels: np.ndarray
    of: tuple[int, int]


class Decoder:
    """Starts a process for every image, a few at a time."""

    def __init__(self, how: Preprocessing) -> None:
        self._how, self._free = how, asyncio.Semaphore(_AT_ONCE)
        names = ("height", "width", "interpolation", "crop", "channels")
        self._words = json.dumps({name: getattr(how, name) for name in names})

    async def __call__(self, data: bytes) -> Uploaded:
        """An image from the bytes of a file.

        Raises:
            BadImage: It is none, or takes too much time or memory.
        """
        home = str(Path(decode_upload.__file__).parents[2])
        words = sys.executable, "-I", decode_upload.__file__, home, json.dumps(LIMITS), self._words
        pipe = asyncio.subprocess.PIPE
        async with self._free:
            process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
            try:
                out, _ = await asyncio.wait_for(process.communicate(data), _PATIENCE)
            except TimeoutError:
                raise BadImage("it takes too long to decode") from None
            finally:
                if process.returncode is None:
                    process.kill()
        if process.returncode != 0:
            raise BadImage(one_line(out.decode("utf-8", "replace")[:200]) or "it takes too much memory or time to decode")
        head, _, raw = out.partition(b"\n")
        width, height = map(int, head.split())
        shape = self._how.height, self._how.width, self._how.channels
        return Uploaded(np.frombuffer(raw, np.uint8).reshape(shape), (width, height))
