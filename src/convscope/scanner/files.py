"""Writes the files of a survey, to a local folder or any URL that fsspec knows. A file appears complete or not at all."""

from __future__ import annotations

import json
import os
import posixpath
import secrets
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from convscope.errors import StoreConflict
from convscope.files import filesystem, parse_json
from convscope.text import one_line

_TEMPORARY = ".tmp-"
LOCK = ".lock"
"""The file that the process which writes a survey holds locked."""


class OutputFolder:
    """The folder of a survey that is being written: a local path or a URL that fsspec knows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.filesystem, self.root = filesystem(path)
        self.local = isinstance(self.filesystem, LocalFileSystem)

    def exists(self, name: str) -> bool:
        """Whether a file exists."""
        return bool(self.filesystem.exists(self._at(name)))

    def names(self, folder: str = "") -> set[str]:
        """The names of all files and folders directly in a folder; none if there is no such folder."""
        try:
            self.filesystem.invalidate_cache()
            return {posixpath.basename(path.rstrip("/")) for path in self.filesystem.ls(self._at(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def read_json(self, name: str) -> Any:
        """The content of a JSON file; None if there is no such file.

        Raises:
            StoreConflict: It is damaged.
        """
        try:
            found = parse_json(self.filesystem.cat_file(self._at(name)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreConflict(f"{self.path}: {name} is damaged ({one_line(error, 200)}); delete the folder, or choose another") from None
        if not isinstance(found, dict):
            raise StoreConflict(f"{self.path}: {name} is damaged (it holds no table); delete the folder, or choose another")
        return cast("dict[str, Any]", found)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file."""
        with self.writing(name) as file:
            file.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode())

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading."""
        return cast("IO[bytes]", self.filesystem.open(self._at(name), "rb"))

    @contextmanager
    def locked(self) -> Generator[None]:
        """Within the block, the folder is there, and no other process of this machine may hold it. A kill ends it, too.

        Object stores have no locks; two scans that write to one URL do the same work twice.

        Raises:
            StoreConflict: Another process holds it.
        """
        if not self.local:
            yield
            return
        Path(self.root).mkdir(parents=True, exist_ok=True)
        lock = FileLock(Path(self.root, LOCK), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise StoreConflict(f"{self.path}: another scan is writing to it; wait until it is done, or choose another folder") from None
        except NotImplementedError:  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def writing(self, name: str) -> Generator[IO[bytes]]:
        """A file to write to, which appears under its name when the block is left without an error.

        Locally by a temporary name, a flush to disk and a rename; an object store shows objects only when they are complete.
        """
        final = self._at(name)
        if not self.local:
            self.filesystem.makedirs(posixpath.dirname(final), exist_ok=True)
            with self.filesystem.open(final, "wb") as file:
                yield cast("IO[bytes]", file)
            return
        temporary = Path(final).with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{posixpath.basename(final)}")
        try:
            if temporary.parent != Path(self.root):
                temporary.parent.mkdir(exist_ok=True)  # never the folder itself, which may have been removed
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def writing_table(self, name: str, schema: pa.Schema, repeating: Sequence[str] = ()) -> Generator[Callable[[pa.Table], None]]:
        """A Parquet file that appears when the block is left; the block gets a function that writes a table as one row group.

        Args:
            name: File name.
            schema: Its columns.
            repeating: Columns whose values repeat: they are dictionary-encoded. Other float columns are split into byte streams, which
                compress better.
        """
        options: dict[str, Any] = {  # pyarrow's annotations know no lists of columns
            "use_dictionary": list(repeating) or False,
            "write_statistics": [field.name for field in schema if not pa.types.is_list(field.type)],
            "use_byte_stream_split": [column for column in _floats(schema) if column not in repeating],
        }
        with self.writing(name) as file, pq.ParquetWriter(file, schema, compression="zstd", compression_level=1, **options) as writer:
            yield lambda table: writer.write_table(table, row_group_size=max(1, table.num_rows))

    def free(self) -> int | None:
        """Free bytes on the disk; None if not known."""
        if not self.local:
            return None
        folder = Path(self.root)
        while not folder.is_dir():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with its content, if it exists."""
        if self.exists(name):
            self.filesystem.rm(self._at(name), recursive=True)

    def remove_if_empty(self, *names: str) -> None:
        """Removes folders that hold nothing; of this machine alone, as object stores have none."""
        for name in names:
            if self.local:
                with suppress(OSError):
                    Path(self._at(name)).rmdir()

    def clean(self, folder: str = "") -> None:
        """Removes the temporary files of interrupted runs."""
        for name in self.names(folder):
            if name.startswith(_TEMPORARY):
                self.filesystem.rm(self._at(posixpath.join(folder, name)))

    def _at(self, name: str) -> str:
        return posixpath.join(self.root, name) if name else self.root


def _floats(schema: pa.Schema) -> list[str]:
    """Parquet's names of the float columns and of the columns of float lists."""
    plain = [field.name for field in schema if pa.types.is_floating(field.type)]
    lists = [
        f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type)
    ]
    return plain + lists
