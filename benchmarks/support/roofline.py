"""What bounds a labelling kernel and how near a time comes to it: bytes counted, timers, copy bandwidth, the chart.

A label is a few operations a byte, so the bound is device memory: every byte read once and written once, at the speed of
a large device-to-device copy measured in the same run.
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
WARM_SECONDS = 0.2  # a GPU that was idle, as while a kernel compiles, takes so long to reach its clock
LEAST_LAUNCHES = 20  # in one event pair, so that what the pair itself costs is small
TURNS = 4  # buffers rotate through so many times the L2 cache: nothing is found in it from the turn before
MEMORY = 8 << 30  # bytes that the sets of buffers of a case may take together
COPY_BYTES = (1 << 28, 1 << 30, 1 << 32)
INPUT_BYTES = 6  # a pixel of the network's input: three bfloat16

Call = Callable[[], object]
Row = dict[str, Any]  # a measurement, as it is saved


@dataclass(frozen=True)
class Timing:
    """Seconds of one launch: the median and the least of `repeats` measurements."""

    seconds: float
    least: float
    repeats: int


def bytes_of_image(height: int, width: int, channels: int, fused: bool) -> int:
    """Bytes that labelling an image must move: pixels read once, mask (and bfloat16 input) written once."""
    return height * width * (channels + 1 + (INPUT_BYTES if fused else 0))


def sets(size: int, cache: int) -> int:
    """How many sets of buffers of `size` bytes to rotate through: TURNS times the cache, as far as MEMORY allows."""
    return max(1, min(math.ceil(TURNS * cache / size), MEMORY // size))


def rotation(count: int) -> list[int]:
    """The set of each launch in one event pair: whole turns through all sets, at least LEAST_LAUNCHES launches."""
    return list(range(count)) * math.ceil(LEAST_LAUNCHES / count)


def summary(seconds: Sequence[float]) -> Timing:
    """Median and least of many measurements."""
    return Timing(median(seconds), min(seconds), len(seconds))


def host_time(call: Call, launches: int = 1) -> Timing:
    """Seconds of a launch on the CPU, by the wall clock; `call` does `launches` of them and waits for them."""
    for _ in range(WARM_UPS):
        call()
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        seconds.append((perf_counter() - start) / launches)
    return summary(seconds)


def device_time(call: Call, launches: int = 1) -> Timing:
    """Seconds of a launch on the GPU, by device events; `call` enqueues `launches` of them on the current stream."""
    end_of_warming = perf_counter() + WARM_SECONDS
    while perf_counter() < end_of_warming:
        call()
        torch.cuda.synchronize()
    pairs = [(_event(), _event()) for _ in range(REPEATS)]
    torch.cuda.synchronize()
    for start, end in pairs:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return summary([start.elapsed_time(end) / 1000 / launches for start, end in pairs])


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def in_turn(calls: Sequence[Call]) -> Call:
    """One call that makes all of `calls`."""

    def run() -> None:
        for call in calls:
            call()

    return run


def captured(calls: Sequence[Call]) -> Call:
    """One call that replays all of `calls` as a CUDA graph: what is timed is the device, not Python's launches."""
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
    """Bytes a second, read plus written, from device memory to device memory: the fastest of the driver's copy and a kernel
    that writes what it reads, of several sizes, timed as the kernels are.
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
    """The project's own right rows of the GPU whose fields are as wanted; `least_batch` is the smallest batch."""
    least = wanted.pop("least_batch", 0)
    own = [r for r in rows if r["by"] == "medsass" and r["device"] == "cuda" and not r["wrong"] and r["batch"] >= least]
    return [r for r in own if all(r[name] == value for name, value in wanted.items())]


def worst(rows: list[Row]) -> float | None:
    """Least share of the copy bandwidth."""
    return min((r["of_copy"] for r in rows), default=None)


def longest(rows: list[Row]) -> float | None:
    """Greatest time in microseconds."""
    return max((r["microseconds"] for r in rows), default=None)


def spread(rows: list[Row]) -> float | None:
    """Greatest over least time among the contents of a batch, the greatest of all batches."""
    times: dict[int, list[float]] = {}
    for r in rows:
        times.setdefault(r["batch"], []).append(r["microseconds"])
    return max((max(batch) / min(batch) for batch in times.values()), default=None)


def slower(rows: list[Row], others: list[Row]) -> float | None:
    """Greatest ratio of times of `rows` and `others` over the same content."""
    base = {r["content"]: r["microseconds"] for r in others}
    return max((r["microseconds"] / base[r["content"]] for r in rows if r["content"] in base), default=None)


def faster(rows: list[Row], own: list[Row], peer: str) -> float | None:
    """Images a second over a peer's on the same content."""
    base = {r["content"]: r["images_per_second"] for r in own}
    return min(
        (base[r["content"]] / r["images_per_second"] for r in rows if r["by"] == peer and r["content"] in base),
        default=None,
    )


def chart(rows: list[Row], limits: dict[str, float], path: Path) -> None:
    """Draw `rows` into a PNG: bandwidth by batch and content against the copy's, or images a second on a CPU."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    if "copy_bytes_per_second" in limits:
        kinds = (("Otsu, RGB", 3, False), ("Otsu, RGB, with bfloat16 input", 3, True), ("Otsu, gray", 1, False))
        panels = {
            title: [r for r in rows if _is_otsu(r) and (r["channels"], r["fused"]) == (channels, fused)]
            for title, channels, fused in kinds
        }
        panels = {title: shown for title, shown in panels.items() if shown} or panels
        figure, grid = plt.subplots(
            1, len(panels), figsize=(5 * len(panels), 4.5), sharey=True, squeeze=False, layout="constrained"
        )
        axes = grid[0]
        for ax, (title, shown) in zip(axes, panels.items(), strict=True):
            _roofline(ax, f"{title}, 224 × 224", shown, limits["copy_bytes_per_second"] / 1e9)
        axes[0].set_ylabel("GB/s, bytes read once + written once")
    else:
        figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
        _bars(ax, rows)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _is_otsu(row: Row) -> bool:
    return row["by"] == "medsass" and row["method"] == "otsu" and (row["height"], row["width"]) == (224, 224)


def _roofline(ax: Any, title: str, rows: list[Row], copy: float) -> None:
    """A line a content over the batch size, under the copy bandwidth."""
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
    """A bar for each library and method: images a second of its largest batch, on the content that the peers had."""
    shown = comparable(rows)
    names = [f"{row['by']}: {row['method']}" for row in shown][::-1]
    colours = ["C0" if row["by"] == "medsass" else "C7" for row in shown][::-1]
    bars = ax.barh(names, [row["images_per_second"] for row in shown][::-1], color=colours)
    ax.bar_label(bars, fmt="{:,.0f}", padding=3)
    ax.margins(x=0.15)
    ax.set(title=f"224 × 224 RGB, content: {shown[-1]['content']}", xlabel="images a second")


def comparable(rows: list[Row]) -> list[Row]:
    """Of each library, method and size the largest batch, on the content of the last row, which is a peer's. No peer refines
    its labels: rows of refinements are left out.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row.get("refine") is not None:
            continue
        key = tuple(row[name] for name in ("by", "method", "height", "width", "channels", "fused"))
        if row["content"] == rows[-1]["content"] and row["batch"] >= found.get(key, row)["batch"]:
            found[key] = row
    return list(found.values())
