"""Where images come from: folders, lists with labels, tar shards, single files; on this machine or wherever fsspec reaches."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.core import url_to_fs

from convscope.errors import BadImage, BadInput
from convscope.preprocessing import SUFFIXES

SPLITS = frozenset("train training val valid validation dev test testing".split())
"""Folder names that mean a split and not a label."""
_LISTS, _TARS = (".csv", ".tsv", ".parquet"), (".tar",)
_NAMES = ("path", "file", "filename", "image", "name")
_LARGEST = 2**29
_COLUMNS = {"name": pa.string(), "path": pa.string()} | {
    name: pa.dictionary(pa.int32(), pa.string()) for name in ("label", "split", "domain")
}
_PLACES = {"offset": pa.int64(), "length": pa.int64()}


@dataclass(frozen=True, slots=True)
class Source:
    """One image to be read.

    Attributes:
        number: In the order of the listing.
        name: Below the folder, inside the tar shard, or as listed.
        path: Where it is; TAR::MEMBER inside a tar shard.
        label, split, domain: What is known of it.
        offset: Where its bytes begin in the tar shard; -1: it is a file of its own.
        length: Their number; -1: not known.
    """

    name: str
    path: str
    label: str | None = None
    split: str | None = None
    domain: str | None = None
    offset: int = -1
    length: int = -1
    number: int = -1


class Listing:
    """All images of a scan, in order, as a table: a hundred bytes or so each.

    Args:
        table: A row for each image.
        first: The number of its first.
    """

    def __init__(self, table: pa.Table, first: int = 0) -> None:
        self.table, self.first = table, first

    @staticmethod
    def of(sources: Iterable[Source], domain: str | None) -> Listing:
        """The listing of sources; those without a domain get `domain`."""
        rows = [source if source.domain or not domain else replace(source, domain=domain) for source in sources]
        table = pa.table(
            {name: pa.array([getattr(row, name) for row in rows], pa.string()).cast(kind) for name, kind in _COLUMNS.items()}
            | {name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in _PLACES.items()}
        )
        return Listing(table.combine_chunks())

    def __len__(self) -> int:
        return self.table.num_rows

    def cut(self, start: int, stop: int) -> Listing:
        """Only images start .. stop-1, under their own numbers; small enough to travel."""
        rows = self.table.slice(start - self.first, stop - start)
        return Listing(rows.take(list(range(rows.num_rows))), start)

    def part(self, start: int, stop: int) -> list[Source]:
        """Images start .. stop-1."""
        rows = self.table.slice(start - self.first, stop - start).to_pylist()
        return [Source(**row, number=number) for number, row in enumerate(rows, start)]

    def fingerprint(self) -> str:
        """First 16 hex digits of a hash over names, metadata and lengths: another listing has another one."""
        digest = hashlib.sha256()
        for batch in self.table.to_batches(max_chunksize=65536):
            rows = [row | {"path": posixpath.basename(row["path"])} for row in batch.to_pylist()]
            digest.update(json.dumps(rows, ensure_ascii=False).encode())
        return digest.hexdigest()[:16]


def find_sources(images: Any, domain: str | None = None) -> Listing:
    """Lists the images meant by what a caller gave.

    Args:
        images: A folder; a list (.csv, .tsv, .parquet) with a column `path` and perhaps `label`, `split`, `domain`; a tar shard, or a
            pattern of several such as ``data/train-*.tar``; or a sequence of image files and tar shards. Paths and URLs that fsspec knows.
        domain: The domain of all images that have none.

    Raises:
        BadInput: There is nothing of that kind, or a list is wrong.
    """
    if not isinstance(images, (str, os.PathLike)):
        if isinstance(images, Sequence) and images and all(isinstance(item, (str, os.PathLike)) for item in images):
            found = (source for item in images for source in _from_path(os.fspath(item), single=True))
            return _checked(Listing.of(found, domain), "the list")
        raise BadInput("images: a scan reads files: expected a folder, a list (.csv, .parquet), tar shards, or a sequence of paths")
    path = os.fspath(images)
    return _checked(Listing.of(_from_path(path, single=False), domain), path)


def read_bytes(source: Source) -> bytes:
    """The bytes of an image's file.

    Raises:
        BadImage: It is not there, cannot be read, or is no file that can be.
    """
    try:
        if source.offset >= 0:
            return _member(source)
        if "://" in source.path:
            filesystem, path = url_to_fs(source.path)
            return filesystem.cat_file(path)
        status = Path(source.path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("not a regular file")
        if status.st_size == 0:
            raise BadImage("empty file")
        if status.st_size > _LARGEST:
            raise BadImage(f"file of {status.st_size / 2**20:.0f} MB, more than {_LARGEST // 2**20} MB")
        return Path(source.path).read_bytes()
    except FileNotFoundError:
        raise BadImage("no such file" + (" (a link to nowhere)" if Path(source.path).is_symlink() else "")) from None
    except OSError as error:
        if "://" in source.path and not isinstance(error, PermissionError):
            raise  # a network that fails says nothing about the image: the scan stops, and can be resumed
        raise BadImage(f"cannot be read ({error.strerror or type(error).__name__})") from None


def _member(source: Source) -> bytes:
    with fsspec.open(source.path.partition("::")[0], "rb") as file:
        file.seek(source.offset)  # type: ignore[attr-defined]
        data: bytes = file.read(source.length)  # type: ignore[attr-defined]
    if len(data) != source.length:
        raise BadImage("the tar shard ends before it")
    return data


def _checked(listing: Listing, what: str) -> Listing:
    if not any(_is_image(name) for name in listing.table["name"].to_pylist()):
        raise BadInput(f"images: {what} has no image files (looked for {' '.join(sorted(SUFFIXES))})")
    return listing


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in SUFFIXES


def _from_path(path: str, *, single: bool) -> Iterator[Source]:
    suffix = posixpath.splitext(path)[1].lower()
    if path.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2")):
        raise BadInput(f"images: {path} is a compressed tar, which cannot be read from the middle; unpack it to a plain .tar")
    filesystem, plain = url_to_fs(path)
    if any(sign in plain for sign in "*?[") and not filesystem.exists(plain):
        found = sorted(filesystem.glob(plain))
        if not found:
            raise BadInput(f"images: {path} matches nothing")
        for item in found:
            yield from _from_path(filesystem.unstrip_protocol(item) if "://" in path else item, single=True)
    elif suffix in _TARS:
        yield from _from_tar(path)
    elif filesystem.isdir(plain):
        if single:
            raise BadInput(f"images: {path} is a folder; give one folder, or a list of files")
        yield from _from_folder(path)
    elif suffix in _LISTS:
        yield from _from_list(path)
    elif single or filesystem.exists(plain):
        yield Source(path, path)
    else:
        raise BadInput(f"images: {path}: no such file or folder")


def _from_folder(root: str) -> Iterator[Source]:
    """Every file below a folder, by name; hidden ones are left out. Its folder is its label, or its split if it is called like one."""
    if "://" in root:
        filesystem, plain = url_to_fs(root)
        found = filesystem.find(plain, detail=True)
        files = [
            (posixpath.relpath(path, plain), filesystem.unstrip_protocol(path), int(info["size"] or -1)) for path, info in found.items()
        ]
    else:
        files = [
            (path.relative_to(root).as_posix(), str(path), path.lstat().st_size)
            for folder, _, names in os.walk(root, followlinks=True)
            for path in (Path(folder, name) for name in names)
        ]
    for name, path, length in sorted(files):
        *folders, file = name.split("/")
        if file.startswith(".") or any(folder.startswith(".") for folder in folders):
            continue
        label = folders.pop() if folders and folders[-1].lower() not in SPLITS else None
        split = next((folder for folder in reversed(folders) if folder.lower() in SPLITS), None)
        yield Source(name, path, label, split, length=length)


def _from_list(path: str) -> Iterator[Source]:
    """The rows of a table; relative paths are meant from the table's own folder."""
    rows = _table(path).to_pylist()
    column = next((name for name in _NAMES if rows and name in rows[0]), None)
    if column is None:
        has = ", ".join(rows[0]) if rows else "no rows"
        raise BadInput(f"images: {path} needs rows with a column path (or {', '.join(_NAMES[1:])}); it has {has}")
    folder = posixpath.dirname(path)
    for row in rows:
        name = row[column]
        if not name:
            raise BadInput(f"images: {path} has a row without a {column}")
        absolute = "://" in name or posixpath.isabs(name)
        label, split, its_domain = (None if row.get(key) in (None, "") else str(row[key]) for key in ("label", "split", "domain"))
        yield Source(str(name), str(name) if absolute else posixpath.join(folder, name), label, split, its_domain)


def _table(path: str) -> pa.Table:
    import pyarrow.csv
    import pyarrow.parquet

    try:
        with fsspec.open(path, "rb") as file:
            if path.lower().endswith(".parquet"):
                return pyarrow.parquet.read_table(file)
            options = pyarrow.csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
            text = {name: pa.string() for name in (*_NAMES, "label", "split", "domain")}
            return pyarrow.csv.read_csv(file, parse_options=options, convert_options=pyarrow.csv.ConvertOptions(column_types=text))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"images: {path} cannot be read as a table ({' '.join(str(error).split())})") from None


def _from_tar(path: str) -> Iterator[Source]:
    """The images of a WebDataset shard: members of one stem belong together, `.cls`, `.txt` or `.json` beside an image say what it is."""
    images: list[tuple[str, int, int]] = []
    known: dict[str, dict[str, str]] = {}
    try:
        with fsspec.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[arg-type]
            for member in tar:
                stem, suffix = _stem(member.name)
                if not member.isfile() or posixpath.basename(member.name).startswith("."):
                    continue
                if _is_image(member.name):
                    images.append((member.name, member.offset_data, member.size))
                elif suffix in (".cls", ".json") and (told := tar.extractfile(member)) is not None:
                    known.setdefault(stem, {}).update(_told(suffix, told.read(), f"{path}::{member.name}"))
    except (tarfile.TarError, OSError) as error:
        raise BadInput(f"images: {path} cannot be read as a tar ({' '.join(str(error).split())})") from None
    for name, offset, length in images:
        about = known.get(_stem(name)[0], {})
        label, split, its_domain = (about.get(key) for key in ("label", "split", "domain"))
        yield Source(name, f"{path}::{name}", label, split, its_domain, offset, length)


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
