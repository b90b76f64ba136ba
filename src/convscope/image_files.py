"""Image files: those that a folder, list, tar shard or pattern stands for, and their bytes, read with every check.

Techniques, scans and surveys all find and read images here. Paths are local, or URLs that fsspec knows.
"""

from __future__ import annotations

import functools
import heapq
import importlib.util
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from convscope.errors import BadImage, BadInput, ConvscopeError
from convscope.files import Refused, actual, check_length, filesystem, is_url, network, opened, parse_json, read_file
from convscope.text import one_line, printable, visible

FORMATS = {
    **dict.fromkeys([".jpg", ".jpeg", ".jfif"], "JPEG"),
    **dict.fromkeys([".tif", ".tiff"], "TIFF"),
    **dict.fromkeys([".ppm", ".pgm"], "PPM"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    **dict.fromkeys([".avif"] if importlib.util.find_spec("PIL._avif") else [], "AVIF"),
}
"""Suffixes of image files, with Pillow's names of the formats. No other format is decoded, whatever the file is called: Pillow's EPS
decoder, for one, would start Ghostscript."""
SUFFIXES = frozenset(FORMATS)
SPLITS = frozenset("train training val valid validation dev test testing".split())
"""Folder names that mean a split and not a label."""
MEMBER = "::"
"""Between the path of a tar shard and the name of an image in it."""
MOST_BYTES = 2**29
"""Largest image file that is read."""
_MOST_TOLD = 2**20
"""Bytes read of what a tar shard tells of an image."""
_IN_TAR = re.compile(re.escape(f".tar{MEMBER}"), re.IGNORECASE)
_LISTS, _TAR = (".csv", ".tsv", ".parquet"), ".tar"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_COLUMNS = ("path", "file", "filename", "image", "name")


class _About(TypedDict, total=False):
    """What is known of an image."""

    label: str
    split: str
    domain: str


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
    if not is_url(path):
        return os.path.lexists(actual(path))
    system, plain = filesystem(path)
    with network(path):
        return bool(system.exists(plain))


def _is_folder(path: str) -> bool:
    if not is_url(path):
        return os.path.isdir(actual(path))  # noqa: PTH112 (Path.is_dir fails on names that are too long)
    if is_image(path) and not path.startswith("data:"):
        return False
    system, plain = filesystem(path)
    with network(path):
        return bool(system.isdir(plain))


def _matches(pattern: str) -> list[str]:
    system, plain = filesystem(pattern)
    with network(pattern):
        found = sorted(system.glob(plain))
    if not found:
        raise BadInput(f"images: {printable(pattern)} matches nothing")
    return [system.unstrip_protocol(item) if is_url(pattern) else item for item in found]


def _from_folder(root: str) -> list[Source]:
    if not is_url(root):
        root = str(actual(root))
        files, left_out = _walk(root)
    else:
        system, plain = filesystem(root)
        with network(root):
            found = system.find(plain, detail=True)
        files = [(posixpath.relpath(path, plain), system.unstrip_protocol(path), int(info["size"] or -1)) for path, info in found.items()]
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
            reason = error.reason if isinstance(error, BadImage) else f"a folder that cannot be read ({one_line(error)})"
            if not name:
                raise BadInput(f"images: {printable(root)} is {reason}") from None
            left_out.append((printable(name), printable(path), reason))
            continue
        for below, entry in inside:
            if not _leads_to_folder(entry):
                full = os.path.join(root, below)  # noqa: PTH118 (as it is written, for the comparison)
                shown = printable(full)
                if shown != full and os.path.lexists(shown):
                    left_out.append((printable(below), shown, "its name is written like that of another file here; rename it"))
                else:
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
    rows = _rows(path)
    column = next((name for name in _COLUMNS if rows and name in rows[0]), None)
    if column is None:
        has = ", ".join(rows[0]) if rows else "no rows"
        raise BadInput(f"images: {path} needs rows with a column path (or {', '.join(_COLUMNS[1:])}); it has {has}")
    folder = posixpath.dirname(path)
    for row in rows:
        name = str(row[column] or "")
        if not name:
            raise BadInput(f"images: {path} has a row without a {column}")
        absolute = "://" in name or posixpath.isabs(name)
        yield Source(printable(name), printable(name if absolute else posixpath.join(folder, name)), **_about(row))


def _rows(path: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        with opened(path) as file:
            if path.lower().endswith(".parquet"):
                return pyarrow.parquet.read_table(file).to_pylist()
            options = pyarrow.csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
            text = {name: pa.string() for name in (*_COLUMNS, "label", "split", "domain")}
            converting = pyarrow.csv.ConvertOptions(column_types=text)
            return pyarrow.csv.read_csv(file, parse_options=options, convert_options=converting).to_pylist()
    except FileNotFoundError:
        raise BadInput(f"images: {path}: no such file or folder") from None
    except (pa.ArrowException, OSError, ValueError) as error:  # the latter for names of columns that are not UTF-8
        raise BadInput(f"images: {path} cannot be read as a table ({one_line(error)})") from None


def _from_tar(path: str) -> Iterator[Source]:
    """The images of a WebDataset shard: members of one stem belong together, `.cls` or `.json` beside an image say what it is."""
    images: list[tuple[str, int, int, str]] = []
    known: dict[str, _About] = {}
    try:
        with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for name, member, reason in _located(tar):
                stem, suffix = _stem(name)
                if is_image(name):
                    images.append((name, member.offset_data, member.size, reason))
                elif not reason and suffix in (".cls", ".json") and (told := tar.extractfile(member)) is not None:
                    known.setdefault(stem, _About()).update(_told(suffix, told.read(_MOST_TOLD), f"{path}{MEMBER}{name}"))
    except FileNotFoundError:
        raise BadInput(f"images: {path}: no such file or folder") from None
    except (tarfile.TarError, OSError) as error:
        raise BadInput(f"images: {path} cannot be read as a tar ({one_line(error)})") from None
    for name, offset, length, reason in images:
        shown = printable(name)
        place = f"{printable(path)}{MEMBER}{shown}"
        if reason:
            yield Source(shown, place, reason=reason)
        else:
            yield Source(shown, place, offset=offset, length=length, **known.get(_stem(name)[0], _About()))


def _located(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo, str]]:
    """The files of a tar, hidden ones aside: name, the member that holds the bytes, and why they cannot be read, or "".

    Of several members of one name the last counts, as when they are unpacked; links are what they lead to.
    """
    members = {member.name: member for member in tar if not member.isdir()}
    plain = {posixpath.normpath(name): name for name in members}
    for name, member in members.items():
        if posixpath.basename(name).startswith("."):
            continue
        passed: set[str] = set()
        found: tarfile.TarInfo | None = member
        while found is not None and (found.issym() or found.islnk()):
            passed.add(found.name)
            target = posixpath.join(posixpath.dirname(found.name), found.linkname) if found.issym() else found.linkname
            found = members.get(plain.get(posixpath.normpath(target), ""))
            found = None if found is not None and found.name in passed else found
        if found is None:
            yield name, member, f"a link to {printable(member.linkname)}, which leads to nothing in this tar"
        elif not found.isreg():
            yield name, found, "not a regular file"
        else:
            yield name, found, "stored with its holes left out; make the tar without --sparse" if found.sparse else ""


def _about(told: Mapping[str, Any]) -> _About:
    """The label, split and domain in a row or an object, where there are any."""
    known = {key: None if told.get(key) in (None, "") else visible(str(told[key])) for key in _About.__annotations__}
    return cast("_About", {key: value for key, value in known.items() if value is not None})


def _stem(name: str) -> tuple[str, str]:
    """A member's name up to the first dot of its last part, which samples of a WebDataset share, and its last suffix."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0]), posixpath.splitext(base)[1].lower()


def _told(suffix: str, data: bytes, where: str) -> _About:
    try:
        if suffix == ".cls":
            return {"label": visible(data.decode().strip())}
        read = parse_json(data)
        return _about(read) if isinstance(read, dict) else _About()
    except ValueError:
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
        if offset < 0 and shard and (is_url(text) or not os.path.lexists(actual(text))):
            offset, length, reason = _members(shard, _stamp(shard))[member]
            if reason:
                raise BadImage(reason, text)
        if offset >= 0:
            data = _part(shard, offset, length)
        elif is_url(text) and 0 <= length <= MOST_BYTES:
            data = _fetched(text)
        else:
            data = read_file(text, MOST_BYTES)
    except Refused as error:
        raise BadImage(one_line(error), text) from None
    except ConvscopeError:
        raise
    except KeyError:
        raise BadImage("the tar shard has no such member", text) from None
    except (FileNotFoundError, NotADirectoryError):
        raise BadImage("no such file" + (" (a link to nowhere)" if actual(text).is_symlink() else ""), text) from None
    except (OSError, ValueError, tarfile.TarError) as error:
        raise BadImage(f"cannot be read ({one_line(error)})", text) from None
    if not data:
        raise BadImage("empty file", text)
    return data


def _fetched(url: str) -> bytes:
    """The bytes of a URL of known length, in one request."""
    system, plain = filesystem(url)
    with network(url):
        return system.cat_file(plain)


def _part(shard: str, offset: int, length: int) -> bytes:
    check_length(length, MOST_BYTES)
    with opened(shard) as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise BadImage("the tar shard ends before it")
    return data


def _member(path: str) -> tuple[str, str]:
    """The tar shard that a path lies in and the member's name; two empty strings where it lies in none."""
    found = _IN_TAR.search(path)
    return (path[: found.end() - len(MEMBER)], path[found.end() :]) if found else ("", "")


@functools.lru_cache(maxsize=64)
def _members(shard: str, _stamp: tuple[int, int]) -> dict[str, tuple[int, int, str]]:
    """Where each file of an uncompressed tar lies: {name: (offset, length, why it cannot be read)}."""
    with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        return {printable(name): (member.offset_data, member.size, reason) for name, member, reason in _located(tar)}


def _stamp(shard: str) -> tuple[int, int]:
    """When a local tar was written, and its length."""
    if is_url(shard):
        return 0, 0
    status = actual(shard).stat()
    return status.st_mtime_ns, status.st_size
