"""The bound of a labelling kernel and how near a time comes to it: byte counts, timers, copy bandwidth, targets, chart.

Labelling takes a few operations a byte, so device memory is the bound: every byte read once and written once, at the speed
of a large device-to-device copy measured in the same run.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

WARM_UPS, REPEATS = 3, 25
WARM_SECONDS = 0.2  # a GPU that was idle, as while a kernel compiles, takes this long to reach its clock
LEAST_LAUNCHES = 20  # in one event pair, so that the cost of the pair itself is small
TURNS = 4  # buffers rotate through this many times the L2 cache, so that it holds nothing of the turn before
MEMORY = 8 << 30  # bytes that all buffers of a case may take
COPY_BYTES = (1 << 28, 1 << 30, 1 << 32)
INPUT_BYTES = 6  # a pixel of the network's input: three bfloat16

Call = Callable[[], object]
Row = dict[str, Any]  # a measurement in the result


@dataclass(frozen=True)
class Timing:
    """Seconds of one launch: the median and the least of `repeats` measurements."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Summarise measurements."""
        return cls(median(seconds), min(seconds), len(seconds))

    seconds: float
    least: float
    repeats: int


def bytes_of_image(height: int, width: int, channels: int, fused: bool) -> int:
    """Return the bytes that labelling an image must move: pixels read once, mask (and bfloat16 input) written once."""
    return height * width * (channels + 1 + (INPUT_BYTES if fused else 0))


def sets(size: int, cache: int) -> int:
    """Return how many sets of buffers of `size` bytes to rotate through: TURNS times the cache, if MEMORY allows."""
    return max(1, min(math.ceil(TURNS * cache / size), MEMORY // size))


def rotation(count: int) -> list[int]:
    """Return the set of each launch in an event pair: whole turns through all sets, at least LEAST_LAUNCHES launches."""
    return list(range(count)) * math.ceil(LEAST_LAUNCHES / count)


def host_time(call: Call, launches: int = 1) -> Timing:
    """Time a launch on the CPU by the wall clock. `call` does `launches` of them and waits for them."""
    for _ in range(WARM_UPS):
        call()
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        seconds.append((perf_counter() - start) / launches)
    return Timing.of(seconds)


def device_time(call: Call, launches: int = 1) -> Timing:
    """Time a launch on the GPU by device events. `call` enqueues `launches` of them on the current stream."""
    end_of_warming = perf_counter() + WARM_SECONDS
    while perf_counter() < end_of_warming:
        call()
        torch.cuda.synchronize()
    event = partial(torch.cuda.Event, enable_timing=True)
    pairs = [(event(), event()) for _ in range(REPEATS)]
    torch.cuda.synchronize()
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return Timing.of([start.elapsed_time(end) / 1000 / launches for start, end in pairs])


def in_turn(calls: Sequence[Call]) -> Call:
    """Return one call that makes all of `calls`."""

    def run() -> None:
        for call in calls:
            call()

    return run


def captured(calls: Sequence[Call]) -> Call:
    """Return one call that replays all of `calls` as a CUDA graph, so that the device is timed, not Python's launches."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:WARM_UPS]:  # compiles and loads what must not happen during the capture
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        in_turn(calls)()
    return graph.replay


def copy_bandwidth() -> float:
    """Return bytes a second, read plus written, of the fastest copy within device memory.

    The driver's copy and a kernel that writes what it reads compete at several sizes, timed as the kernels are.
    """
    source = torch.randint(0, 256, (max(COPY_BYTES),), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = []
    for size in COPY_BYTES:
        words, to = (tensor[:size].view(torch.int64) for tensor in (source, target))
        for way in (partial(to.copy_, words), partial(torch.bitwise_not, words, out=to)):
            seconds = device_time(in_turn([way] * LEAST_LAUNCHES), LEAST_LAUNCHES).seconds
            found.append(2 * size / seconds)
            print(f"copy of {size >> 20} MiB: {found[-1] / 1e9:.0f} GB/s", file=sys.stderr)
    return max(found)


def select(rows: list[Row], **wanted: Any) -> list[Row]:
    """Return the project's correct GPU rows whose fields equal `wanted`; `least_batch` is the smallest batch."""
    least = wanted.pop("least_batch", 0)
    own = [r for r in rows if r["by"] == "medsass" and r["device"] == "cuda" and not r["wrong"] and r["batch"] >= least]
    return [r for r in own if all(r[name] == value for name, value in wanted.items())]


def worst(rows: list[Row]) -> float | None:
    """Return the least share of the copy bandwidth."""
    return min((r["of_copy"] for r in rows), default=None)


def spread(rows: list[Row]) -> float | None:
    """Return longest over shortest time among the contents of a batch, the largest over all batches."""
    times: dict[int, list[float]] = {}
    for r in rows:
        times.setdefault(r["batch"], []).append(r["microseconds"])
    return max((max(batch) / min(batch) for batch in times.values()), default=None)


def slower(rows: list[Row], others: list[Row]) -> float | None:
    """Return the largest ratio of times of `rows` and `others` on the same content."""
    base = {r["content"]: r["microseconds"] for r in others}
    return max((r["microseconds"] / base[r["content"]] for r in rows if r["content"] in base), default=None)


def faster(rows: list[Row], own: list[Row], peer: str) -> float | None:
    """Return images a second over a peer's on the same content, the least ratio."""
    base = {r["content"]: r["images_per_second"] for r in own}
    peers = [r for r in rows if r["by"] == peer and r["content"] in base]
    return min((base[r["content"]] / r["images_per_second"] for r in peers), default=None)


def chart(rows: list[Row], limits: dict[str, float], path: Path) -> None:
    """Draw `rows` into a PNG: bandwidth by batch and content against the copy's, or images a second on a CPU."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if "copy_bytes_per_second" in limits:
        kinds = (("Otsu, RGB", 3, False), ("Otsu, RGB, with bfloat16 input", 3, True), ("Otsu, gray", 1, False))
        fields = ("by", "method", "height", "width", "channels", "fused")
        panels = {
            title: [r for r in rows if [r[name] for name in fields] == ["medsass", "otsu", 224, 224, channels, fused]]
            for title, channels, fused in kinds
        }
        panels = {title: shown for title, shown in panels.items() if shown} or panels
        size = (5 * len(panels), 4.5)
        figure, (axes,) = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for ax, (title, shown) in zip(axes, panels.items(), strict=True):
            _roofline(ax, f"{title}, 224 × 224", shown, limits["copy_bytes_per_second"] / 1e9)
        axes[0].set_ylabel("GB/s, bytes read once + written once")
    else:
        figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
        _bars(ax, rows)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _roofline(ax: Any, title: str, rows: list[Row], copy: float) -> None:
    """Draw bandwidth over batch size, a line a content, under the copy bandwidth."""
    for content in dict.fromkeys(row["content"] for row in rows):
        line = sorted((row["batch"], row["gigabytes_per_second"]) for row in rows if row["content"] == content)
        ax.plot(*zip(*line, strict=True), marker="o", markersize=4, label=content)
    ax.axhline(copy, color="black", linestyle="--", label=f"copy, {copy:.0f} GB/s")
    ax.set_xscale("log", base=2)
    ax.set_ylim(0, copy * 1.15)
    ax.set(title=title, xlabel="batch")
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=8)


def _bars(ax: Any, rows: list[Row]) -> None:
    """Draw images a second of each library and method as bars, for its largest batch of the peers' content."""
    shown = comparable(rows)
    names = [f"{row['by']}: {row['method']}" for row in shown][::-1]
    colours = ["C0" if row["by"] == "medsass" else "C7" for row in shown][::-1]
    bars = ax.barh(names, [row["images_per_second"] for row in shown][::-1], color=colours)
    ax.bar_label(bars, fmt="{:,.0f}", padding=3)
    ax.margins(x=0.15)
    ax.set(title=f"224 × 224 RGB, content: {shown[-1]['content']}", xlabel="images a second")


def comparable(rows: list[Row]) -> list[Row]:
    """Return the largest batch of each library, method and size, on the content of the last row, which is a peer's.

    Rows of refinements are left out, because no peer refines its labels.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row.get("refine") is not None:
            continue
        key = tuple(row[name] for name in ("by", "method", "height", "width", "channels", "fused"))
        if row["content"] == rows[-1]["content"] and row["batch"] >= found.get(key, row)["batch"]:
            found[key] = row
    return list(found.values())
