"""The guarded reader."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import convscope as cs
from convscope.errors import BadInput
from convscope.files import Refused, actual, filesystem, parse_json, read_file, read_json
from convscope.text import printable


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """Further ones: /dev/random, a terminal, a link to a pipe; a pipe that takes the place of a file between check and opening."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        kinds = {"pipe": "named pipe", "zero": "character device", "link": "named pipe", "socket": "socket", ".": "folder"}
        for name, words in kinds.items():
            with pytest.raises(Refused, match=words):
                read_file(tmp_path / name)


@pytest.mark.parametrize("given", [3, None, b"x", ["a"], {"a": 1}, float("nan"), "", "a\0b"])
def test_what_is_no_path_is_said_in_a_line(given: Any, scope: cs.Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls: dict[str, Callable[[Any], object]] = {
        "load": cs.load,
        "read_survey": cs.read_survey,
        "read_gallery": cs.read_gallery,
        "redo": cs.redo,
        "gallery": lambda path: cs.gallery(scope, "output", [0], path, steps=1),
        "scan": lambda path: cs.scan(scope, tmp_path, path),
        "atlas": lambda path: cs.atlas(scope, tmp_path, path),
    }
    for name, call in calls.items():
        with pytest.raises(BadInput, match="expected a path") as error:
            call(given)
        assert "\n" not in str(error.value), name
    assert not list(tmp_path.iterdir())


def test_a_pipe_that_takes_a_files_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: real(tmp_path / "file" if self.name == "pipe" else self, **more))
    with pytest.raises(Refused, match="named pipe"):
        read_file(tmp_path / "pipe")


def test_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"12345678")
    assert read_file(tmp_path / "a", 8) == read_file(f"file://{tmp_path}/a", 8) == b"12345678"
    with pytest.raises(Refused, match="a file of more than 0 MB"):
        read_file(tmp_path / "a", 7)

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"x" * 3

    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_, **__: Endless())
    with pytest.raises(Refused, match="more than 1 MB"):
        read_file("memory://endless", 2**20)


def test_json() -> None:
    assert parse_json(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for wrong in (b"[" * 10**5, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"[" * 101 + b"1" + b"]" * 101):
        with pytest.raises(ValueError, match=r"nested more than 100 deep"):
            parse_json(wrong)
    assert parse_json(b"[" * 99 + b"1" + b"]" * 99)
    for wrong in (b"", b"{", b"\xff", b"nonsense", b"1" * 10000):
        with pytest.raises(ValueError):
            parse_json(wrong)
    fsspec.filesystem("memory").pipe("/files/a.json", b"[1]")
    assert read_json("memory://files/a.json") == [1]


def test_printable_paths_lead_back(tmp_path: Path) -> None:
    for name in ("a\x1b]0;x\x07.jpg", "a\nb", "\u202egpj", "\x9b", "a\\x1b\x1b", os.fsdecode(b"a\xff")):
        (tmp_path / name).write_bytes(name.encode("utf-8", "surrogateescape"))
        shown = printable(tmp_path / name)
        assert shown.isprintable() and actual(shown) == tmp_path / name
        assert read_file(shown) == name.encode("utf-8", "surrogateescape")


def test_kinds_of_urls() -> None:
    assert filesystem("memory://a/b")[1] == "/a/b"
    for url in ("reference://x", "github://a:b@c/d", "data://x", "dask://x", "memory://a::reference://b", "://x"):
        with pytest.raises(BadInput, match="are not read; these kinds are"):
            filesystem(url)
