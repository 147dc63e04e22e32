"""Console output: progress on stderr (bars on a terminal, lines elsewhere), results on stdout."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from medsass.text import printable

# Tables in a log are not folded at the 80 columns that rich takes for one.
_WIDTH = None if "COLUMNS" in os.environ or (sys.stdout and sys.stdout.isatty()) else 160


class _Console(Console):
    """A console on which text is shown and never obeyed: no control characters, no markup."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console.print` does, each text in one line."""
        super().print(*(printable(item) if isinstance(item, str) else item for item in objects), **options)


out = _Console(highlight=False, soft_wrap=True, markup=False, width=_WIDTH)
err = _Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

EVERY = 30.0  # seconds between the lines of progress in a log
_shown: list["Bar"] = []  # the bar on the terminal


@contextmanager
def hushed(when: bool) -> Iterator[None]:
    """Print nothing while the block runs, if `when` is true: one of several processes speaks for all."""
    before = out.quiet, err.quiet
    out.quiet, err.quiet = when or before[0], when or before[1]
    try:
        yield
    finally:
        out.quiet, err.quiet = before


class Bar:
    """The progress of a long work: how much is done, how fast, how long the rest takes, and a remark.

    What the first call of `reach` or `advance` gives counts as done before, such as by an interrupted run, or as the time to
    warm up: speed is that of the others.
    """

    def __init__(self, title: str, total: int | None, unit: str, clock: Callable[[], float] = monotonic) -> None:
        self.title, self.total, self.unit, self.done, self.remark = title, total, unit, 0, ""
        self.changed: Callable[[], None] = lambda: None
        self._clock, self._first = clock, (0, 0.0)

    def advance(self, count: int, remark: str | None = None) -> None:
        """Add what was done since the last call and show a remark; None keeps the last one."""
        self.reach(self.done + count, None, remark)

    def reach(self, done: int, total: int | None, remark: str | None = None) -> None:
        """Show that `done` of `total` are done; None keeps the total and the remark."""
        self.done, self.total = done, self.total if total is None else total
        self.remark = self.remark if remark is None else remark
        self._first = self._first if self._first[1] else (done, self._clock())
        self.changed()

    @property
    def speed(self) -> float:
        """What is done in a second; 0 where that is not known yet."""
        done, start = self._first
        return (self.done - done) / max(self._clock() - start, 1e-9) if start else 0.0

    def line(self) -> str:
        """Return "shard: 1,200 of 5,000 images, 310 images/s, 12 s left"."""
        if not (self.done or self.total):
            return printable(f"{self.title}: starting")
        speed, total = self.speed, f" of {self.total:,}" if self.total else ""
        parts = [f"{self.title}: {self.done:,}{total} {self.unit}", self.remark]
        if speed:
            each = f"{duration(1 / speed)} each"
            parts.append(each if speed < 0.1 else f"{speed:,.{0 if speed >= 10 else 2}f} {self.unit}/s")
        if speed and self.total:
            parts.append(f"{duration(max(0, self.total - self.done) / speed)} left")
        return printable(", ".join(filter(None, parts)))


def duration(seconds: float) -> str:
    """Return "12 s", "3.5 min" or "2.0 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def progress(title: str, total: int | None = None, unit: str = "images") -> Iterator[Bar]:
    """Show the progress of the block: a bar if stderr is a terminal, else a line every `EVERY` seconds, as a log needs it.

    Within the block of another bar nothing more is shown on a terminal.
    """
    bar = Bar(title, total, unit)
    if err.quiet or (err.is_terminal and _shown):
        yield bar
    elif err.is_terminal:
        with _live(bar):
            yield bar
    else:
        with told(bar):
            yield bar


@contextmanager
def told(bar: Bar) -> Iterator[None]:
    """Print the state of a bar to stderr every `EVERY` seconds while the block runs."""
    ended, stream = Event(), sys.stderr  # kept: a cell of an experiment sends what is printed elsewhere

    def tell() -> None:
        while not ended.wait(EVERY):
            print(bar.line(), file=stream, flush=True)

    thread = Thread(target=tell, name="medsass-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _live(bar: Bar) -> Iterator[None]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True) as live:
        task = live.add_task(printable(bar.title), total=bar.total, rate="", remark="")

        def change() -> None:
            rate = f"{bar.speed:,.0f} {bar.unit}/s"
            live.update(task, completed=bar.done, total=bar.total, rate=rate, remark=printable(bar.remark))

        bar.changed = change
        _shown.append(bar)
        try:
            yield
        finally:
            _shown.pop()


def table(columns: list[str], rows: list[list[str]], long: int | None = None) -> Table:
    """Make a plain table; the first column is aligned left, the others right.

    `long`: index of a column that is aligned left too, and wrapped where the line is full.
    """
    result = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        left = index in (0, long)
        result.add_column(
            printable(column), justify="left" if left else "right", no_wrap=index != long, overflow="fold"
        )
    for row in rows:
        result.add_row(*(Text(printable(item)) for item in row))
    return result
