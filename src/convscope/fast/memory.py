"""Large tensors on Linux: freed memory is reused by the next forward or backward instead of being returned to the system.

Every pass allocates and frees the same few large tensors. glibc maps each one above 32 MiB anew, and the kernel clears every page of it:
measured on vgg16_bn (features.7, 408 px, 2 cores), this took half of the time in float32 and more than half in bfloat16.

What it does to the process: while a technique runs, glibc's allocator is set (mallopt) for the whole process to map nothing and to trim
nothing. These settings cannot be read back, so they cannot be restored to what they were. Afterwards they are what glibc's own adaptation
reaches in a process that frees large tensors: allocations from 32 MiB on are mapped, up to 64 MiB of freed memory is held, 128 KiB of
padding; glibc adapts them no further. Nothing is touched where the environment has one of these settings (``MALLOC_TRIM_THRESHOLD_``,
``MALLOC_TOP_PAD_``, ``MALLOC_MMAP_THRESHOLD_``, ``MALLOC_MMAP_MAX_``, or their names in ``GLIBC_TUNABLES``), where the C library is
another one, and where `fast` is off (``CONVSCOPE_FAST=0``), as it should be in a program that calls mallopt itself.
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

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # of mallopt(3)
_REUSING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
_AFTERWARDS = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 * 2**20), (_TRIM_THRESHOLD, 64 * 2**20), (_TOP_PAD, 128 * 2**10))
_SETTINGS = ("trim_threshold", "top_pad", "mmap_threshold", "mmap_max")
_T = TypeVar("_T")
_lock = threading.Lock()
_holders = 0


@contextmanager
def reusing_memory(on: bool = True) -> Generator[None]:
    """Within the block, freed memory stays with the process; afterwards it is returned to the system. See the module for the settings.

    Args:
        on: A scope's `fast`; with False nothing is done.
    """
    global _holders
    libc = _allocator() if on else None
    if libc is None:
        yield
        return
    with _lock:
        _holders += 1
        _set(libc, _REUSING)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _set(libc, _AFTERWARDS)
                libc.malloc_trim(0)


def resident() -> int:
    """Bytes of physical memory in use by the process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def trim_heap(beyond: int) -> None:
    """Returns freed memory to the system if the process uses more than `beyond` bytes.

    Blocks cut for tensors of one size do not always fit another, so that freed memory can pile up.
    """
    libc = _allocator()
    if libc is not None and resident() > beyond:
        libc.malloc_trim(0)


def trimming_heap(results: Iterable[_T], on: bool = True) -> Iterator[_T]:
    """Yields each result; trims the heap when memory exceeds 110 % of its level after the first.

    Args:
        results: Of like pieces of work, computed one by one.
        on: A scope's `fast`; with False the heap is left alone.
    """
    if not on:
        yield from results
        return
    trim_heap(0)  # the work before had other sizes
    limit = 0
    for result in results:
        limit = limit or int(1.1 * resident())
        trim_heap(limit)
        yield result


def _set(libc: ctypes.CDLL, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        libc.mallopt(option, value)


def _allocator() -> ctypes.CDLL | None:
    """The C library, where it is glibc and the environment leaves its settings open."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    taken = any(f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}=" in tunables for name in _SETTINGS)
    return None if taken else _glibc()


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
