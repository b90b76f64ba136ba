"""Text from files towards a terminal."""

from __future__ import annotations

import json
import math

import pytest

from convscope.errors import BadImage, BadInput
from convscope.text import json_text, one_line, percent, printable, visible, visible_lines

HOSTILE = {
    "title": "\x1b]0;owned\x07.jpg",
    "colour": "\x1b[31mred",
    "eight bits": "\x9b31mred",
    "back": "a\rb\x08\x08",
    "reversed": "photo\u202egpj.exe",
    "isolated": "a\u2067b\u2069",
    "half": "a\udcff.jpg",
    "other half": "a\ud800.jpg",
    "line": "a\u2028b\x85c",
    "bell and null": "\x07\x00",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_that_a_terminal_obeys_gets_through(what: str) -> None:
    for shown in (visible(HOSTILE[what]), one_line(HOSTILE[what]), printable(HOSTILE[what]), str(BadInput(HOSTILE[what]))):
        assert all(sign.isprintable() for sign in shown), shown
        shown.encode()
    assert all(sign.isprintable() for sign in BadImage(HOSTILE[what], HOSTILE[what]).reason)


def test_the_values() -> None:
    assert visible("\x1b[31m\u202e\udcff") == "\\x1b[31m\\xe2\\x80\\xae\\xff"
    assert visible("Köln 犬 👩\u200d👩 \\ \\x1b") == "Köln 犬 👩\u200d👩 \\ \\x1b", "what is printable stays"
    assert visible_lines("a\n\x1bb\n") == "a\n\\x1bb\n"
    assert one_line(ValueError(" a\n  b\t")) == "a b"
    assert one_line(ValueError()) == "ValueError"
    assert one_line(OSError(2, "No such file", "name")) == "No such file"
    assert one_line("0123456789" * 4, 20) == "0123456789...3456789" and len(one_line("x" * 9999)) == 2000


def test_json_means_the_same() -> None:
    value = {"a\x9b\u202e": ["\x7f", "\x1b", "line\n", "\u2028"]}
    shown = json_text(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(shown) == value and all(sign.isprintable() or sign == "\n" for sign in shown)


@pytest.mark.parametrize(
    ("share", "short", "exact"),
    [
        (0.0, "0 %", "0 %"),
        (7.4e-10, "under 0.01 %", "0.000000074 %"),
        (1e-4, "0.01 %", "0.01 %"),
        (0.00221, "0.22 %", "0.22 %"),
        (0.0999, "10 %", "10 %"),
        (0.624, "62 %", "62 %"),
        (1.0, "100 %", "100 %"),
        (12.3, "1230 %", "1230 %"),
        (math.nan, "–", "–"),
    ],
)
def test_percentages_are_read_at_a_glance(share: float, short: str, exact: str) -> None:
    assert (percent(share), percent(share, least=0)) == (short, exact)
