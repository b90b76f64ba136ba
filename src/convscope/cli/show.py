"""How the command line shows things: progress, tables, and where files went."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from convscope.progress import reporting

UNBOUND = 10_000
"""A width that every table fits."""


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
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[rate]}  {task.fields[memory]}  {task.fields[note]}"),
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
) -> None:
    """A table on standard output.

    Args:
        title: Line above it, or "".
        header: Names of the columns.
        rows: Their texts.
        right: Which columns are aligned right, as numbers are.
        spare: Columns that are left out, the last first, until the table fits the terminal.
    """
    shown, left_out = list(range(len(header))), [header.index(name) for name in spare]
    while True:
        table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for index in shown:
            table.add_column(Text(header[index]), justify="right" if right[index] else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[index]) for index in shown))
        if not left_out or console().measure(table, options=console().options.update(width=UNBOUND)).maximum <= console().width:
            break
        shown.remove(left_out.pop())
    console().print(table)


def say(line: str, *, error: bool = False) -> None:
    """A line on standard output, or on standard error."""
    (sys.stderr if error else sys.stdout).write(f"{line}\n")


def print_written(paths: Sequence[tuple[Path, str]]) -> None:
    """Where files went, and what each is."""
    width = max(len(str(path)) for path, _ in paths)
    for path, what in paths:
        sys.stdout.write(f"wrote {str(path).ljust(width)}  {what}\n")


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self.bars = bars

    def begin(self, description: str, total: int) -> int:
        return self.bars.add_task(description, total=total, rate="", memory="", note="")

    def advance(self, task: int, steps: int, note: str) -> None:
        self.bars.update(TaskID(task), advance=steps, note=note, memory=_memory(), rate=_rate(self.bars.tasks[task].speed))

    def end(self, task: int) -> None:
        self.bars.remove_task(TaskID(task))


class _Lines:
    """A line at the start, then at most one every ten seconds."""

    EVERY = 10.0

    def begin(self, description: str, total: int) -> int:
        self.description, self.total, self.done = description, total, 0
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
                f"{self.description}: {percent} %, {_rate(speed)}, {left:.0f} s left, {_memory()}{' ' if note else ''}{note}\n"
            )

    def end(self, task: int) -> None:  # noqa: ARG002
        if self.done >= self.total > 0:
            sys.stderr.write(f"{self.description}: done in {time.monotonic() - self.started:.1f} s\n")


def _rate(speed: float | None) -> str:
    return f"{speed:.1f}/s" if speed else ""


def _memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB peak"
