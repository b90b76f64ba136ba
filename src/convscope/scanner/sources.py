"""The listing of a scan: all its images in order, with label, split and domain, as a table."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from convscope.errors import BadInput
from convscope.image_files import SUFFIXES, Source, exists, find_images, is_image
from convscope.text import printable

_COLUMNS = {"name": pa.string(), "path": pa.string()} | {
    name: pa.dictionary(pa.int32(), pa.string()) for name in ("label", "split", "domain")
}
_PLACES = {"offset": pa.int64(), "length": pa.int64()}
_REASON = {"reason": pa.dictionary(pa.int32(), pa.string())}


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
        columns = {name: pa.array([getattr(row, name) for row in rows], pa.string()).cast(kind) for name, kind in _COLUMNS.items()}
        columns |= {name: pa.array([getattr(row, name) for row in rows], kind) for name, kind in _PLACES.items()}
        columns |= {name: pa.array([getattr(row, name) for row in rows], pa.string()).cast(kind) for name, kind in _REASON.items()}
        return Listing(pa.table(columns).combine_chunks())

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
        for batch in self.table.drop_columns(["reason"]).to_batches(max_chunksize=65536):
            rows = [row | {"path": posixpath.basename(row["path"])} for row in batch.to_pylist()]
            digest.update(json.dumps(rows, ensure_ascii=False).encode())
        return digest.hexdigest()[:16]


def find_sources(images: Any, domain: str | None = None) -> Listing:
    """Lists the images meant by what a caller gave.

    Args:
        images: A folder, list, tar shard or pattern, see :func:`~convscope.image_files.find_images`; or a sequence of these and of files.
        domain: The domain of all images that have none.

    Raises:
        BadInput: There is nothing of that kind, or a list is wrong.
    """
    if isinstance(images, (str, os.PathLike)):
        path = os.fspath(images)
        if not exists(path) and not any(sign in path for sign in "*?["):
            raise BadInput(f"images: {printable(path)}: no such file or folder")
        return _checked(Listing.of(find_images(path), domain), printable(path))
    if isinstance(images, Sequence) and images and all(isinstance(item, (str, os.PathLike)) for item in images):
        found = (source for item in images for source in find_images(os.fspath(item)))
        return _checked(Listing.of(found, domain), "the list")
    raise BadInput("images: a scan reads files: expected a folder, a list (.csv, .parquet), tar shards, or a sequence of paths")


def _checked(listing: Listing, what: str) -> Listing:
    if not any(is_image(name) for name in listing.table["name"].to_pylist()):
        raise BadInput(f"images: {what} has no image files (looked for {' '.join(sorted(SUFFIXES))})")
    return listing
