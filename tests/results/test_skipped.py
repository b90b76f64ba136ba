"""Images that could not be read: every result about images lists them in its summary, its view and its folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import render_stand_ins
from convscope.results.base import ImageResult
from convscope.results.folder import load, save

SKIPPED = tuple((f"bad{number}.png", f"reason {number}") for number in range(7))
STAND_INS: dict[str, ImageResult] = {"spectrum": render_stand_ins.spectrum(2, 600), "hypothesis": render_stand_ins.hypothesis()}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 image skipped: bad0.png (reason 0)."),
        (3, "3 images skipped: bad0.png (reason 0); bad1.png (reason 1); bad2.png (reason 2)."),
        (7, "bad4.png (reason 4); and 2 more."),
    ],
)
def test_summary_and_view_list_skipped_images(name: str, count: int, words: str) -> None:
    whole = STAND_INS[name]
    result = dataclasses.replace(whole, skipped=SKIPPED[:count])
    assert result.summary().endswith(words) and result.view().note.endswith(words)
    assert result.summary().startswith(whole.summary()) and result.view().note.startswith(whole.view().note)


@pytest.mark.parametrize("name", STAND_INS)
def test_nothing_is_said_where_nothing_was_skipped(name: str) -> None:
    assert "skipped" not in STAND_INS[name].summary() and "skipped" not in STAND_INS[name].view().note


def test_the_list_is_saved(tmp_path: Path) -> None:
    result = dataclasses.replace(STAND_INS["spectrum"], skipped=SKIPPED)
    again = load(save(result, tmp_path / "result"))
    assert isinstance(again, type(result)) and again.skipped == SKIPPED
