"""The command that asks a survey by SQL. Loads no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from convscope.cli.derive import command
from convscope.cli.show import print_table, say, write_csv, write_json
from convscope.errors import BadInput

if TYPE_CHECKING:
    from pyarrow import Table

_LONGEST = 48


@command
def query(survey: str, sql: str, *, rows: int = 40, csv: bool = False, json: bool = False) -> None:
    """SQL over a survey.

    Views: images, skipped, layers, channels, classes, top; values with a row per image, layer and channel; rows, the same with lists.

    Args:
        survey: Folder of a survey, or a URL such as s3://bucket/survey.
        sql: A query in DuckDB's SQL.
        rows: Rows shown at most; --csv and --json give all.
        csv: All rows as CSV.
        json: All rows as JSON.

    Command line:
        convscope query survey "select label, count(*) from images group by label"
        convscope query survey "select * from values where layer = 'output' and maximum > 5" --csv
    """
    from convscope.survey import read_survey

    if csv and json:
        raise BadInput("--csv and --json exclude each other")
    if rows < 1:
        raise BadInput(f"--rows must be at least 1, got {rows}")
    found = read_survey(survey).query(sql)
    if csv:
        write_csv(found.column_names, [[_text(row[name]) for name in found.column_names] for row in _rows(found)])
    elif json:
        write_json([{name: _plain(value) for name, value in row.items()} for row in _rows(found)])
    else:
        _write_table(found.column_names, _rows(found.slice(0, min(rows, found.num_rows))), found.num_rows)


def _rows(found: Table) -> list[dict[str, Any]]:
    """The rows as Python's values.

    Raises:
        BadInput: Among them are dates that Python has not, such as infinity.
    """
    columns: list[list[Any]] = []
    for name, column in zip(found.column_names, found.columns, strict=True):
        try:
            columns.append(column.to_pylist())
        except (OverflowError, ValueError):
            raise BadInput(f"query: column {name} holds dates beyond the years 1 to 9999; select it as text: {name}::varchar") from None
    return [dict(zip(found.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _write_table(names: Sequence[str], rows: list[dict[str, Any]], count: int) -> None:
    numeric = [bool(rows) and all(isinstance(row[name], (int, float, Decimal, type(None))) for row in rows) for name in names]
    print_table("", names, [[_cell(row[name]) for name in names] for row in rows], right=numeric)
    more = f"; the first {len(rows)} are shown, --rows, --csv or --json give more" if count > len(rows) else ""
    say(f"{count} row{'s' if count != 1 else ''}{more}")


def _plain(value: Any) -> Any:
    """A value as JSON has it: bytes as hexadecimal digits, what is not a number as null, dates and other types as text."""
    match value:
        case bytes():
            return value.hex()
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case None | bool() | int() | str():
            return value
        case Decimal():  # sums of whole numbers are such, of any length
            return int(value) if value == value.to_integral_value() else float(value)
        case _:
            return str(value)


def _text(value: Any) -> Any:
    plain = _plain(value)
    return json.dumps(plain) if isinstance(plain, (list, dict)) else plain


def _cell(value: Any) -> str:
    """A value in one short line of a table."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        inner = ", ".join(_cell(each) for each in value[:4])
        return f"[{inner}, ... {len(value)} in all]" if len(value) > 4 else f"[{inner}]"
    text = str(value)
    return text if len(text) <= _LONGEST else f"...{text[-_LONGEST + 3 :]}"
