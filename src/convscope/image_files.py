"""Image files: those that a folder, list, tar shard or pattern stands for, and their bytes, read with every check.

Techniques, scans and surveys all find and read images here. Paths are local, or URLs that fsspec knows.
"""

from __future__ import annotations

import functools
import heapq
import json
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from convscope.errors import BadImage, BadInput, ConvscopeError
from convscope.preprocessing import SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = frozenset("train training val valid validation dev test testing".split())
"""Folder names that mean a split and not a label."""
MEMBER = "::"
"""Between the path of a tar shard and the name of an image in it."""
MOST_BYTES = 2**29
"""Largest file that is read."""
_LISTS, _TAR = (".csv", ".tsv", ".parquet"), ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LOCAL = ("file://", "local://")
_COLUMNS = ("path", "file", "filename", "image", "name")
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")
_KINDS = (
    (stat.S_ISDIR, "is a folder, not an image"),
    (stat.S_ISFIFO, "not a regular file but a named pipe (FIFO)"),
    (stat.S_ISSOCK, "not a regular file but a socket"),
    (stat.S_ISCHR, "not a regular file but a character device"),
    (stat.S_ISBLK, "not a regular file but a block device"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be read.

    Attributes:
        name: Below the folder, inside the tar shard, or as listed.
        path: Where it is; TAR::MEMBER inside a tar shard.
        label, split, domain: What is known of it.
        offset: Where its bytes begin in the tar shard; -1: it is a file of its own.
        length: Their number; -1: not known.
        number: In the order of the listing.
        reason: Why it cannot be read: a folder that is unreadable or listed already; "" otherwise.
    """

    name: str
    path: str
    label: str | None = None
    split: str | None = None
    domain: str | None = None
    offset: int = -1
    length: int = -1
    number: int = -1
    reason: str = ""

    def read(self) -> bytes:
        """The bytes of the image; see :func:`read_bytes`."""
        if self.reason:
            raise BadImage(self.reason, self.path)
        return read_bytes(self.path, self.offset, self.length)


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path as text that can be written anywhere: bytes that are not UTF-8 become \xNN, and :func:`read_bytes` understands that."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).replace(b"\\x", b"\\x5cx").decode("utf-8", "backslashreplace")
    return text


# --- finding images


def find_images(path: str | os.PathLike[str]) -> Iterator[Source]:
    """The files that a path stands for; which of them are images, their names say (:func:`is_image`).

    Args:
        path: A folder: every file below it, by name, without hidden ones. Subfolders are labels; `train/`, `val/` and the like are splits.
            Each folder is listed once: links that lead back, and subfolders that cannot be read, come last, with a `reason`.
            A list (.csv, .tsv, .parquet) with a column `path` and perhaps `label`, `split`, `domain`; relative paths are meant from its
            folder. A tar shard, uncompressed. A pattern such as ``data/train-*.tar``. Anything else stands for itself,
            there or not.

    Raises:
        BadInput: A list, tar or folder that cannot be read, a pattern that matches nothing, or an unknown kind of URL.
    """
    text = os.fspath(path)
    if not text:
        raise BadInput("images: got an empty path")
    suffix = posixpath.splitext(text)[1].lower()
    if _is_folder(text):
        return iter(_from_folder(text))
    if text.lower().endswith(_COMPRESSED):
        raise BadInput(f"images: {printable(text)} is a compressed tar, which cannot be read from the middle; unpack it to a plain .tar")
    if any(sign in text for sign in "*?[") and not exists(text):
        return (source for match in _matches(text) for source in find_images(match))
    if suffix == _TAR:
        return iter(_from_tar(text))
    if suffix in _LISTS:
        return iter(_from_list(text))
    return iter([Source(printable(text), printable(text))])


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    if _is_local(path):
        return os.path.lexists(_actual(path))
    filesystem, plain = _filesystem(path)
    with _network(path):
        return bool(filesystem.exists(plain))


def _is_folder(path: str) -> bool:
    if _is_local(path):
        return _actual(path).is_dir()
    if is_image(path):
        return False
    filesystem, plain = _filesystem(path)
    with _network(path):
        return bool(filesystem.isdir(plain))


def _matches(pattern: str) -> list[str]:
    filesystem, plain = _filesystem(pattern)
    with _network(pattern):
        found = sorted(filesystem.glob(plain))
    if not found:
        raise BadInput(f"images: {printable(pattern)} matches nothing")
    return [filesystem.unstrip_protocol(item) if not _is_local(pattern) else item for item in found]


def _from_folder(root: str) -> list[Source]:
    if _is_local(root):
        root = str(_actual(root))
        files, left_out = _walk(root)
    else:
        filesystem, plain = _filesystem(root)
        with _network(root):
            found = filesystem.find(plain, detail=True)
        files = [
            (posixpath.relpath(path, plain), filesystem.unstrip_protocol(path), int(info["size"] or -1)) for path, info in found.items()
        ]
        files = [file for file in files if not any(part.startswith(".") for part in file[0].split("/"))]
        left_out = []
    sources: list[Source] = []
    for name, path, length in sorted(files):
        folders = name.split("/")[:-1]
        label = folders.pop() if folders and folders[-1].lower() not in SPLITS else None
        split = next((folder for folder in reversed(folders) if folder.lower() in SPLITS), None)
        sources.append(Source(name, path, label, split, length=length))
    return sources + [Source(name, path, reason=reason) for name, path, reason in sorted(left_out)]


def _walk(root: str) -> tuple[list[tuple[str, str, int]], list[tuple[str, str, str]]]:
    """All files below a local folder, (name, path, bytes), and the folders left out, (name, path, reason).

    Links are followed after all real folders, so that a folder is listed under its own name.
    """
    files: list[tuple[str, str, int]] = []
    left_out: list[tuple[str, str, str]] = []
    seen: dict[tuple[int, int], str] = {}
    folders, links = [""], list[str]()
    while folders or links:
        link = not folders
        name = heapq.heappop(links) if link else folders.pop()
        path = Path(root, name)
        try:
            status = path.stat()
            first = seen.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                raise BadImage(f"{'a link to' if link else 'the same as'} {_inside(first)}, which is listed already")
            with os.scandir(path) as entries:
                inside = [(f"{name}/{entry.name}" if name else entry.name, entry) for entry in entries if not entry.name.startswith(".")]
        except (BadImage, OSError) as error:
            reason = error.reason if isinstance(error, BadImage) else f"a folder that cannot be read ({_words(error)})"
            if not name:
                raise BadInput(f"images: {printable(root)} is {reason}") from None
            left_out.append((printable(name), printable(path), reason))
            continue
        for below, entry in inside:
            if not _leads_to_folder(entry):
                files.append((printable(below), printable(Path(root, below)), _length(entry)))
            elif entry.is_symlink():
                heapq.heappush(links, below)
            else:
                folders.append(below)
    return files, left_out


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: reading it tells
        return False


def _length(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:  # gone meanwhile
        return -1


def _inside(name: str) -> str:
    return f"folder {printable(name)}" if name else "the folder itself"


def _from_list(path: str) -> Iterator[Source]:
    """The rows of a table; relative paths are meant from the table's own folder."""
    rows = _table(path).to_pylist()
    column = next((name for name in _COLUMNS if rows and name in rows[0]), None)
    if column is None:
        has = ", ".join(rows[0]) if rows else "no rows"
        raise BadInput(f"images: {path} needs rows with a column path (or {', '.join(_COLUMNS[1:])}); it has {has}")
    folder = posixpath.dirname(path)
    for row in rows:
        name = row[column]
        if not name:
            raise BadInput(f"images: {path} has a row without a {column}")
        absolute = "://" in name or posixpath.isabs(name)
        label, split, its_domain = (None if row.get(key) in (None, "") else str(row[key]) for key in ("label", "split", "domain"))
        yield Source(str(name), str(name) if absolute else posixpath.join(folder, name), label, split, its_domain)


def _table(path: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        with _open(path) as file:
            if path.lower().endswith(".parquet"):
                return pyarrow.parquet.read_table(file)
            options = pyarrow.csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
            text = {name: pa.string() for name in (*_COLUMNS, "label", "split", "domain")}
            return pyarrow.csv.read_csv(file, parse_options=options, convert_options=pyarrow.csv.ConvertOptions(column_types=text))
    except FileNotFoundError:
        raise BadInput(f"images: {path}: no such file or folder") from None
    except (pa.ArrowException, OSError, BadImage) as error:
        raise BadInput(f"images: {path} cannot be read as a table ({_words(error)})") from None


def _from_tar(path: str) -> Iterator[Source]:
    """The images of a WebDataset shard: members of one stem belong together, `.cls` or `.json` beside an image say what it is."""
    images: list[tuple[str, int, int]] = []
    known: dict[str, dict[str, str]] = {}
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                stem, suffix = _stem(member.name)
                if not member.isfile() or posixpath.basename(member.name).startswith("."):
                    continue
                if is_image(member.name):
                    images.append((member.name, member.offset_data, member.size))
                elif suffix in (".cls", ".json") and (told := tar.extractfile(member)) is not None:
                    known.setdefault(stem, {}).update(_told(suffix, told.read(), f"{path}{MEMBER}{member.name}"))
    except FileNotFoundError:
        raise BadInput(f"images: {path}: no such file or folder") from None
    except (tarfile.TarError, OSError, BadImage) as error:
        raise BadInput(f"images: {path} cannot be read as a tar ({_words(error)})") from None
    for name, offset, length in images:
        about = known.get(_stem(name)[0], {})
        label, split, its_domain = (about.get(key) for key in ("label", "split", "domain"))
        shown = printable(name)
        yield Source(shown, f"{printable(path)}{MEMBER}{shown}", label, split, its_domain, offset, length)


def _stem(name: str) -> tuple[str, str]:
    """A member's name up to the first dot of its last part, which samples of a WebDataset share, and its last suffix."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0]), posixpath.splitext(base)[1].lower()


def _told(suffix: str, data: bytes, where: str) -> dict[str, str]:
    try:
        if suffix == ".cls":
            return {"label": data.decode().strip()}
        read = json.loads(data)
        return {key: str(read[key]) for key in ("label", "split", "domain") if isinstance(read, dict) and read.get(key) not in (None, "")}
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise BadInput(f"images: {where} is not readable as {'text' if suffix == '.cls' else 'JSON'}") from None


# --- reading images


def read_bytes(path: str | os.PathLike[str], offset: int = -1, length: int = -1) -> bytes:
    """The bytes of an image's file.

    Args:
        path: A local path, a URL that fsspec knows, or TAR::MEMBER.
        offset, length: Where they lie in the tar shard; -1: looked up.

    Raises:
        BadImage: It is not there, is no regular file, is empty, larger than :data:`MOST_BYTES`, or cannot be read.
        BadInput: An unknown kind of URL.
        ConvscopeError: The network failed, which says nothing about the image.
    """
    text = printable(path)
    shard, member = _member(text)
    try:
        if offset < 0 and shard and not (_is_local(text) and os.path.lexists(_actual(text))):
            offset, length = _members(shard, _stamp(shard))[member]
        if offset >= 0:
            data = _part(shard, offset, length)
        elif not _is_local(text) and 0 <= length <= MOST_BYTES:
            data = _fetched(text)
        else:
            if _is_local(text):
                _check_length(_actual(text).stat().st_size)
            with _open(text) as file:
                data = _all(file)
    except BadImage as error:
        raise BadImage(error.reason, text) from None
    except ConvscopeError:
        raise
    except KeyError:
        raise BadImage("the tar shard has no such member", text) from None
    except (FileNotFoundError, NotADirectoryError):
        raise BadImage("no such file" + (" (a link to nowhere)" if _actual(text).is_symlink() else ""), text) from None
    except (OSError, ValueError, tarfile.TarError) as error:
        raise BadImage(f"cannot be read ({_words(error)})", text) from None
    if not data:
        raise BadImage("empty file", text)
    return data


def _fetched(url: str) -> bytes:
    """The bytes of a URL of known length, in one request."""
    filesystem, plain = _filesystem(url)
    with _network(url):
        return filesystem.cat_file(plain)


def _all(file: IO[bytes]) -> bytes:
    """What is left of a file, in pieces: a stream gives fewer bytes than asked for, and may never end."""
    pieces: list[bytes] = []
    length = 0
    while piece := file.read(2**20):
        pieces.append(piece)
        length += len(piece)
        _check_length(length)
    return b"".join(pieces)


def _part(shard: str, offset: int, length: int) -> bytes:
    _check_length(length)
    with _open(shard) as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise BadImage("the tar shard ends before it")
    return data


def _check_length(length: int) -> None:
    if length > MOST_BYTES:
        raise BadImage(f"a file of more than {MOST_BYTES // 2**20} MB")


def _member(path: str) -> tuple[str, str]:
    """The tar shard that a path lies in and the member's name; two empty strings where it lies in none."""
    shard, sign, member = path.lower().partition(_TAR + MEMBER)
    return (path[: len(shard) + len(_TAR)], path[len(path) - len(member) :]) if sign else ("", "")


@functools.lru_cache(maxsize=64)
def _members(shard: str, _stamp: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Where each file of an uncompressed tar lies: {name: (offset, length)}."""
    with _open(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        return {printable(member.name): (member.offset_data, member.size) for member in tar if member.isfile()}


def _stamp(shard: str) -> tuple[int, int]:
    """When a local tar was written, and its length."""
    if not _is_local(shard):
        return 0, 0
    status = _actual(shard).stat()
    return status.st_mtime_ns, status.st_size


@contextmanager
def _open(path: str) -> Generator[IO[bytes]]:
    """A regular local file, or a URL, for reading; what fails is OSError, BadImage (no regular file) or, for a URL, ConvscopeError."""
    if _is_local(path):
        actual = _actual(path)
        _check_regular(actual.stat())
        with actual.open("rb") as file:
            yield file
        return
    filesystem, plain = _filesystem(path)
    with _network(path), filesystem.open(plain, "rb") as file:
        yield cast("IO[bytes]", file)


def _check_regular(status: os.stat_result) -> None:
    """Refuses what would block or never end."""
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(next((words for test, words in _KINDS if test(status.st_mode)), "not a regular file"))


@contextmanager
def _network(path: str) -> Generator[None]:
    """A missing or forbidden file passes through; everything else that goes wrong with a URL is the network's."""
    try:
        yield
    except (ConvscopeError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, tarfile.TarError):
        raise
    except Exception as error:
        if _is_local(path):
            raise
        if 400 <= getattr(error, "status", 0) < 500:  # the server has answered, and refuses this one
            raise PermissionError(0, _words(error)) from None
        raise ConvscopeError(f"{path}: cannot be fetched ({type(error).__name__}: {_words(error)})") from None


def _filesystem(path: str) -> tuple[Any, str]:
    """The file system that a URL or pattern belongs to, and the path there."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if _is_local(path):
        return LocalFileSystem(), str(_actual(path).absolute())
    try:
        return url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise BadInput(f"images: {path}: {_words(error)}") from None


def _is_local(path: str) -> bool:
    return "://" not in path or path.startswith(_LOCAL)


def _actual(path: str) -> Path:
    r"""The local path behind a printable one: \xNN stands for a byte where there is no such file."""
    for protocol in _LOCAL:
        path = path.removeprefix(protocol)
    if "\\x" not in path or os.path.lexists(path):
        return Path(path)
    return Path(_ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", "surrogateescape"), path))


def _words(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return " ".join(text.split())
