"""Where commands write, and what they write to a terminal."""

from __future__ import annotations

import csv
import io
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from convscope.cli import main, show
from convscope.cli.output import check_file, reserved, write_somewhere
from convscope.errors import BadInput, StoreConflict

NETWORK = """
import sys
from torch import nn
from convscope import Inputs

class Ends(nn.Module):
    def forward(self, x):
        sys.exit(0)

def build():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), Inputs(size=16, classes=None)

def ends():
    return nn.Sequential(nn.Conv2d(3, 2, 3), Ends()), Inputs(size=16)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    Path("images").mkdir()
    for number in range(2):
        Image.fromarray(np.full((20, 20, 3), 90 * number, np.uint8)).save(f"images/{number}.png")
    Path("file").write_text("")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


IMPOSSIBLE = {
    "file in the way": ("file/x", "file is a file, not a folder"),
    "file two levels above": ("file/a/b", "file is a file, not a folder"),
    "itself a file": ("file", "is there already"),
    "too long": ("x" * 300, "cannot be written to (File name too long)"),
    "a place without files": ("/proc/x/y", "cannot be written to (No such file or directory)"),
    "a URL": ("s3://bucket/x", "only scan writes to URLs; give a local folder"),
    "in memory": ("memory://x", "only scan writes to URLs; give a local folder"),
    "in memory behind a cache": ("simplecache::memory://x", "only scan writes to URLs; give a local folder"),
}


@pytest.mark.parametrize("command", ["activation-grid", "feature-visualization", "scan"])
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_place_is_known_before_the_work(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str, command: str
) -> None:
    """Further ones: a read-only mount, /dev/full as a folder, a dangling link."""
    monkeypatch.setattr("convscope.zoo.open", lambda *_, **__: pytest.fail("the network was opened"))
    out, words = IMPOSSIBLE[what]
    if command == "scan" and out.startswith("s3"):
        return
    words = "a survey in memory would be gone" if command == "scan" and what.startswith("in memory") else words
    words = "is a file, not a folder" if command != "activation-grid" and what == "itself a file" else words
    asked = {"activation-grid": ["images", "0"], "feature-visualization": ["0", "--units", "0"], "scan": ["images"]}[command]
    code, _, error = run(capsys, command, "net.py:build", *asked, "--out", out)
    assert code == 2 and error.count("\n") == 1 and error.startswith("error: ") and words in error, error
    assert sorted(path.name for path in place.iterdir()) == ["file", "images", "net.py"]


@pytest.mark.parametrize("url", ["memory://z", "s3://bucket/z", "filecache::memory://z"])
@pytest.mark.parametrize("words", [["atlas", "net.py:build", "images"], ["textures", "sample"], ["textures", "train"]])
def test_a_command_that_makes_a_folder_of_its_own_takes_no_url(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], url: str
) -> None:
    """A path keeps one of its slashes; before, the folder s3: was made here. Also tried: convscope demo, serve and redo."""
    code, _, error = run(capsys, *words, "--out", url)
    assert code == 2 and error.count("\n") == 1 and "only surveys are written to URLs; give a local folder" in error, error
    assert sorted(path.name for path in place.iterdir()) == ["file", "images", "net.py"]


@pytest.mark.parametrize("command", [["activation-grid", "net.py:build", "images", "0"], ["scan", "net.py:build", "images"]])
def test_a_local_url_is_a_folder(place: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Before, the folder file: was made here, too, and named as the place."""
    code, out, error = run(capsys, *command, "--out", f"file://{place}/made")
    assert code == 0, error
    assert f"wrote {place}/made" in out and (place / "made/manifest.json").is_file() and not (place / "file:").exists()


def test_memory_is_a_place_from_python(place: Path) -> None:
    sys.path.insert(0, str(place))
    survey = cs.scan(cs.open("net.py:build"), "images", "memory://from-python/survey", decoders=0)
    assert len(cs.read_survey("memory://from-python/survey")) == len(survey) == 2
    sys.path.remove(str(place))


def test_folders_made_for_nothing_are_removed(place: Path) -> None:
    with pytest.raises(ValueError, match="no"), reserved("a/b/c", resumes=False):
        assert (place / "a/b/c").is_dir() and not list((place / "a/b/c").iterdir())
        raise ValueError("no")
    assert not (place / "a").exists()
    with pytest.raises(ValueError, match="no"), reserved("a/b/c", resumes=False):
        (place / "a/kept").touch()
        raise ValueError("no")
    assert [path.name for path in (place / "a").iterdir()] == ["kept"]
    with reserved("d", resumes=False):
        pass
    assert (place / "d").is_dir()


def test_what_was_computed_is_kept(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones: the folder removed meanwhile, taken by another command meanwhile, a temporary folder that is full as well."""
    real = Path.rename

    def full(self: Path, target: Path) -> Any:
        if Path(target).absolute().is_relative_to(place):
            raise OSError(28, "No space left on device")
        return real(self, target)

    (place / "tmp").mkdir()
    monkeypatch.setattr(Path, "rename", full)
    kept = Path(tempfile.mkdtemp())
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    code, _, error = run(capsys, "activation-grid", "net.py:build", "images", "0", "--out", "grid")
    assert code == 2 and error.splitlines()[-1].startswith("error: grid: cannot be written (")
    where = Path(error.split("what was computed is kept in ")[1].strip())
    assert where.is_relative_to(kept) and type(cs.load(where)).__name__ == "ActivationGrid"
    assert not (place / "grid").exists()


def test_nowhere_to_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.raises(BadInput, match=r"x: cannot be written \(No space left on device\), nor to .*: the work is lost"):
        write_somewhere(full, place / "x")


def test_files_are_checked_before_the_work(place: Path) -> None:
    check_file(place / "new.png")
    check_file(place / "file")
    for wrong, words in {"none/x.png": "there is no folder none", "images": "images is a folder", "y" * 300: "File name too long"}.items():
        with pytest.raises(StoreConflict, match=words):
            check_file(Path(wrong))


def test_a_network_that_ends_the_program(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["layers", "net.py:ends"], ["activation-grid", "net.py:ends", "images", "0"]):
        code, out, error = run(capsys, *command)
        assert code == 2 and not out and error.count("\n") == 1 and "SystemExit: 0" in error and "Ends" in error


# --- towards a terminal


def test_no_escape_sequence_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """File names, class names, layer names, notes and warnings all go through these."""
    hostile = "\x1b]0;owned\x07 \x9b31m \u202egpj.exe"
    show.say(f"a\n{hostile}")
    show.print_written([(Path(hostile), hostile)])
    show.print_table(hostile, ["a", hostile], [["1", hostile]], right=[True, False])
    with show.progress():
        from convscope.progress import task

        with task(hostile, 1) as advance:
            advance(1, hostile)
    main(["layers", hostile])
    shown = "".join(capsys.readouterr())
    assert not set(shown) & set("\x1b\x07\x9b\u202e\r") and "owned" in shown and "a\n\\x1b]0;owned\\x07" in shown


def test_logs_and_warnings_are_visible_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    def command(*_: object, **__: object) -> int:
        logging.getLogger("convscope").warning("skipped: %s", "\x1b[31ma.jpg")
        warnings.warn("bad \x1b[0m\nthing", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("convscope.cli.build", lambda: command)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        main([])
    assert stream.getvalue() == "skipped: \\x1b[31ma.jpg\nwarning: bad \\x1b[0m thing\n"


def test_csv(capsys: pytest.CaptureFixture[str]) -> None:
    formulas = ["=1+1", "+cmd", "-1+2", "@a", "\tb", "\rc", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20a"]  # wide ones mean the same to some
    others = ["-1", "d\re", "f\ng", 'h"i,', "j", 1, -2.5, None]
    show.write_csv(["name", "=n"], [[text, 1] for text in (*formulas, *others)])
    out = capsys.readouterr().out
    expected = [f"'{text}" for text in formulas] + ["" if text is None else str(text) for text in others]
    assert list(csv.reader(io.StringIO(out, newline=""))) == [["name", "'=n"], *([text, "1"] for text in expected)]
    assert '"d\re",1\n' in out and out.count("\r\n") == 0


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    show.write_json([{"a": "\x1b\x9b\u202e", "b": 1.5}])
    out = capsys.readouterr().out
    assert json.loads(out) == [{"a": "\x1b\x9b\u202e", "b": 1.5}] and out.isascii()
