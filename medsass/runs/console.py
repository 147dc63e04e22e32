"""Console output: progress on stderr (bars on a terminal, lines elsewhere), results on stdout."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


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
    """A progress bar: images done, images/s, time left and a remark."""

    def __init__(self, bar: Progress, title: str, total: int | None) -> None:
        self._bar, self._start, self._done = bar, monotonic(), 0
        self._task = bar.add_task(title, total=total, rate="", remark="")

    def advance(self, images: int, remark: str | None = None) -> None:
        """Add the images done since the last call and show a remark; None keeps the last one."""
        self.reach(self._done + images, None, remark)

    def reach(self, done: int, total: int | None, remark: str | None = None) -> None:
        """Show that `done` images of `total` are done; None keeps the total and the remark."""
        self._done, rate = done, done / max(monotonic() - self._start, 1e-9)
        shown: dict[str, Any] = {} if remark is None else {"remark": remark}
        self._bar.update(self._task, completed=done, total=total, rate=f"{rate:,.0f} images/s", **shown)


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """Show a progress bar over `total` images while the block runs, if stderr is a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield Bar(bar, title, total)


def table(columns: list[str], rows: list[list[str]], long: int | None = None) -> Table:
    """Make a plain table; the first column is aligned left, the others right.

    `long`: index of a column that is aligned left too, and wrapped where the line is full.
    """
    result = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        left = index in (0, long)
        result.add_column(column, justify="left" if left else "right", no_wrap=index != long, overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row))
    return result
