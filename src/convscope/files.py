"""Files and URLs read with every check (nothing that blocks, never ends, or is too large), and files written all or nothing."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import secrets
import stat
import tarfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from convscope.errors import BadInput, ConvscopeError
from convscope.text import one_line, printable

STORAGE = "http https s3 s3a gs gcs az abfs abfss adl hdfs webhdfs sftp ssh smb hf oci oss memory file local".split()
URLS = frozenset([*STORAGE, "zip", "tar", "simplecache", "filecache", "blockcache"])
"""Kinds of URLs that are read: storage, and what stands before it, as in zip://b.png::s3://bucket/a.zip. fsspec knows others, which follow
what a file tells them."""
MOST_JSON = 2**28
"""Largest JSON file that is read."""
_DEEPEST = 100
_LOCAL = ("file://", "local://")
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")
_KINDS = (
    (stat.S_ISDIR, "is a folder, not a file"),
    (stat.S_ISFIFO, "not a regular file but a named pipe (FIFO)"),
    (stat.S_ISSOCK, "not a regular file but a socket"),
    (stat.S_ISCHR, "not a regular file but a character device"),
    (stat.S_ISBLK, "not a regular file but a block device"),
)


class Refused(OSError):
    """A file that is there but is not read: no regular file, or too large. `strerror` says which."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.EINVAL, words)


def is_url(path: str) -> bool:
    """Whether a path is a URL of another kind than file:// and local://; data: URLs are refused by :func:`filesystem`."""
    return ("://" in path and not path.startswith(_LOCAL)) or path.startswith("data:")


def actual(path: str) -> Path:
    r"""The local path behind a printable one: \xNN stands for a byte where there is no such file."""
    path = without_protocol(path)
    if "\\x" not in path or os.path.lexists(path):
        return Path(path)
    return Path(_ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", "surrogateescape"), path))


def path_text(path: object) -> str:
    """A path, or a URL, as text.

    Raises:
        BadInput: It is none.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str) or not text or "\0" in text:
        raise BadInput(f"expected a path, got {one_line(repr(path), 80)}")
    return text


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path of what is only read or written locally; file:// and local:// may stand before it.

    Raises:
        BadInput: It is a URL, or no path.
    """
    text = path_text(without_protocol(path_text(path)))
    if is_url(text) or any(part.partition(":/")[0] in URLS for part in text.split("::") if ":/" in part):  # a Path has a single slash
        raise BadInput(f"{one_line(text, 200)}: only surveys are written to URLs; give a local folder")
    return Path(text)


def without_protocol(path: str) -> str:
    """A path without the file:// or local:// before it."""
    for protocol in _LOCAL:
        path = path.removeprefix(protocol)
    return path


def in_memory(url: str) -> bool:
    """Whether what is written to a URL is gone with the process, as in memory:// and what stands before it."""
    return is_url(url) and any(part.startswith("memory:") for part in url.split("::"))


def filesystem(path: str) -> tuple[Any, str]:
    """The file system that a URL or path belongs to, and the path there.

    Raises:
        BadInput: A kind of URL that is not read, or whose package is not installed.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if not is_url(path):
        return LocalFileSystem(), str(actual(path).absolute())
    kinds = [part.partition(":")[0] for part in path.split("::")]
    if unknown := [kind for kind in kinds if kind not in URLS]:
        raise BadInput(f"{one_line(path, 100)}: {one_line(unknown[0], 40)} URLs are not read; these kinds are: {' '.join(STORAGE)}")
    try:
        return url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise BadInput(f"{printable(path)}: {one_line(error)}") from None


@contextmanager
def opened(path: str) -> Generator[IO[bytes]]:
    """A regular local file, or a URL, for reading.

    Raises:
        OSError: It cannot be opened; :class:`Refused` where it is no regular file.
        BadInput: A kind of URL that is not read.
        ConvscopeError: The network failed, which says nothing about the file.
    """
    if is_url(path):
        with opened_on(*filesystem(path), path) as file:
            yield file
        return
    local = actual(path)
    check_regular(local.stat())  # opening a device may do something
    # Whatever has taken its place meanwhile: a pipe does not wait for its other end (O_NONBLOCK), and is seen to be one.
    descriptor = os.open(local, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        check_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


@contextmanager
def opened_on(system: Any, path: str, name: str) -> Generator[IO[bytes]]:
    """:func:`opened` for a path on a file system of fsspec; errors call it `name`."""
    if is_local(system):
        with opened(f"file://{path}") as file:
            yield file
        return
    with network(name), system.open(path, "rb") as file:
        yield cast("IO[bytes]", file)


def is_local(system: Any) -> bool:
    """Whether a file system of fsspec is this machine's."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


def read_file(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """All of a file or URL.

    Args:
        path: Where it is.
        most: Bytes; more are refused. None: no limit.

    Raises:
        OSError, BadInput, ConvscopeError: See :func:`opened`; :class:`Refused` also where it is larger.
    """
    with opened(os.fspath(path)) as file:
        return read_all(file, most)


def read_all(file: IO[bytes], most: int | None = None) -> bytes:
    """What is left of an opened file; see :func:`read_file`."""
    pieces: list[bytes] = []
    length = 0
    if isinstance(file, io.BufferedReader):
        check_length(os.fstat(file.fileno()).st_size, most)
    while piece := file.read(2**20):  # a stream gives fewer bytes than asked for, and may never end
        pieces.append(piece)
        length += len(piece)
        check_length(length, most)
    return b"".join(pieces)


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file or URL.

    Raises:
        OSError, BadInput, ConvscopeError: See :func:`read_file`.
        ValueError: It is no JSON, or nested deeper than anything that convscope writes.
    """
    return parse_json(read_file(path, MOST_JSON))


def parse_json(data: bytes | str) -> Any:
    """The value of JSON text; ValueError if it is none, or nested too deeply for code that walks through it."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} deep") from None
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [each for item in level for each in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())]
        if not level:
            return value
    raise ValueError(f"nested more than {_DEEPEST} deep")


def check_form(value: Any, schema: Mapping[str, Any]) -> None:
    """Checks what was read against a JSON schema (draft 2020-12). Numbers are finite, and whole ones written as such.

    Raises:
        ValueError: It does not fit; one line says where.
    """
    from jsonschema import Draft202012Validator  # not pydantic: where that is loaded, the command line's parser checks arguments with it
    from jsonschema.exceptions import best_match
    from jsonschema.validators import extend

    def whole(_: Any, each: Any) -> bool:
        return type(each) is int

    def finite(_: Any, each: Any) -> bool:
        return type(each) in (int, float) and math.isfinite(each)

    plain: Any = Draft202012Validator
    strict: Any = extend(plain, type_checker=plain.TYPE_CHECKER.redefine("integer", whole).redefine("number", finite))
    error: Any = best_match(strict(schema).iter_errors(value))
    if error is not None:
        where = ".".join(map(str, error.absolute_path))
        raise ValueError(one_line(f"{where}: {error.message}" if where else error.message, 300))


def atomic_write(path: str | Path, data: bytes) -> Path:
    """Writes a file so that, whatever happens, it is either the old one or all of the new one; returns the path."""
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        write_synced(temporary, data)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    return path


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def jsonable(value: Any) -> Any:
    """The value as any reader of JSON understands it, for manifests and receipts, where exact types do not matter.

    Tuples become lists, arrays and their values plain lists and numbers, paths and everything else text; NaN and infinity become text too.
    """
    match value:
        case None | bool() | str():
            return value
        case _ if callable(to_list := getattr(value, "tolist", None)):
            return jsonable(to_list())
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else str(value)
        case Mapping():
            return {str(key): jsonable(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(each) for each in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
        case os.PathLike():
            return os.fspath(value)
        case _:
            return str(value)


def check_regular(status: os.stat_result) -> None:
    """Refuses what would block or never end."""
    if not stat.S_ISREG(status.st_mode):
        raise Refused(next((words for test, words in _KINDS if test(status.st_mode)), "not a regular file"))


def check_length(length: int, most: int | None) -> None:
    """Refuses more than `most` bytes."""
    if most is not None and length > most:
        raise Refused(f"a file of more than {most // 2**20} MB")


@contextmanager
def network(path: str) -> Generator[None]:
    """A missing or forbidden file passes through; everything else that goes wrong with a URL is the network's."""
    try:
        yield
    except (ConvscopeError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, Refused, tarfile.TarError):
        raise
    except Exception as error:
        if not is_url(path):
            raise
        if 400 <= getattr(error, "status", 0) < 500:  # the server has answered, and refuses this one
            raise PermissionError(0, one_line(error)) from None
        raise ConvscopeError(f"{path}: cannot be fetched ({type(error).__name__}: {one_line(error)})") from None
