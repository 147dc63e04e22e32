"""The cost of larger images, larger datasets and more processes.

    python -m benchmarks.scaling [DATA]

- size: the training line on images of more and more pixels, beside their floating-point operations.
- dataset: a loader of 1,000, 10,000 and 100,000 samples, each in a process of its own: seconds until its first batch,
  peak memory, and images a second after that. Samples are small JPEG files made of real ones, so that the cost of a sample
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
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cv2
import torch

from benchmarks.support import peers, result, training
from benchmarks.support.training import Contender
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
_SIDE = 64  # of the small samples, in pixels
_SECONDS = 5.0  # of each measurement of a pace
_TURNS = 3
_EPOCHS = 3


def sizes(shards: Path, where: str) -> list[Row]:
    """Return a row for each size of the images."""
    model, sides = SIZES[where]
    paces: dict[int, list[float]] = {side: [] for side in sides}
    for _ in range(_TURNS):
        for side, found in paces.items():
            config = TrainConfig(shards, Path("run"), model=model, size=side, batch_size=BATCH, device=where)
            contender = Contender("line", "", partial(training.line, config, where))
            found.append(training.run(contender, _SECONDS, where).images_per_second)
    rows = []
    for side, found in paces.items():
        row = {"kind": "size", "model": model, "size": side, "batch": BATCH, "images_per_second": median(found)}
        spread = {"least": min(found), "most": max(found), "turns": len(found)}
        rows.append({**row, **spread, "flops_an_image": training.flops(model, side)})
    return rows


def write_small(source: Path, folder: Path, count: int) -> None:
    """Fill `folder` with a split "train" of `count` small images."""
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
    Manifest({"name": "small", "polarity": "auto"}, {"train": split}).save(folder)


def probe(shards: Path, where: str) -> Row:
    """Return the row of a loader: seconds to its first batch, pace after that, and the peak memory of this process."""
    start = perf_counter()
    loader = Loader(LoaderConfig(shards, "train", _SIDE, 256, where, Augment(), threads=peers.cores()))
    batches = (batch for epoch in range(1 << 30) for batch in loader.epoch(epoch))
    next(batches)
    first = perf_counter() - start
    pace = 0.0
    for _ in range(2):  # the first round warms up
        images, start = 0, perf_counter()
        while perf_counter() - start < _SECONDS:
            images += len(next(batches).images)
        pace = images / (perf_counter() - start)
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    row = {"kind": "dataset", "samples": loader.samples, "first_batch_seconds": first, "images_per_second": pace}
    return {**row, "peak_mb": int(found[1]) / 1e3}


def datasets(source: Path, folder: Path, where: str) -> list[Row]:
    """Return a row for each number of samples."""
    rows = []
    for count in SAMPLES:
        shards = folder / f"small-{count}"
        write_small(source, shards, count)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(probe, (shards, where)))
        print(f"{count:,} samples: {rows[-1]}", file=sys.stderr)
    return rows


def processes(source: Path, folder: Path, where: str) -> list[Row]:
    """Return a row for each number of processes, on GPUs as far as there are enough."""
    model, (_, side, *_) = SIZES[where]
    shards, rows = folder / "dsb2018", []
    shard.write(ShardConfig(source / "dsb2018", shards, recipe="dsb2018"))
    for count in PROCESSES:
        if where == "cuda" and count > torch.cuda.device_count():
            print(f"{count} processes: skipped, {torch.cuda.device_count()} GPU", file=sys.stderr)
            continue
        run, threads = folder / f"run-{count}", str(max(1, peers.cores() // count))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
        command += ["-m", "medsass", "train", shards, run, "--model", model, "--size", side, "--batch-size", BATCH]
        command += ["--epochs", _EPOCHS, "--patience", 0, "--device", where, "--threads", threads]
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        subprocess.run(list(map(str, command)), check=True, env=environment, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        row = {"kind": "processes", "processes": count, "threads_each": int(threads), "model": model, "size": side}
        pace = {name: lines[-1][name] for name in ("images_per_second", "waited")}
        rows.append({**row, "batch": BATCH, **pace, "train_loss": [line["train_loss"] for line in lines]})
    return rows


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw three panels: pace by size of the images, by samples, and by processes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    kinds = (
        ("size", "size", "pixels a side", "training"),
        ("dataset", "samples", "samples", "loader"),
        ("processes", "processes", "processes", "training"),
    )
    for axes, (kind, field, label, title) in zip(figure.subplots(1, 3), kinds, strict=True):
        found = [row for row in rows if row["kind"] == kind]
        x, y = [row[field] for row in found], [row["images_per_second"] for row in found]
        axes.plot(x, y, "o-", color="tab:green")
        if kind == "size":  # the pace that the operations alone would give, from the largest size on
            work = [row["flops_an_image"] for row in found]
            axes.plot(x, [y[-1] * work[-1] / w for w in work], ":", color="gray", label="by operations alone")
            axes.legend(frameon=False)
        if kind != "processes":
            axes.set_xscale("log")
        axes.set_yscale("log" if kind == "size" else "linear")
        axes.set_xticks(x, [f"{value:,}" for value in x])
        axes.minorticks_off()
        axes.set(xlabel=label, ylabel="images/s", title=title)
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
