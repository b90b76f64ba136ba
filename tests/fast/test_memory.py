"""Memory that is reused by the next pass: limits, and the allocator's settings during and after."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from convscope.fast import memory
from convscope.fast.memory import _glibc, resident, reusing_memory, trim_heap, trimming_heap

LARGE = 64 * 2**20
DURING = [(-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20)]
AFTERWARDS = [(-4, 65536), (-3, 32 * 2**20), (-1, 64 * 2**20), (-2, 128 * 2**10)]
"""Options of mallopt(3), which cannot be read back, and their values."""

glibc_only = pytest.mark.skipif(_glibc() is None, reason="memory is reused with glibc only")


@pytest.fixture(autouse=True)
def open_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


class Library:
    """A C library that notes what is asked of it."""

    def __init__(self) -> None:
        self.set: list[tuple[int, int]] = []
        self.trimmed = 0

    def mallopt(self, option: int, value: int) -> int:
        self.set.append((option, value))
        return 1

    def malloc_trim(self, _pad: int) -> int:
        self.trimmed += 1
        return 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    made = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: made)
    yield made


@glibc_only
def test_what_exceeds_a_limit_is_returned() -> None:
    with reusing_memory():
        values = torch.ones(LARGE)
        behind = torch.ones(1000)  # what lives behind it does not hold it back
        del values
        held = resident()
        trim_heap(held + LARGE)
        assert resident() > held - LARGE, "below the limit it is kept"
        trim_heap(held - LARGE)
        assert resident() < held - 3 * LARGE
        assert behind.sum() == 1000


def test_parts_keep_a_tenth_more_than_the_first_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [500]
    monkeypatch.setattr("convscope.fast.memory.resident", lambda: held[0])
    monkeypatch.setattr("convscope.fast.memory.trim_heap", lambda beyond: held.__setitem__(0, 10) if held[0] > beyond else None)

    def part(leaves: int) -> int:
        before, held[0] = held[0], held[0] + leaves
        return before

    assert list(trimming_heap(map(part, [100, 5, 6, 20, 0]))) == [10, 110, 115, 121, 10]
    held[0] = 500
    assert list(trimming_heap(map(part, [100, 5]), on=False)) == [500, 600], "switched off, nothing is trimmed"


def test_the_settings_are_put_back_once_by_the_last_that_leaves(library: Library) -> None:
    with pytest.raises(ArithmeticError), reusing_memory():
        assert library.set == DURING
        with reusing_memory():
            pass
        assert library.set == 2 * DURING and not library.trimmed, "the outer block still wants it"
        raise ArithmeticError
    assert library.set == 2 * DURING + AFTERWARDS and library.trimmed == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000000"),
        ("MALLOC_TOP_PAD_", "0"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_MAX_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=1:glibc.malloc.top_pad=4096"),
    ],
)
def test_settings_of_the_user_stay(library: Library, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with reusing_memory():
        trim_heap(0)
        assert list(trimming_heap([1, 2])) == [1, 2]
    assert not library.set and not library.trimmed


def test_other_settings_of_the_user_are_no_reason(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    with reusing_memory():
        assert library.set == DURING


def test_switched_off_nothing_is_set(library: Library) -> None:
    with reusing_memory(False):
        assert list(trimming_heap([1, 2], on=False)) == [1, 2]
    assert not library.set and not library.trimmed


FAULTS = """
import resource, torch
from convscope.fast.memory import reusing_memory

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
with reusing_memory():
    torch.ones(2**26)
for megabytes in (1, 4, 16, 24):
    faults(megabytes)
    print(faults(megabytes))
"""


@glibc_only
def test_afterwards_freed_memory_is_not_cleared_again_and_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=120, check=True)
    assert [int(line) < 20 for line in done.stdout.split()] == [True] * 4, f"page faults of 20 tensors each: {done.stdout.split()}"
