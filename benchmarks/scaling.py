"""What training costs as images grow, datasets grow and processes join.

    python -m benchmarks.scaling [DATA]

- size: the training line on images of more and more pixels; beside it the floating-point operations that they need.
- dataset: a loader of 1,000, 10,000 and 100,000 samples, each in a process of its own: seconds until its first batch,
  peak memory, and images a second after that. Samples are small JPEG files made of real ones, so that what a sample costs
  beside its pixels shows.
- processes: `torchrun -m medsass train` with 1 and 2 processes that share the machine's cores, or with as many GPUs, on the
  same steps of the same images; the pace is that of the last of three epochs.
DATA holds `isic2017/` and `dsb2018/`.
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cv2
import torch

from benchmarks.support import peers, result, ways
from benchmarks.support.ways import Way
from medsass.config import ShardConfig, TrainConfig
from medsass.data.loading.augment import Augment
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.sharding import shard
from medsass.data.shards.manifest import Manifest, Split
from medsass.data.shards.tar import ShardWriter

Row = dict[str, Any]

SIZES = {"cpu": ("unet-resnet18", (64, 96, 128, 192, 256)), "cuda": ("unet-resnet50", (112, 224, 448, 896))}
SAMPLES = (1_000, 10_000, 100_000)
PROCESSES = (1, 2)
BATCH = 16
_SIDE = 64  # pixels of the small samples
_SECONDS = 5.0  # that each pace is measured for
_TURNS = 3
_EPOCHS = 3


def sizes(shards: Path, where: str) -> list[Row]:
    """A row a size of the images."""
    model, sides = SIZES[where]
    paces: dict[int, list[float]] = {side: [] for side in sides}
    for _ in range(_TURNS):
        for side, found in paces.items():
            config = TrainConfig(shards, Path("run"), model=model, size=side, batch_size=BATCH, device=where)
            found.append(
                ways.run(Way("line", "", partial(ways.line, config, where)), _SECONDS, where).images_per_second
            )
    return [
        {"kind": "size", "model": model, "size": side, "batch": BATCH, "images_per_second": median(found),
         "least": min(found), "most": max(found), "turns": len(found), "flops_an_image": ways.flops(model, side)}
        for side, found in paces.items()
    ]  # fmt: skip


def made(source: Path, folder: Path, count: int) -> None:
    """Fill `folder` with a split "train" of so many small images."""
    small = []
    for path in islice(sorted(source.glob("isic2017/*Training_Data/*.jpg")), 256):
        image = cv2.imread(str(path))
        assert image is not None
        small.append(cv2.imencode(".jpg", cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))[1].tobytes())
    about = json.dumps({"height": _SIDE, "width": _SIDE}).encode()
    folder.mkdir()
    writer, shards = ShardWriter(folder, "train", 64 << 20), []
    for number in range(count):
        shards.append(writer.add(f"{number:06d}", {"jpg": small[number % len(small)], "json": about}))
    tars = [item for item in [*shards, writer.close()] if item]
    sides = {f"{_SIDE}x{_SIDE}": count}
    split = Split(tars, samples=count, sizes=sides)
    Manifest({"name": "small", "title": "", "polarity": "auto"}, {"train": split}, {"depth": 8}).save(folder)


def probe(shards: Path, where: str) -> Row:
    """In a process of its own: what a loader costs before its first batch, and its pace after that."""
    start = perf_counter()
    loader = Loader(LoaderConfig(shards, "train", _SIDE, 256, where, Augment(), threads=peers.cores()))
    batches = (batch for epoch in range(1 << 30) for batch in loader.epoch(epoch))
    next(batches)
    first = perf_counter() - start
    images, start = _taken(batches), perf_counter()
    images = _taken(batches)
    pace = images / (perf_counter() - start)
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return {"kind": "dataset", "samples": loader.samples, "first_batch_seconds": first, "images_per_second": pace,
            "peak_mb": int(found[1]) / 1e3}  # fmt: skip


def _taken(batches: Iterator[Any]) -> int:
    images, end = 0, perf_counter() + _SECONDS
    while perf_counter() < end:
        images += len(next(batches).images)
    return images


def datasets(source: Path, folder: Path, where: str) -> list[Row]:
    """A row a number of samples."""
    rows = []
    for count in SAMPLES:
        shards = folder / f"small-{count}"
        made(source, shards, count)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(probe, (shards, where)))
        print(f"{count:,} samples: {rows[-1]}", file=sys.stderr)
    return rows


def processes(source: Path, folder: Path, where: str) -> list[Row]:
    """A row a number of processes; on GPUs as many as there are of them."""
    model, (_, side, *_) = SIZES[where]
    shards, rows = folder / "dsb2018", []
    shard.write(ShardConfig(source / "dsb2018", shards, recipe="dsb2018"))
    for count in PROCESSES:
        if where == "cuda" and count > torch.cuda.device_count():
            print(f"{count} processes: skipped, {torch.cuda.device_count()} GPU", file=sys.stderr)
            continue
        run, threads = folder / f"run-{count}", str(max(1, peers.cores() // count))
        words = ["train", shards, run, "--model", model, "--size", side, "--batch-size", BATCH, "--epochs", _EPOCHS,
                 "--patience", 0, "--device", where, "--threads", threads]  # fmt: skip
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run(
            [*start, "-m", "medsass", *map(str, words)], check=True, env=environment, stdout=subprocess.DEVNULL
        )
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows.append(
            {"kind": "processes", "processes": count, "threads_each": int(threads), "model": model, "size": side,
             "batch": BATCH, "images_per_second": lines[-1]["images_per_second"], "waited": lines[-1]["waited"],
             "train_loss": [line["train_loss"] for line in lines]}
        )  # fmt: skip
    return rows


def draw(rows: Sequence[Row], path: Path) -> None:
    """Three panels: pace by size of the images, by samples, and by processes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    kinds = {
        "size": ("size", "pixels a side"),
        "dataset": ("samples", "samples"),
        "processes": ("processes", "processes"),
    }
    for axes, (kind, (field, label)) in zip(figure.subplots(1, 3), kinds.items(), strict=True):
        found = [row for row in rows if row["kind"] == kind]
        x, y = [row[field] for row in found], [row["images_per_second"] for row in found]
        axes.plot(x, y, "o-", color="tab:green")
        if kind == "size":  # as the floating-point operations would have it, from the largest size on
            work = [row["flops_an_image"] for row in found]
            axes.plot(x, [y[-1] * work[-1] / w for w in work], ":", color="gray", label="by operations alone")
            axes.legend(frameon=False)
        if kind != "processes":
            axes.set_xscale("log")
        axes.set_yscale("log" if kind == "size" else "linear")
        axes.set_xticks(x, [f"{value:,}" for value in x])
        axes.minorticks_off()
        axes.set(
            xlabel=label,
            ylabel="images/s",
            title={"size": "training", "dataset": "loader", "processes": "training"}[kind],
        )
        axes.spines[["top", "right"]].set_visible(False)
        if kind != "size":
            axes.set_ylim(0, 1.1 * max(y))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, save, draw."""
    data = result.data("scaling", ["isic2017", "dsb2018"])
    where = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = processes(data, folder, where) + datasets(data, folder, where)
        shards = folder / "isic2017"
        shard.write(ShardConfig(data / "isic2017", shards, recipe="isic2017", encode="jpeg"))
        rows += sizes(shards, where)
    path = result.save("scaling", where, rows, [], {})
    draw(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
