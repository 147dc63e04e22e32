"""What a user sees while a command runs: progress on stderr (bars on a terminal, lines elsewhere), results on stdout."""

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
    """Say nothing while the block runs, but for what ends it: of several processes one is enough to speak."""
    before = out.quiet, err.quiet
    out.quiet, err.quiet = when or before[0], when or before[1]
    try:
        yield
    finally:
        out.quiet, err.quiet = before


class Bar:
    """A running progress bar: images done, images/s, time left and a remark."""

    def __init__(self, bar: Progress, title: str, total: int | None) -> None:
        self._bar, self._start, self._done = bar, monotonic(), 0
        self._task = bar.add_task(title, total=total, rate="", remark="")

    def advance(self, images: int, remark: str | None = None) -> None:
        """Count the images done since the last call and show a remark; None keeps the one that is there."""
        self.reach(self._done + images, None, remark)

    def reach(self, done: int, total: int | None, remark: str | None = None) -> None:
        """Show that `done` images of `total` are done; None keeps the total and the remark."""
        self._done, rate = done, done / max(monotonic() - self._start, 1e-9)
        shown: dict[str, Any] = {} if remark is None else {"remark": remark}
        self._bar.update(self._task, completed=done, total=total, rate=f"{rate:,.0f} images/s", **shown)


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """A progress bar over `total` images, shown while the block runs if stderr is a terminal."""
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
    """A plain table: first column to the left, the others to the right, but for the number `long`, whose text stands to the
    left and goes on in another line where there is no room.
    """
    result = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        left = index in (0, long)
        result.add_column(column, justify="left" if left else "right", no_wrap=index != long, overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row))
    return result
