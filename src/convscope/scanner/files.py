"""A survey's folder while it is being written: on this machine or wherever fsspec reaches. A file is there whole, or not at all."""

from __future__ import annotations

import json
import os
import posixpath
import secrets
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

_TEMPORARY = ".tmp-"


class Place:
    """A folder or an object store's prefix."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.filesystem, self.root = url_to_fs(path)
        self.local = isinstance(self.filesystem, LocalFileSystem)

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return bool(self.filesystem.exists(self._at(name)))

    def names(self, folder: str = "") -> set[str]:
        """The names of all files and folders directly in a folder; none if it is not there."""
        try:
            self.filesystem.invalidate_cache()
            return {posixpath.basename(path.rstrip("/")) for path in self.filesystem.ls(self._at(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def read_json(self, name: str) -> Any:
        """A JSON file; None if it is not there."""
        try:
            return json.loads(self.filesystem.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file, whole or not at all."""
        with self.writing(name) as file:
            file.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode())

    def open(self, name: str) -> IO[bytes]:
        """A file opened for reading."""
        return self.filesystem.open(self._at(name), "rb")  # type: ignore[return-value]

    @contextmanager
    def writing(self, name: str) -> Generator[IO[bytes]]:
        """A file that appears under its name when the block is left without an error.

        Locally by a temporary name, a flush to the disk and a rename; an object store shows an object only when it is complete.
        """
        final = self._at(name)
        self.filesystem.makedirs(posixpath.dirname(final), exist_ok=True)
        if not self.local:
            with self.filesystem.open(final, "wb") as file:
                yield file  # type: ignore[misc]
            return
        temporary = Path(final).with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{posixpath.basename(final)}")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def writing_table(self, name: str, schema: pa.Schema, like: Sequence[str] = ()) -> Generator[Callable[[pa.Table], None]]:
        """A Parquet file that appears when the block is left; the block calls what it gets with one table for each row group.

        Args:
            name: File name.
            schema: Its columns.
            like: Columns whose values repeat: these are stored by dictionary, floats by byte streams, which compress better.
        """
        with (
            self.writing(name) as file,
            pq.ParquetWriter(
                file,
                schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=list(like) or False,  # type: ignore[arg-type]
                write_statistics=[field.name for field in schema if not pa.types.is_list(field.type)],  # type: ignore[arg-type]
                use_byte_stream_split=[column for column in _floats(schema) if column not in like],  # type: ignore[arg-type]
            ) as writer,
        ):
            yield lambda table: writer.write_table(table, row_group_size=max(1, table.num_rows))

    def free(self) -> int | None:
        """Bytes free there; None where that is not known."""
        if not self.local:
            return None
        folder = Path(self.root)
        while not folder.is_dir():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def remove(self, name: str) -> None:
        """Removes a file or a folder with all that is in it, if it is there."""
        if self.exists(name):
            self.filesystem.rm(self._at(name), recursive=True)

    def clean(self, folder: str = "") -> None:
        """Removes what an interrupted run has left half written."""
        for name in self.names(folder):
            if name.startswith(_TEMPORARY):
                self.filesystem.rm(self._at(posixpath.join(folder, name)))

    def _at(self, name: str) -> str:
        return posixpath.join(self.root, name) if name else self.root


def _floats(schema: pa.Schema) -> list[str]:
    """Parquet's names of the columns of floats, those in lists included."""
    plain = [field.name for field in schema if pa.types.is_floating(field.type)]
    lists = [
        f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type)
    ]
    return plain + lists
