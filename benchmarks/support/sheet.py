"""A result that grows: what is measured is saved at once, and a program that was stopped goes on where it was.

A program lists its cells, the most valuable first. The sheet measures those that its file does not hold yet, until the
seconds of `--seconds` are over, and saves after each. What fails is written down by name, and the next one follows; what
ended the whole process is tried once more by the next start, and what was cut off, by the end of the time or by Ctrl-C, as if
it had not begun.
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
    """One thing to measure: the name that it keeps for good, and what measures it."""

    key: str
    run: Callable[[], list[Row]]


@dataclass(frozen=True)
class Options:
    """A program's command line: folder of the real images, folder of results, the device, seconds, and whether to begin anew."""

    data: Path
    out: Path
    where: str
    seconds: float
    fresh: bool

    @property
    def arguments(self) -> list[str]:
        """All but the seconds, as a command line again."""
        return [str(self.data), "--out", str(self.out), "--device", self.where, *(["--fresh"] if self.fresh else [])]


def parser(benchmark: str) -> argparse.ArgumentParser:
    """What every program takes that has cells."""
    made = argparse.ArgumentParser(f"python -m benchmarks.{benchmark}")
    made.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"), help="folder of the real images")
    made.add_argument("--out", type=Path, default=result.RESULTS, help="folder of the results")
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument("--fresh", action="store_true", help="measure anew what the result holds already")
    return made


def options(benchmark: str) -> Options:
    """The command line of a program. Ends it where a GPU is asked for and there is none."""
    made = parser(benchmark)
    made.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after so long")
    given = made.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNFINISHED))  # so that a cell can be taken back
    return Options(given.data, given.out, device(given.device), given.seconds, given.fresh)


def device(name: str) -> str:
    """The device, "cpu" or "cuda", for auto, cpu or cuda. Ends the program where a GPU is asked for and there is none."""
    from medsass.runs.device import resolve

    try:
        return resolve(name)
    except ValueError as error:
        sys.exit(str(error))


class Sheet:
    """The result file of a benchmark on this machine.

    rows: all that were measured, each with its `cell`. limits: what bounds them, of the run that was last.
    """

    def __init__(self, benchmark: str, chosen: Options) -> None:
        self._end = monotonic() + chosen.seconds
        self._benchmark, self._where, self._out = benchmark, chosen.where, chosen.out
        self.path = chosen.out / f"{result.device(chosen.where)}-{benchmark}.json"
        old = json.loads(self.path.read_text()) if self.path.is_file() and not chosen.fresh else {}
        self.rows: list[Row] = [row for row in old.get("rows", []) if "cell" in row and not row.get("wrong")]
        self.failed: dict[str, list[str]] = old.get("failed", {})
        self.limits: dict[str, float] = {}

    def fill(self, cells: Iterable[Cell], targets: Callable[[list[Row]], list[Target]]) -> bool:
        """Measure the cells that are missing, as long as there is time; True where none is left."""
        self._save(targets)
        for cell in cells:
            if any(row["cell"] == cell.key for row in self.rows) or not self._is_open(cell.key):
                continue
            if monotonic() > self._end:
                return False
            failures = self.failed.setdefault(cell.key, [])
            failures.append("did not end")  # which is what remains where the process dies
            self._save(targets)
            start = monotonic()
            try:
                rows = cell.run()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                print(f"{cell.key}: failed, {reason}", file=sys.stderr)
                failures[-1] = reason
                if not self._usable():
                    self._save(targets)
                    return False
            except BaseException:  # somebody ended the program, not the cell
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
        """Whether the GPU still works for this process, after a failure that may have been its last."""
        if self._where == "cuda":
            import torch

            try:
                torch.cuda.synchronize()
            except RuntimeError:
                return False
        return True

    def _is_open(self, key: str) -> bool:
        failures = self.failed.get(key, [])
        return all(reason == "did not end" for reason in failures) and len(failures) < _ATTEMPTS

    def _save(self, targets: Callable[[list[Row]], list[Target]]) -> None:
        failed = {key: reasons for key, reasons in self.failed.items() if reasons}
        about = {"failed": failed} if failed else {}
        result.write(self.path, self._benchmark, self._where, self.rows, targets(self.rows), self.limits, about)
