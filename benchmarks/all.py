"""Every benchmark but `paper` and `beyond`, which take hours, by value: what `make gpu` runs.

    python -m benchmarks.all [DATA] [--minutes M] [--only NAMES] [--device cpu|cuda] [--out FOLDER] [--fresh]

On a GPU the kernels come first, then training's ceiling and line, then the loader, then what is left of each: parts taken
away, peers. Each program is a process of its own with a share of the minutes, saves what it measures at once, and goes on
where it stopped when it is started again on the same card, so that neither a kill nor a crash loses more than one
measurement. Without --minutes all is measured. What measures the CPU alone runs on a CPU alone. Nothing needs the network.
Last, README's tables are made anew, where the results are those of the repository.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from time import monotonic

from benchmarks.support import result, sheet

# Programs with the share of the minutes after which the next one's turn comes. What is left then goes on in the same order.
SHARES = {
    "cuda": {"labels": 0.25, "train": 0.6, "loader": 0.8, "atomics": 1.0},
    "cpu": {"labels": 0.2, "train": 0.4, "loader": 0.6, "line": 0.7, "shard": 0.8, "polarity": 0.85, "tune": 0.95, "scaling": 1.0},
}  # fmt: skip
WHOLE = ("line", "shard", "polarity", "tune", "scaling")  # have no cells: they end in time or have measured nothing
GRACE = 20.0  # seconds that a measurement may take longer than its program's share


def main() -> None:
    """Run the programs in turn; exit 1 where one failed, by name."""
    made = sheet.parser("all")
    made.add_argument("--minutes", type=float, default=float("inf"), help="what all may take together")
    made.add_argument("--only", default="", help="programs to run, separated by commas")
    given = made.parse_args()
    where = sheet.device(given.device)
    unknown = set(filter(None, given.only.split(","))) - SHARES[where].keys()
    if unknown:
        sys.exit(
            f"--only must name some of {', '.join(SHARES[where])} on this device; got {', '.join(sorted(unknown))}"
        )
    chosen = [name for name in SHARES[where] if name in given.only.split(",") or not given.only]
    if given.out != result.RESULTS and (skipped := [name for name in chosen if name in WHOLE]):
        print(f"skipped, for they write into {result.RESULTS} alone: {', '.join(skipped)}", file=sys.stderr)
        chosen = [name for name in chosen if name not in skipped]
    options = sheet.Options(given.data, given.out, where, 0, given.fresh)
    begin, whole = monotonic(), given.minutes * 60
    ends: dict[str, str] = {}
    for last in (False, True):
        for name in chosen:
            left = (whole if last else whole * SHARES[where][name]) - (monotonic() - begin)
            if ends.get(name, "unfinished") != "unfinished" or left <= 0:
                continue
            ends[name] = run(name, replace(options, fresh=given.fresh and name not in ends), left)
            print(f"benchmarks.{name}: {ends[name]} after {monotonic() - begin:.0f} s", file=sys.stderr)
    if given.out == result.RESULTS:
        ends["readme"] = run("readme", options, float("inf"))
    failed = [f"{name} ({end})" for name, end in ends.items() if end not in ("done", "unfinished")]
    if failed:
        sys.exit(f"benchmarks.all: failed: {', '.join(failed)}; the others are measured")


def run(name: str, options: sheet.Options, seconds: float) -> str:
    """Run a program for about so long: "done", "unfinished" where something is left to measure, or how it failed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *options.arguments]
    command += [] if seconds == float("inf") else ["--seconds", f"{seconds:.0f}"]
    if name in WHOLE or name == "readme":
        command = command[:3] + ([str(options.data)] if name in WHOLE else [])
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if options.where == "cpu" else {}
    # a process group of its own: what the program started ends with it
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env=os.environ | hidden, start_new_session=True
    ) as process:
        code = _waited(process, None if seconds == float("inf") else seconds + GRACE)
    if code == sheet.UNFINISHED or code < 0:
        return "unfinished"
    return "done" if code == 0 else f"exit status {code}"


def _waited(process: "subprocess.Popen[bytes]", seconds: float | None) -> int:
    """The exit status of a process, which is asked to end after that long, and then ended."""
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
        return sheet.UNFINISHED


if __name__ == "__main__":
    main()
