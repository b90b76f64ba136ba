"""A short fuzz run of what reads files, the same at every call; `tests/fuzz_readers.py` does long ones."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fuzz_readers


@pytest.mark.parametrize(("reader", "inputs"), [("weights", 40), ("images", 80), ("surveys", 12), ("receipts", 12)])
def test_readers_raise_nothing_but_their_own_errors(reader: str, inputs: int) -> None:
    outcomes = Counter[str]()

    @settings(max_examples=inputs, derandomize=True, **fuzz_readers.UNHURRIED)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        outcomes[fuzz_readers.attempt(reader, lambda strategy: data.draw(strategy))] += 1

    logging.disable()
    try:
        run()
    finally:
        logging.disable(logging.NOTSET)
    assert outcomes.total() >= inputs and len(outcomes) > 1, "files were changed enough to be refused, and not all of them"


def test_the_watch_sees_what_it_is_there_for(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os
    import subprocess
    import sys
    from pathlib import Path

    (tmp_path / "inside").mkdir()
    wrong = (
        lambda: (tmp_path / "outside").write_bytes(b""),
        lambda: (tmp_path / "outside").mkdir(),
        lambda: subprocess.run([sys.executable, "-c", ""], check=False),
        lambda: os.rename(tmp_path / "inside", tmp_path / "moved"),  # noqa: PTH104
    )
    for act in wrong:
        with pytest.raises(fuzz_readers.Escaped), fuzz_readers.watched(Path(tmp_path / "inside")):
            act()
    with fuzz_readers.watched(tmp_path / "inside"):
        (tmp_path / "inside" / "file").write_bytes(b"")
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
