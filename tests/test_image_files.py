"""Image files: what a folder, list, tar or pattern stands for, and reading bytes with every check."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from convscope import image_files
from convscope.errors import BadImage, BadInput, ConvscopeError
from convscope.image_files import Source, find_images, read_bytes
from convscope.text import printable


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def names(root: object) -> list[str]:
    return [source.name for source in find_images(root) if not source.reason]  # type: ignore[arg-type]


def left_out(root: object) -> dict[str, str]:
    return {source.name: source.reason for source in find_images(root) if source.reason}  # type: ignore[arg-type]


# --- folders


def test_a_folder_is_everything_below_it_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/2.jpg", "a/10.jpg", "a/b/c/1.png", "z.txt", ".hidden.jpg", ".git/x.jpg", "a/.x/y.jpg")
    assert names(tmp_path) == ["a/10.jpg", "a/2.jpg", "a/b/c/1.png", "b.jpg", "z.txt"]
    assert [source.label for source in find_images(tmp_path)] == ["a", "a", "c", None, None]
    assert names(f"{tmp_path}/") == names(tmp_path) == names(f"file://{tmp_path}")
    assert all(Path(source.path).is_file() for source in find_images(tmp_path))


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert [(source.name, source.path) for source in find_images("photos/")] == [("a.jpg", "photos/a.jpg")]
    monkeypatch.chdir(tmp_path / "photos")
    assert [(source.name, source.path) for source in find_images(".")] == [("a.jpg", "a.jpg")]


@pytest.mark.parametrize(
    ("links", "reasons"),
    [
        ({"cats/again": ".."}, {"cats/again": "a link to the folder itself, which is listed already"}),
        ({"cats/again": "..", "dogs/again": ".."}, {"cats/again": "the folder itself", "dogs/again": "the folder itself"}),
        ({"cats/here": "."}, {"cats/here": "a link to folder cats, which is listed already"}),
        ({"a": "dogs"}, {"a": "a link to folder dogs, which is listed already"}),
        ({"a": "cats", "cats/b": "../dogs", "dogs/c": "../cats"}, {"a": "folder cats", "cats/b": "folder dogs", "dogs/c": "folder cats"}),
    ],
)
def test_links_that_lead_back_are_left_out(tmp_path: Path, links: dict[str, str], reasons: dict[str, str]) -> None:
    """Also tried: forty links to the parent, a split that links to another, 200 folders deep, hard links (files of their own)."""
    touch(tmp_path, "cats/1.jpg", "dogs/2.jpg")
    for link, target in links.items():
        (tmp_path / link).symlink_to(target, target_is_directory=True)
    assert names(tmp_path) == ["cats/1.jpg", "dogs/2.jpg"]
    found = left_out(tmp_path)
    assert found.keys() == reasons.keys() and all(reasons[name] in found[name] for name in found)
    for source in find_images(tmp_path):
        if source.reason:
            with pytest.raises(BadImage, match="listed already"):
                source.read()


def test_links_to_folders_elsewhere_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/own.jpg", "other/cats/1.jpg", "other/2.jpg")
    for link in ("more", "again"):
        (tmp_path / "data" / link).symlink_to(tmp_path / "other")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    assert names(tmp_path / "data") == ["again/2.jpg", "again/cats/1.jpg", "own.jpg"]
    assert left_out(tmp_path / "data") == {
        "more": "a link to folder again, which is listed already",
        "up/data": "the same as the folder itself, which is listed already",
        "up/other": "the same as folder again, which is listed already",
    }


def test_links_to_files_are_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "d.jpg").symlink_to("d.jpg")
    assert names(tmp_path) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_a_folder_that_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["a.jpg"]
    assert left_out(tmp_path) == {"locked": "a folder that cannot be read (Permission denied)"}
    with pytest.raises(BadInput, match=r"locked is a folder that cannot be read \(Permission denied\)"):
        names(tmp_path / "locked")


@pytest.mark.parametrize("name", [b"K\xf6ln.jpg", b"K\xf6ln/a.jpg", b"\xff\xfe.png", b"a\\xff/\xe9.jpg"])
def test_names_that_are_not_utf8(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"bytes")
    (source,) = find_images(tmp_path)
    assert source.name.encode() and source.path.encode() and "\\x" in source.name
    assert source.read() == read_bytes(source.path) == read_bytes(path) == b"bytes"


def test_names_that_would_be_written_alike(tmp_path: Path) -> None:
    """A line end is written as four signs, which may be another file's name: that one was then read twice."""
    (tmp_path / "a\n.jpg").write_bytes(b"odd")
    assert [source.read() for source in find_images(tmp_path)] == [b"odd"]
    (tmp_path / "a\\x0a.jpg").write_bytes(b"plain")
    assert [source.read() for source in find_images(tmp_path) if not source.reason] == [b"plain"]
    assert left_out(tmp_path) == {"a\\x0a.jpg": "its name is written like that of another file here; rename it"}


@pytest.mark.parametrize(
    "name", ["Ko\u0308ln.jpg", "K\u00f6ln.jpg", "A.JPG", " a.jpg", "-.jpg", "~.jpg", "a*.jpg", "[a].jpg", "http:.jpg", "=1+1.jpg"]
)
def test_names_are_no_patterns_urls_or_options(tmp_path: Path, name: str) -> None:
    """All of them in one folder, each itself: names that differ in case, or in how their accents are written, are different names."""
    beside = ["Ko\u0308ln.jpg", "K\u00f6ln.jpg", "a.jpg", "A.JPG", "a"]
    for each in beside:
        (tmp_path / each).write_bytes(each.encode())
    (tmp_path / name).write_bytes(name.encode())
    found = {source.name: source.read() for source in find_images(tmp_path)}
    assert found == {each: each.encode() for each in {*beside, name}}
    assert read_bytes(tmp_path / name) == name.encode()


def test_printable_paths_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("Köln.jpg", "犬.png", "a\\xff.jpg", "a b.gif"):
        assert printable(name) == name
        touch(tmp_path, name)
        assert read_bytes(tmp_path / name) == b"x"


# --- other places


def test_patterns_lists_and_tars(tmp_path: Path) -> None:
    touch(tmp_path, "1/a.jpg", "2/a.jpg", "2/b.png", "[x].jpg")
    assert [Path(name).name for name in names(tmp_path / "*/a.jpg")] == ["a.jpg", "a.jpg"]
    assert names(tmp_path / "[12]") == ["a.jpg", "a.jpg", "b.png"], "a pattern may stand for folders"
    assert names(tmp_path / "[x].jpg") == [str(tmp_path / "[x].jpg")], "a file of that name is no pattern"
    (tmp_path / "list.csv").write_text("image,label\n1/a.jpg,ant\n2/b.png,\n")
    assert [(source.name, source.label) for source in find_images(tmp_path / "list.csv")] == [("1/a.jpg", "ant"), ("2/b.png", None)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "1", "one")
    (source,) = find_images(tmp_path / "a.tar")
    assert source.name == "one/a.jpg" and source.read() == read_bytes(f"{tmp_path}/a.tar::one/a.jpg") == b"x"


@pytest.mark.parametrize("name", ["nothing.jpg", "nothing", "a::b.jpg"])
def test_anything_else_stands_for_itself(tmp_path: Path, name: str) -> None:
    assert names(tmp_path / name) == [str(tmp_path / name)]


def test_an_empty_path() -> None:
    with pytest.raises(BadInput, match="empty path"):
        find_images("")


# --- reading


def made_fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def made_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    return path


def made_link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


UNREADABLE: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], object], str]] = {
    "pipe": (lambda root, _: made_fifo(root / "a.png"), "not a regular file but a named pipe (FIFO)"),
    "link to a pipe": (lambda root, _: made_link(root / "b.png", str(made_fifo(root / "a.png"))), "named pipe"),
    "pipe by URL": (lambda root, _: f"file://{made_fifo(root / 'a.png')}", "named pipe"),
    "socket": (lambda root, patch: made_socket(root / "a.png", patch), "a socket"),
    "endless device": (lambda _root, _: "/dev/zero", "a character device"),
    "link to a device": (lambda root, _: made_link(root / "a.png", "/dev/random"), "a character device"),
    "folder": (lambda root, _: root, "is a folder, not a file"),
    "empty": (lambda root, _: touch(root, "a.png").joinpath("a.png").write_bytes(b"") or root / "a.png", "empty file"),
    "absent": (lambda root, _: root / "a.png", "no such file"),
    "below a file": (lambda root, _: touch(root, "a.png") / "a.png" / "b.png", "no such file"),
    "dangling": (lambda root, _: made_link(root / "a.png", "b.png"), "no such file (a link to nowhere)"),
    "loop": (lambda root, _: made_link(root / "a.png", "a.png"), "cannot be read (Too many levels of symbolic links)"),
    "long name": (lambda root, _: root / ("a" * 300 + ".png"), "cannot be read (File name too long)"),
    "null byte": (lambda _root, _: "a\0b.png", "cannot be read (embedded null byte)"),
    "no member": (lambda root, _: f"{tar_of(root)}::c.png", "the tar shard has no such member"),
    "empty member": (lambda root, _: f"{tar_of(root)}::empty.png", "empty file"),
    "no tar": (lambda root, _: f"{touch(root, 'b.tar') / 'b.tar'}::c.png", "cannot be read"),
    "absent tar": (lambda root, _: f"{root}/b.tar::c.png", "no such file"),
    "absent in memory": (lambda _root, _: "memory://nothing/a.png", "no such file"),
}


def tar_of(root: Path, content: bytes = b"content") -> Path:
    with tarfile.open(root / "a.tar", "w") as tar:
        for name, data in (("a/b.png", content), ("empty.png", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return root / "a.tar"


@pytest.mark.parametrize("what", UNREADABLE)
def test_unreadable_files_say_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    make, words = UNREADABLE[what]
    path = make(tmp_path, monkeypatch)
    with pytest.raises(BadImage) as error:
        read_bytes(path)  # type: ignore[arg-type]
    assert words in error.value.reason and "\n" not in str(error.value)
    assert str(error.value) == f"{printable(path)}: {error.value.reason}"


@pytest.mark.parametrize("where", ["file", "file URL", "memory", "member", "known length"])
def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    tar_of(tmp_path, b"12345678")
    (tmp_path / "a.png").write_bytes(b"12345678")
    fsspec.filesystem("memory").pipe("/large/a.png", b"12345678")
    source = {
        "file": Source("", str(tmp_path / "a.png")),
        "file URL": Source("", f"file://{tmp_path}/a.png"),
        "memory": Source("", "memory://large/a.png"),
        "member": Source("", f"{tmp_path}/a.tar::a/b.png"),
        "known length": Source("", "memory://large/a.png", length=8),
    }[where]
    monkeypatch.setattr(image_files, "MOST_BYTES", 8)
    assert source.read() == b"12345678"
    monkeypatch.setattr(image_files, "MOST_BYTES", 7)
    with pytest.raises(BadImage, match="a file of more than"):
        source.read()


def test_links_in_a_tar_are_what_they_lead_to(tmp_path: Path) -> None:
    """tar stores the second name of a file as a link without bytes: such images vanished."""
    with tarfile.open(tmp_path / "\u0130.TAR", "w") as tar:  # a capital whose small letter is two signs
        for name, kind, target in (
            ("./a/x.png", tarfile.REGTYPE, ""),
            ("./a/hard.png", tarfile.LNKTYPE, "./a/x.png"),
            ("./a/soft.png", tarfile.SYMTYPE, "../b/../a/hard.png"),
            ("./a/out.png", tarfile.SYMTYPE, "/etc/hostname"),
            ("./a/self.png", tarfile.SYMTYPE, "self.png"),
            ("./a/round.png", tarfile.SYMTYPE, "about.png"),
            ("./a/about.png", tarfile.SYMTYPE, "round.png"),
            ("./a/pipe.png", tarfile.FIFOTYPE, ""),
            ("./a/folder.png", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"old"))
        again = tarfile.TarInfo("./a/x.png")  # as `tar --append` does: the last of a name counts
        again.size = 3
        tar.addfile(again, io.BytesIO(b"new"))
    path = tmp_path / "\u0130.TAR"
    assert {source.name[4:]: source.read() for source in find_images(path) if not source.reason} == dict.fromkeys(
        ("x.png", "hard.png", "soft.png"), b"new"
    )
    assert read_bytes(f"{path}::./a/soft.png") == b"new"
    assert {name[4:]: reason for name, reason in left_out(path).items()} == {
        "out.png": "a link to /etc/hostname, which leads to nothing in this tar",
        "self.png": "a link to self.png, which leads to nothing in this tar",
        "round.png": "a link to about.png, which leads to nothing in this tar",
        "about.png": "a link to round.png, which leads to nothing in this tar",
        "pipe.png": "not a regular file",
    }
    with pytest.raises(BadImage, match="a link to /etc/hostname, which leads to nothing in this tar"):
        read_bytes(f"{path}::./a/out.png")


def test_a_tar_with_holes(tmp_path: Path) -> None:
    """Where holes are left out, the bytes in the tar are not those of the file."""
    with (tmp_path / "a.bmp").open("wb") as file:
        file.truncate(2**20)
        file.seek(2**19)
        file.write(b"middle")
    made = subprocess.run(["tar", "--sparse", "-cf", "a.tar", "a.bmp"], cwd=tmp_path, check=False, capture_output=True)
    if made.returncode or (tmp_path / "a.tar").stat().st_size > 2**19:
        pytest.skip("no tar that leaves holes out, or a file system without them")
    with pytest.raises(BadImage, match="stored with its holes left out; make the tar without --sparse"):
        read_bytes(f"{tmp_path}/a.tar::a.bmp")
    assert left_out(tmp_path / "a.tar").keys() == {"a.bmp"}


def test_a_shard_may_be_larger_than_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tar_of(tmp_path)
    monkeypatch.setattr(image_files, "MOST_BYTES", 100)
    assert read_bytes(f"{tar}::a/b.png") == b"content"


def test_a_shard_that_was_written_again(tmp_path: Path) -> None:
    tar = tar_of(tmp_path, b"first")
    (source,) = (source for source in find_images(tar) if source.name == "a/b.png")
    assert read_bytes(f"{tar}::a/b.png") == b"first"
    with tarfile.open(tar, "a") as again:
        info = tarfile.TarInfo("a/later.png")
        info.size = 5
        again.addfile(info, io.BytesIO(b"later"))
    assert read_bytes(f"{tar}::a/later.png") == b"later"
    os.truncate(tar, source.offset + 2)
    with pytest.raises(BadImage, match="ends before it"):
        source.read()


@pytest.mark.parametrize("name", ["a::b.jpg", "x.tar::a.png", "s3::x.png"])
def test_a_local_file_with_colons(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"local")
    assert read_bytes(tmp_path / name) == b"local" and names(tmp_path) == [name]


def test_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/read/a.png", b"memory")
    assert read_bytes("memory://read/a.png") == b"memory"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.png", b"zipped")
    assert read_bytes(f"zip://b.png::file://{tmp_path}/a.zip") == b"zipped"
    # further: github://, dask://, jupyter://, reference:// behind simplecache::
    for url in ("nonsense://a.png", "reference://::http://example.org/a.json", "simplecache::reference://a.png"):
        with pytest.raises(BadInput, match=r"(nonsense|reference) URLs are not read; these kinds are: http https s3"):
            read_bytes(url)


class Forbidden(Exception):
    status = 403


@pytest.mark.parametrize(
    ("failure", "expected", "words"),
    [
        (ConnectionError("connection reset"), ConvscopeError, r"cannot be fetched \(ConnectionError: connection reset\)"),
        (TimeoutError(), ConvscopeError, "cannot be fetched"),
        (RuntimeError("session closed"), ConvscopeError, r"cannot be fetched \(RuntimeError: session closed\)"),
        (FileNotFoundError(), BadImage, "no such file"),
        (PermissionError(13, "forbidden"), BadImage, r"cannot be read \(forbidden\)"),
        (Forbidden("403, message='Forbidden'"), BadImage, "cannot be read .403"),
    ],
)
@pytest.mark.parametrize("length", [-1, 6])
def test_a_network_that_fails_is_not_the_images_fault(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[Exception], words: str, length: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(MemoryFileSystem, "open", fail)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(ConvscopeError, match=words) as error:
        read_bytes("memory://read/a.png", length=length)
    assert isinstance(error.value, BadImage) == (expected is BadImage)


def test_streams_that_give_fewer_bytes_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(3 if size is None or size < 0 or size > 3 else size)

    monkeypatch.setattr(MemoryFileSystem, "open", lambda *_, **__: Slow(b"a whole image"))
    assert read_bytes("memory://read/a.png") == b"a whole image"
