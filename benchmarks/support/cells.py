"""Result files that grow cell by cell, so that a program that was stopped goes on where it was.

A program lists its cells, the most valuable first. The result file measures those that it does not hold yet until the
seconds of `--seconds` are over, and is saved after each. A cell that fails is recorded by name and the next one follows. A
cell that ended the whole process is tried once more by the next start; one that was cut off, by the end of the time or by
Ctrl-C, counts as not begun.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.support import result
from benchmarks.support.result import Target

Row = dict[str, Any]
UNFINISHED = 3  # exit status of a program that has cells left
_ATTEMPTS = 2


@dataclass(frozen=True)
class Cell:
    """One thing to measure. `key` names it in the result file and must never change."""

    key: str
    run: Callable[[], list[Row]]


@dataclass(frozen=True)
class Options:
    """A program's command line: folders of the real images and of the results, device, time limit, whether to start anew."""

    data: Path
    out: Path
    where: str
    seconds: float
    fresh: bool


def parser(benchmark: str) -> argparse.ArgumentParser:
    """Return the parser of the options that all programs with cells share."""
    made = argparse.ArgumentParser(f"python -m benchmarks.{benchmark}")
    made.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"), help="folder of the real images")
    made.add_argument("--out", type=Path, default=result.RESULTS, help="folder of the results")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument("--fresh", action="store_true", help="measure again what the result holds already")
    return made


def options(benchmark: str) -> Options:
    """Parse the command line of a program. Exits if a GPU is asked for and there is none."""
    made = parser(benchmark)
    made.add_argument("--seconds", type=float, default=float("inf"), help="start no new cell after this many seconds")
    given = made.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNFINISHED))  # so that the current cell can be taken back
    return Options(given.data, given.out, device(given.device), given.seconds, given.fresh)


def device(name: str) -> str:
    """Resolve auto, cpu or cuda to "cpu" or "cuda". Exits if a GPU is asked for and there is none."""
    from medsass.runs.device import resolve

    try:
        return resolve(name)
    except ValueError as error:
        sys.exit(str(error))


class ResultFile:
    """The result file of a benchmark on this machine.

    Attributes:
        rows: all measured rows, each with the key of its `cell`.
        limits: what bounds them, measured in the latest run.
    """

    def __init__(self, benchmark: str, options: Options) -> None:
        self._end = monotonic() + options.seconds
        self._benchmark, self._where = benchmark, options.where
        self.path = options.out / f"{result.device(options.where)}-{benchmark}.json"
        old = json.loads(self.path.read_text()) if self.path.is_file() and not options.fresh else {}
        self.rows: list[Row] = [row for row in old.get("rows", []) if "cell" in row and not row.get("wrong")]
        self.failed: dict[str, list[str]] = old.get("failed", {})
        self.limits: dict[str, float] = {}

    def fill(self, cells: Iterable[Cell], targets: Callable[[list[Row]], list[Target]]) -> bool:
        """Measure the missing cells while there is time. Return True if none is left."""
        self._save(targets)
        for cell in cells:
            failures = self.failed.get(cell.key, [])
            given_up = len(failures) >= _ATTEMPTS or any(reason != "did not end" for reason in failures)
            if given_up or any(row["cell"] == cell.key for row in self.rows):
                continue
            if monotonic() > self._end:
                return False
            failures = self.failed.setdefault(cell.key, [])
            failures.append("did not end")  # stays in the file if the process dies
            self._save(targets)
            start = monotonic()
            try:
                rows = cell.run()
            except Exception as error:
                failures[-1] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                print(f"{cell.key}: failed, {failures[-1]}", file=sys.stderr)
                if not self._usable():
                    self._save(targets)
                    return False
            except BaseException:  # the program was ended, not the cell
                failures.pop()
                self._save(targets)
                raise
            else:
                del self.failed[cell.key]
                took = monotonic() - start
                self.rows += [{"cell": cell.key, **row, "cell_seconds": took} for row in rows]
            self._save(targets)
        return True

    def _usable(self) -> bool:
        """Return whether the GPU still works for this process: some failures end that."""
        if self._where == "cuda":
            import torch

            try:
                torch.cuda.synchronize()
            except RuntimeError:
                return False
        return True

    def _save(self, targets: Callable[[list[Row]], list[Target]]) -> None:
        failed = {key: reasons for key, reasons in self.failed.items() if reasons}
        about = {"failed": failed} if failed else {}
        result.write(self.path, self._benchmark, self._where, self.rows, targets(self.rows), self.limits, about)
