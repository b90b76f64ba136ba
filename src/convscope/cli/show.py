"""How the command line shows things: progress, tables, and where files went."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import resource
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from convscope.progress import reporting
from convscope.text import json_text, printable, visible, visible_lines

_FORMULA, _NUMBER = re.compile(r"[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
UNBOUND = 10_000
"""A width that every table fits."""

_told: ContextVar[dict[str, Any] | None] = ContextVar("convscope_told", default=None)
"""What a command has said so far, where its answer is wanted as JSON."""


@contextmanager
def answering(*, as_json: bool) -> Generator[None]:
    """Within the block, what is said, tables and files are one answer in JSON, written at its end; else they are written as they come."""
    if not as_json:
        yield
        return
    token = _told.set({})
    try:
        yield
        write_told()
    finally:
        _told.reset(token)


def write_told() -> None:
    """Writes what was said so far, where it is wanted as JSON: the rows alone where there is nothing but a table, else an object."""
    if told := _told.get():
        write_json(told["rows"] if told.keys() == {"rows"} else told)
        told.clear()


def wants_rows() -> bool:
    """Whether the answer is wanted as JSON, so that rows and numbers count."""
    return _told.get() is not None


def tell(**values: Any) -> None:
    """Numbers of an answer, which only JSON has apart from the words."""
    if (told := _told.get()) is not None:
        told.update(values)


def console() -> Console:
    """Standard output; as wide as it takes when it is not a terminal, so that piped tables are not cut."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=200)


@contextmanager
def progress() -> Generator[None]:
    """Progress of the block on standard error: a bar on a terminal, a plain line now and then elsewhere."""
    if not sys.stderr.isatty():
        with reporting(_Lines()):
            yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[rate]}  {task.fields[memory]}  {task.fields[note]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars, reporting(_Bars(bars)):
        yield


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[bool],
    spare: Sequence[str] = (),
    records: Sequence[Mapping[str, Any]] = (),
) -> None:
    """A table on standard output.

    Args:
        title: Line above it, or "".
        header: Names of the columns.
        rows: Their texts.
        right: Which columns are aligned right, as numbers are.
        spare: Columns that are left out, the last first, until the table fits the terminal. The first column is never wrapped.
        records: The rows for an answer in JSON.
    """
    if wants_rows():
        tell(rows=list(records))
        return
    shown, left_out = list(range(len(header))), [header.index(name) for name in spare]
    while True:
        table = Table(title=Text(visible(title)) if title else None, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for index in shown:
            side = "right" if right[index] else "left"
            # names are there to be copied
            table.add_column(Text(visible(header[index])), justify=side, overflow="fold", no_wrap=index == 0)
        for row in rows:
            table.add_row(*(Text(visible(row[index])) for index in shown))
        if not left_out or console().measure(table, options=console().options.update(width=UNBOUND)).maximum <= console().width:
            break
        shown.remove(left_out.pop())
    console().print(table)


def say(line: str, *, error: bool = False) -> None:
    """A line on standard output, or on standard error."""
    if (told := _told.get()) is not None and not error:
        told["summary"] = "\n".join(filter(None, [told.get("summary", ""), visible_lines(line)]))
        return
    (sys.stderr if error else sys.stdout).write(f"{visible_lines(line)}\n")


def print_written(paths: Sequence[tuple[Path | str, str]]) -> None:
    """Where files went, and what each is."""
    named = [(printable(path), what) for path, what in paths]
    if wants_rows():
        tell(files=[{"path": path, "what": what} for path, what in named])
        return
    width = max(len(path) for path, _ in named)
    for path, what in named:
        sys.stdout.write(f"wrote {path.ljust(width)}  {visible(what)}\n")


def write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as CSV on standard output, by RFC 4180 but for line ends, which are those of this system's other tools.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers.
    """
    out = io.StringIO()  # all of it before the first line is out
    for row in [names, *rows]:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow([_no_formula(value) for value in row])  # with these, a bare CR is quoted
        out.write(f"{line.getvalue()[:-2]}\n")
    text = out.getvalue()
    sys.stdout.write(visible_lines(text) if sys.stdout.isatty() else text)


def write_json(value: Any) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(f"{json_text(json.dumps(value, indent=1, ensure_ascii=False))}\n")


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self.bars = bars

    def begin(self, description: str, total: int) -> int:
        return self.bars.add_task(visible(description), total=total, rate="", memory="", note="")

    def advance(self, task: int, steps: int, note: str) -> None:
        self.bars.update(TaskID(task), advance=steps, note=visible(note), memory=_memory(), rate=_rate(self.bars.tasks[task].speed))

    def end(self, task: int) -> None:
        self.bars.remove_task(TaskID(task))


class _Lines:
    """A line at the start, then at most one every ten seconds."""

    EVERY = 10.0

    def begin(self, description: str, total: int) -> int:
        self.description, self.total, self.done = visible(description), total, 0
        self.started = self.said = time.monotonic()
        return 0

    def advance(self, task: int, steps: int, note: str) -> None:  # noqa: ARG002 - there is one task at a time
        self.done += steps
        now = time.monotonic()
        if now - self.said >= self.EVERY and self.done < self.total:
            self.said = now
            speed = self.done / (now - self.started)
            left = (self.total - self.done) / speed
            percent = 100 * self.done // self.total
            sys.stderr.write(
                f"{self.description}: {percent} %, {_rate(speed)}, {left:.0f} s left, {_memory()}{' ' if note else ''}{visible(note)}\n"
            )

    def end(self, task: int) -> None:  # noqa: ARG002
        if self.done >= self.total > 0:
            sys.stderr.write(f"{self.description}: done in {time.monotonic() - self.started:.1f} s\n")


def _rate(speed: float | None) -> str:
    return f"{speed:.1f}/s" if speed else ""


def _memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB peak"
