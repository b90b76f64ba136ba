"""Reads the files of a survey on any file system: Parquet tables, and SQL by DuckDB."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from convscope.errors import BadInput, StoreConflict
from convscope.files import MOST_JSON, check_form, check_regular, filesystem, is_local, opened_on, parse_json, read_all
from convscope.survey import alone, manifest
from convscope.survey.schema import MANIFEST, NULLABLE, SCHEMAS, VALUES, VERSION
from convscope.text import one_line

_LONG = """create view "values" as select image, layer, unnest(range(len(maximum)))::integer as channel, unnest(maximum) as maximum,
unnest(mean) as mean, unnest(y) as y, unnest(x) as x from "rows" """


_PATTERN = re.compile(r"([*?\[])")
"""What DuckDB would take for a pattern in the name of a file."""
_SETTINGS: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": "4GB",
    "temp_directory": "",
}


@dataclass(frozen=True)
class Files:
    """The folder of a survey on any file system.

    Attributes:
        system: The file system (fsspec).
        root: The folder's path on it.
        name: The path or URL that was given.
    """

    system: Any
    root: str
    name: str

    def read_manifest(self) -> dict[str, Any]:
        """The manifest of a finished survey.

        Raises:
            StoreConflict: No such folder, an unfinished survey, no survey, or another layout.
        """
        try:
            with self._opened(MANIFEST) as file:
                head = parse_json(read_all(file, MOST_JSON))
        except FileNotFoundError:
            if not self.system.isdir(self.root):
                raise StoreConflict(f"{self.name}: there is no such folder") from None
            again = "run the scan again to resume it"
            raise StoreConflict(f"{self.name}: holds no finished survey ({MANIFEST} is missing; {again})") from None
        except (OSError, ValueError) as error:
            raise StoreConflict(f"{self.name}: {MANIFEST} cannot be read ({one_line(error)})") from None
        kind = head.get("technique") if isinstance(head, dict) else None
        if kind != "scan":
            what = f"a result of {kind}" if isinstance(kind, str) else "something else"
            raise StoreConflict(f"{self.name}: is no survey, but {what}; convscope scan makes surveys")
        if head.get("schema") != VERSION:
            raise StoreConflict(f"{self.name}: a survey of layout {head.get('schema')}; this convscope reads layout {VERSION}: scan again")
        try:
            check_form(head, manifest.SCHEMA)
        except ValueError as error:
            raise StoreConflict(f"{self.name}: {MANIFEST} is damaged ({error})") from None
        return head

    def table(self, name: str) -> pa.Table:
        """One of the small tables.

        Raises:
            StoreConflict: The file is missing or damaged.
        """
        try:
            with self._opened(f"{name}.parquet") as file:
                found = pq.read_table(file).select(SCHEMAS[name].names).cast(SCHEMAS[name])
            found.validate(full=True)  # text that is no UTF-8, for one
            empty = [column for column in found.column_names if column not in NULLABLE.get(name, ()) and found[column].null_count]
            if empty:
                raise ValueError(f"column {empty[0]} has missing values")
            return found
        except FileNotFoundError:
            raise StoreConflict(f"{self.name}: {name}.parquet is missing") from None
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise StoreConflict(f"{self.name}: {name}.parquet is damaged ({one_line(error)})") from None

    def value_files(self) -> list[str]:
        """The files of per-image values, in order; none if the survey has summaries only.

        Raises:
            StoreConflict: One of them is no regular file.
        """
        try:
            listed = self.system.ls(f"{self.root}/{VALUES}", detail=False)
        except FileNotFoundError:
            return []
        return self._regular(sorted(str(path) for path in listed if str(path).endswith(".parquet")))

    def values(self, layer: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of one layer, shard by shard; other layers' row groups are not read.

        Raises:
            StoreConflict: A file is damaged.
        """
        try:
            rows = ds.dataset(self.value_files(), SCHEMAS["values"], format="parquet", filesystem=self.system)
            yield from rows.to_batches(columns=["image", *columns], filter=ds.field("layer") == layer)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StoreConflict(f"{self.name}: {VALUES}/ is damaged ({one_line(error)})") from None

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with a view for each table: images, skipped, layers, channels, classes, top, rows and values.

        It reads this folder and nothing else: no other file, no network, no extension, no change of its own settings.
        """
        connection = duckdb.connect(config=_SETTINGS)
        local = is_local(self.system)
        if not local:
            connection.register_filesystem(self.system)

        def url(path: str) -> str:
            return path if local else self.system.unstrip_protocol(path)

        def view(name: str, paths: Sequence[str], form: str = "select * from {table}") -> None:
            listed = ", ".join(_quoted(_PATTERN.sub(r"[\1]", url(path))) for path in paths)
            connection.execute(f'create view "{name}" as {form.replace("{table}", f"read_parquet([{listed}])")}')

        shards = self.value_files()
        whole: dict[str, str] = {}
        if shards:
            view("rows", shards)
            connection.execute(_LONG)
            votes = str(int(self.read_manifest()["votes_per_image"]))
            whole = {"classes": alone.CLASSES.replace("{votes}", votes), "top": alone.TOP}
        for name in sorted(SCHEMAS.keys() - {VALUES}, key=lambda name: name in whole):  # those made of others last
            view(name, self._regular([f"{self.root}/{name}.parquet"]), whole.get(name, "select * from {table}"))
        folder = f"{url(self.root)}/"
        allowed = ", ".join(map(_quoted, {folder, _PATTERN.sub(r"[\1]", folder)}))  # compared as they are written
        connection.execute(f"set allowed_directories = [{allowed}]")
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        return connection

    def query(self, sql: str) -> pa.Table:
        """The result of a query over the views; columns of one name are numbered: a, a_2.

        Raises:
            BadInput: The query is wrong, or is not one select.
        """
        if not isinstance(sql, str):  # pyright: ignore[reportUnnecessaryIsInstance] (callers may not check types)
            raise BadInput(f"query: expected SQL as text, got {type(sql).__name__}")
        if any("\ud800" <= sign <= "\udfff" for sign in f"{sql}{self.root}"):
            raise BadInput("query: DuckDB takes nothing but UTF-8, which the query or the survey's path is not")
        try:
            with self.connect() as connection:
                statements = connection.extract_statements(sql)
                if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                    raise BadInput("query: expected one select, e.g. select * from images; a survey is for reading")
                found = _interruptible(connection, lambda: cast("Any", connection.sql(sql)).to_arrow_table())
                return found.rename_columns(_numbered(found.column_names))
        except (duckdb.Error, RuntimeError) as error:
            hint = ""
            if not self.value_files() and re.search(r"\b(rows|values)\b", sql):
                hint = "; this survey has summaries only: no views rows and values"
            raise BadInput(f"query: {_line(error)}{hint}") from None

    def _opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return opened_on(self.system, f"{self.root}/{name}", f"{self.name}/{name}")

    def _regular(self, paths: list[str]) -> list[str]:
        """The paths, if none of them is a pipe or device, whose reading would not end."""
        if is_local(self.system):
            for path in paths:
                try:
                    check_regular(Path(path).stat())
                except OSError as error:
                    raise StoreConflict(f"{self.name}: {path} cannot be read ({one_line(error)})") from None
        return paths


def _quoted(text: str) -> str:
    return f"'{text.replace(chr(39), chr(39) * 2)}'"


def _interruptible(connection: duckdb.DuckDBPyConnection, run: Callable[[], pa.Table]) -> pa.Table:
    """What a function makes on a connection. Ctrl-C ends it, which DuckDB notices by itself on some threads alone."""
    found: list[pa.Table] = []
    failed: list[BaseException] = []
    stopped, ended = threading.Event(), threading.Event()

    def work() -> None:
        try:
            if not stopped.is_set():
                found.append(run())
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    begun = threading.Thread(target=work, daemon=True)
    try:
        begun.start()
        ended.wait()
    except BaseException:
        stopped.set()
        while begun.ident is not None and not ended.wait(0.05):  # an interrupt that comes before the query has begun is lost
            connection.interrupt()
        raise
    if failed:
        raise failed[0]
    return found[0]


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, each once: of equal ones the second is NAME_2."""
    taken: list[str] = []
    for name in names:
        free = (f"{name}_{number}" for number in itertools.count(2))
        taken.append(name if name not in taken else next(each for each in free if each not in taken and each not in names))
    return taken


def open_folder(path: str) -> Files:
    """Opens a folder by its path or any URL that fsspec knows.

    Raises:
        BadInput: An unknown or unavailable kind of URL.
    """
    system, root = filesystem(path)
    return Files(system, root.rstrip("/"), path)


def _line(error: Exception) -> str:
    """An error's message on one line, without DuckDB's excerpt of the query."""
    kept = [line for line in str(error).splitlines() if line.strip() and not re.match(r"LINE \d+:|\s*\^", line)]
    return one_line(" ".join(kept))
