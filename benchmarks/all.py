"""Every benchmark except `paper` and `beyond`, which take hours, the most valuable first. `make gpu` runs this.

    python -m benchmarks.all [DATA] [--minutes M] [--only NAMES] [--device cpu|cuda] [--out FOLDER] [--fresh]

On a GPU the kernels come first, then training's ceiling and line, then the loader, then the rest of each: ablations and
peers. Each program is a process of its own with a share of the minutes. It saves each measurement at once, and a new start
on the same card goes on where it stopped, so that a kill or a crash loses at most one measurement. Without --minutes
everything is measured. Programs that measure only the CPU run only with `--device cpu`. Nothing needs the network. At the
end the tables of docs/measurements.md are rewritten, if the results are those of the repository.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from time import monotonic

from benchmarks.support import cells, result
from benchmarks.support.cells import Options

# The share of the minutes after which the next program's turn comes. The rest then goes on in the same order.
_CPU = {"labels": 0.2, "train": 0.4, "loader": 0.6, "line": 0.7, "shard": 0.8, "verify": 0.82, "polarity": 0.85}
_CPU |= {"tune": 0.95, "scaling": 1.0}
SHARES = {"cuda": {"labels": 0.25, "train": 0.6, "loader": 0.8, "atomics": 1.0}, "cpu": _CPU}
# without cells: stopped early, they have measured nothing
WHOLE = ("line", "shard", "verify", "polarity", "tune", "scaling")
GRACE = 20.0  # seconds that a measurement may exceed its program's share


def main() -> None:
    """Run the programs in turn. Exit with 1, naming them, if some failed."""
    parser = cells.parser("all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time for all programs together")
    parser.add_argument("--only", default="", help="programs to run, separated by commas")
    given = parser.parse_args()
    where = cells.device(given.device)
    only = set(filter(None, given.only.split(",")))
    if unknown := only - SHARES[where].keys():
        sys.exit(
            f"--only must name some of {', '.join(SHARES[where])} on this device; got {', '.join(sorted(unknown))}"
        )
    chosen = [name for name in SHARES[where] if name in only or not only]
    if given.out != result.RESULTS and (skipped := [name for name in chosen if name in WHOLE]):
        print(f"skipped, because they write only into {result.RESULTS}: {', '.join(skipped)}", file=sys.stderr)
        chosen = [name for name in chosen if name not in skipped]
    options = Options(given.data, given.out, where, 0, given.fresh)
    begin, total = monotonic(), given.minutes * 60
    ends: dict[str, str] = {}
    for last in (False, True):
        for name in chosen:
            left = (total if last else total * SHARES[where][name]) - (monotonic() - begin)
            if ends.get(name, "unfinished") != "unfinished" or left <= 0:
                continue
            ends[name] = run(name, replace(options, fresh=given.fresh and name not in ends), left)
            print(f"benchmarks.{name}: {ends[name]} after {monotonic() - begin:.0f} s", file=sys.stderr)
    if given.out == result.RESULTS:
        ends["measurements"] = run("measurements", options, float("inf"))
    failed = [f"{name} ({end})" for name, end in ends.items() if end not in ("done", "unfinished")]
    if failed:
        sys.exit(f"benchmarks.all: failed: {', '.join(failed)}; the others are measured")


def run(name: str, options: Options, seconds: float) -> str:
    """Run a program for about that long. Return "done", "unfinished" if some cells are left, or how it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if name in WHOLE:
        command += [str(options.data)]
    elif name != "measurements":
        command += [str(options.data), "--out", str(options.out), "--device", options.where]
        command += ["--fresh"] if options.fresh else []
        command += [] if seconds == float("inf") else ["--seconds", f"{seconds:.0f}"]
    env = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if options.where == "cpu" else {})
    # a process group of its own: whatever the program starts ends with it
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env, start_new_session=True) as process:
        code = _wait(process, None if seconds == float("inf") else seconds + GRACE)
    if code == cells.UNFINISHED or code < 0:
        return "unfinished"
    return "done" if code == 0 else f"exit status {code}"


def _wait(process: "subprocess.Popen[bytes]", seconds: float | None) -> int:
    """Return the exit status of a process. After that many seconds it is asked to end, and after GRACE more killed."""
    try:
        return process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if isinstance(reason, KeyboardInterrupt):
            raise
        return cells.UNFINISHED


if __name__ == "__main__":
    main()
