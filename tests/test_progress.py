"""The line that progress is shown as: on when asked, on terminals and in notebooks by itself, else silent."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from convscope import progress


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress._Line, "EVERY", 0.0)
    progress._shown.clear()
    yield
    progress._shown.clear()


def work() -> None:
    with progress.task("scan\n", 4) as advance:
        for _ in range(4):
            with progress.task("inner", 9) as inner:
                inner(3)
            advance(note="best \x1b[2J1.5")


def test_scripts_are_silent_until_asked(capsys: pytest.CaptureFixture[str]) -> None:
    work()
    assert capsys.readouterr() == ("", "")
    progress.show()
    work()
    said = capsys.readouterr()
    lines = [line for line in said.err.split("\r") if line.strip()]
    assert said.out == "" and [line.split(",")[0] for line in lines] == ["scan : 25 %", "scan : 50 %", "scan : 75 %"]
    assert "inner" not in said.err and "\n" not in said.err and "\x1b" not in said.err and said.err.endswith("\r")


def test_notebooks_show_it_until_told_not_to(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    work()
    assert "75 %" in capsys.readouterr().err
    progress.show(False)
    work()
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminals_show_it_until_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    work()
    assert "75 %" in shown.getvalue() and shown.getvalue().endswith("\r")
    progress.show(False)
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    work()
    assert shown.getvalue() == ""
    progress._shown.clear()
    monkeypatch.setenv("TERM", "dumb")
    work()
    assert shown.getvalue() == "", "it cannot write over a line"
    monkeypatch.setattr(sys, "stderr", None)
    work()


def test_no_line_is_longer_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    monkeypatch.setattr(shown, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((20, 24)))
    work()
    assert max(map(len, shown.getvalue().split("\r"))) == 19


def test_a_reporter_goes_before(capsys: pytest.CaptureFixture[str]) -> None:
    progress.show()
    with progress.reporting(None):
        work()
    assert capsys.readouterr().err == ""
