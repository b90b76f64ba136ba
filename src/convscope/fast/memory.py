"""Large tensors without page faults: on Linux, freed memory is kept for the next pass instead of being given back to the system.

Every pass allocates and frees the same few large tensors. glibc maps each one above 32 MB afresh, and the system clears every page of it:
measured on vgg16_bn (features.7, 408 px, 2 cores), this took half of the time in float32 and more than half in bfloat16.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_DEFAULTS = ((_MMAP_MAX, 65536), (_TRIM_THRESHOLD, 128 * 1024), (_TOP_PAD, 0))
_KEEPING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
_T = TypeVar("_T")
_lock = threading.Lock()
_holders = 0


@contextmanager
def kept_memory() -> Generator[None]:
    """Within the block, freed memory stays with the process; afterwards it is given back. Does nothing where there is no glibc."""
    global _holders
    libc = _glibc()
    if libc is None:
        yield
        return
    with _lock:
        _holders += 1
        _set(libc, _KEEPING)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _set(libc, _DEFAULTS)
                libc.malloc_trim(0)


def resident() -> int:
    """Bytes of memory that the process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def give_back_beyond(most: int) -> None:
    """Gives freed memory back to the system if the process holds more than so many bytes: what was cut in pieces of one size does not
    always serve for those of another, and would pile up."""
    libc = _glibc()
    if libc is not None and resident() > most:
        libc.malloc_trim(0)


def without_piling_up(parts: Iterable[_T]) -> Iterator[_T]:
    """Passes on the results of like pieces of work as they come; memory beyond a tenth more than after the first is given back."""
    give_back_beyond(0)  # pieces of other sizes
    most = 0
    for part in parts:
        most = most or int(1.1 * resident())
        give_back_beyond(most)
        yield part


def _set(libc: ctypes.CDLL, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        libc.mallopt(option, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
