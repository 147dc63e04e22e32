"""`train --profile`: a trace of some steps, and a page on where their time went."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from medsass import files
from medsass.runs.distributed import Ranks

TRACE, SUMMARY = "trace.json.gz", "summary.md"
PHASES = ("wait for data", "forward", "backward", "optimizer", "replay")  # ranges that the step marks

_SKIP, _WARM, _ACTIVE = 6, 2, 10  # steps: compiling and recording, the profiler's own warm-up, the trace
_TOP = 12  # operators in the summary


@contextmanager
def traced(folder: Path | None, device: str, steps: int, ranks: Ranks) -> Iterator[Callable[[], None]]:
    """Trace some of the training's `steps`, on the first process; yields a function to call after each step.

    `folder` gets trace.json.gz, for https://ui.perfetto.dev or chrome://tracing, and summary.md, the page. Where it is None
    nothing is traced.
    """
    if folder is None or not ranks.first or steps < 1:
        yield lambda: None
        return
    active = max(1, min(_ACTIVE, steps // 2))
    warm = min(_WARM, steps - active)
    skip = max(0, min(_SKIP, steps - active - warm))
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    starts = [monotonic()]  # of each step, and the end of the last
    plan = schedule(wait=0, warmup=warm, active=active, repeat=1, skip_first=skip)
    folder.mkdir(parents=True, exist_ok=True)
    files.refuse_links(*folder.iterdir())
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps its notes from between the progress lines

    def write(profiler: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = monotonic() - starts[skip + warm]
        profiler.export_chrome_trace(str(folder / TRACE))
        files.write(folder / SUMMARY, summary(list(profiler.key_averages()), device, active, seconds))

    with profile(activities=activities, schedule=plan, on_trace_ready=write) as profiler:

        def step() -> None:
            starts.append(monotonic())
            profiler.step()

        yield step


def summary(events: list[Any], device: str, steps: int, seconds: float) -> str:
    """Return a page of Markdown from the profiler's averages over `steps`, which took `seconds` in all."""
    ranges = {event.key: event for event in events if event.key in PHASES}
    rest = [event for event in events if event.key not in PHASES and not event.key.startswith("ProfilerStep")]
    # Microseconds of an operator without the operators that it calls.
    own = attrgetter("self_device_time_total" if device == "cuda" else "self_cpu_time_total")
    total = sum(map(own, rest)) or 1.0
    top = [
        f"| `{event.key[:80]}` | {event.count / steps:.1f} | {own(event) / 1000 / steps:.2f} | {own(event) / total:.0%} |"
        for event in sorted(rest, key=own, reverse=True)[:_TOP]
    ]
    times = {name: ranges[name].cpu_time_total / 1e6 for name in PHASES if name in ranges}
    times["all else"] = max(0.0, seconds - sum(times.values()))
    host = [f"| {name} | {1000 * time / steps:.2f} | {time / seconds:.0%} |" for name, time in times.items()]
    processor, thread = ("GPU", " (a GPU works on while the host goes ahead)") if device == "cuda" else ("CPU", "")
    busy = [f"The GPU was busy {min(1.0, total / 1e6 / seconds):.0%} of the time."] if device == "cuda" else []
    parts = [
        f"# Where the time went: {steps} steps of {seconds / steps * 1000:.1f} ms",
        f"Of the thread that trains, by part of a step{thread}:",
        "\n".join(["| part | ms a step | share |", "| --- | ---: | ---: |", *host]),
        *busy,
        f"Of the {processor}, by operator:",
        "\n".join(["| operator | calls a step | ms a step | share |", "| --- | ---: | ---: | ---: |", *top]),
        f"The whole trace: `{TRACE}`, to be opened in https://ui.perfetto.dev.",
    ]
    return "\n\n".join(parts) + "\n"
