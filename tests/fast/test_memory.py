"""Freed memory is kept for the next pass, but not beyond a limit."""

from __future__ import annotations

import pytest
import torch

from convscope.fast.memory import _glibc, give_back_beyond, kept_memory, resident, without_piling_up

LARGE = 64 * 2**20


@pytest.mark.skipif(_glibc() is None, reason="memory is kept with glibc only")
def test_what_is_kept_beyond_a_limit_is_given_back() -> None:
    with kept_memory():
        values = torch.ones(LARGE)
        behind = torch.ones(1000)  # what lives behind it does not hold it back
        del values
        held = resident()
        give_back_beyond(held + LARGE)
        assert resident() > held - LARGE, "below the limit it is kept"
        give_back_beyond(held - LARGE)
        assert resident() < held - 3 * LARGE
        assert behind.sum() == 1000


def test_parts_keep_a_tenth_more_than_the_first_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [500]
    monkeypatch.setattr("convscope.fast.memory.resident", lambda: held[0])
    monkeypatch.setattr("convscope.fast.memory.give_back_beyond", lambda most: held.__setitem__(0, 10) if held[0] > most else None)

    def part(leaves: int) -> int:
        before, held[0] = held[0], held[0] + leaves
        return before

    assert list(without_piling_up(map(part, [100, 5, 6, 20, 0]))) == [10, 110, 115, 121, 10]
