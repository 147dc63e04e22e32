"""Sharding against its lower bound: decoding the same files once, on the same cores.

    python -m benchmarks.shard [DATA]

- Time of `medsass shard` beside bare decoding of the same files (images by the decoder that training uses, in batches; masks
  by OpenCV in threads; slides tile by tile by the same reader) and beside `tar cf`, alternating, median of several rounds.
- Peak memory at 1,000 and at 100,000 samples.
- Whether each recipe finds what its dataset is said to hold: on the real datasets in DATA, and on the names of the others.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from benchmarks.support import layouts, result
from medsass.config import ShardConfig
from medsass.data.dali import BATCH, Decoder
from medsass.data.formats import geometry, opening
from medsass.data.formats.image import Selection
from medsass.data.sharding import shard

ROUNDS = 5
TILE = 256
SAMPLES = (1_000, 100_000)


@dataclass(frozen=True)
class Case:
    """A dataset of DATA, the options that shard it, and the patterns of its images and masks."""

    name: str
    folder: str
    options: dict[str, Any]
    images: str
    masks: str = ""


_FULL_SIZE = {"recipe": "folder", "images": "*Data/*.jpg", "masks": "*Part1*/{stem}_segmentation.png"}
_PNG = ("**/images/*.png", "**/masks/*.png")
CASES = (
    Case("ISIC 2017, JPEG 256²", "isic2017", {"recipe": "isic2017"}, "*_Data/*.jpg", "*_Part1_GroundTruth/*.png"),
    Case("ISIC 2017, JPEG at full size", "isic2017_fullsize", _FULL_SIZE, "*Data/*.jpg", "*Part1*/*.png"),
    Case("X-rays, PNG 299²", "covid19_radiography", {"recipe": "covid19_radiography"}, *_PNG),
    Case("DSB 2018 microscopy, PNG", "dsb2018", {"recipe": "dsb2018"}, *_PNG),
    Case("whole slides, SVS and NDPI, tiles of 256²", "whole_slide", {"recipe": "folder", "tile": TILE}, "*"),
)


def decode_images(paths: list[Path]) -> None:
    """Decode every file by the training decoder, in batches, on all cores; files are read ahead in threads."""
    decoder = Decoder(8, 0)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH):
            for item in decoder(list(pool.map(Path.read_bytes, paths[start : start + BATCH]))):
                if isinstance(item, ValueError):
                    raise item


def decode_masks(paths: list[Path]) -> None:
    """Decode every file by OpenCV, in threads."""
    with ThreadPoolExecutor() as pool:
        for image in pool.map(lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED), paths):
            assert image is not None


def read_tiles(paths: list[Path]) -> None:
    """Read every tile of every slide, in threads."""
    with ThreadPoolExecutor() as pool:
        for path in paths:
            with opening.open_image(path, Selection()) as image:
                for _ in pool.map(partial(image.read, 0), geometry.grid(image.height, image.width, TILE, TILE)):
                    pass


def seconds(work: Callable[[], Any]) -> float:
    """Return wall-clock seconds of one call."""
    start = perf_counter()
    work()
    return perf_counter() - start


def time_case(case: Case, data: Path) -> dict[str, Any]:
    """Return a row: median seconds of sharding, of bare decoding and of `tar cf`, and their ratios."""
    source = data / case.folder
    images = sorted(path for path in source.glob(case.images) if path.is_file())
    masks = sorted(source.glob(case.masks)) if case.masks else []
    tiled = "tile" in case.options
    times: dict[str, list[float]] = {name: [] for name in ("shard", "decode", "tar")}
    names = "\n".join(str(path) for path in [*images, *masks])
    samples = 0

    def decode() -> None:
        read_tiles(images) if tiled else decode_images(images)
        decode_masks(masks)

    for turn in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = perf_counter()
            dataset = shard.write(ShardConfig(source, Path(folder) / "out", **case.options))
            measured = {"shard": perf_counter() - start, "decode": seconds(decode)}
            command = ["tar", "cf", f"{folder}/all.tar", "-P", "-T", "-"]
            measured["tar"] = seconds(partial(subprocess.run, command, input=names, text=True, check=True))
        samples = sum(split.samples for split in dataset.splits.values()) + dataset.rejected
        if turn:  # the first fills the page cache and loads the libraries
            for name, value in measured.items():
                times[name].append(value)
    took = {name: median(values) for name, values in times.items()}
    return {
        "kind": "speed",
        "case": case.name,
        "images": samples,
        "files": len(images) + len(masks),
        **{f"{name}_seconds": value for name, value in took.items()},
        "shard_images_per_second": samples / took["shard"],
        "decode_images_per_second": samples / took["decode"],
        "over_decode": took["shard"] / took["decode"],
        "over_tar": took["shard"] / took["tar"],
    }


_MEASURE = """
import os, re, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data.sharding import shard
def peak(pid):
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])
def below(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*children, *(one for child in children for one in below(child))]
def look(done, total):
    workers.update({pid: peak(pid) for pid in below(os.getpid())} if done > 0.9 * total else {})
workers = {}
shard.write(ShardConfig(Path(sys.argv[1]), Path(sys.argv[2]), images="*.png"), look)
print(peak("self") + max(workers.values()))
"""  # not ru_maxrss, which a new process inherits from the one that started it


def memory(samples: int, folder: Path) -> dict[str, Any]:
    """Return a row: peak resident memory of a process that shards that many small PNG files, no two alike, and of its
    largest worker, together.
    """
    source = folder / "source"
    source.mkdir()
    image = np.zeros((32, 32), np.uint8)
    for number in range(samples):
        image[0, :4] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)
        cv2.imwrite(str(source / f"cell_{number:07d}.png"), image)
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(source), str(folder / "out")], capture_output=True, text=True, check=True
    )
    return {"kind": "memory", "samples": samples, "peak_mb": int(done.stdout) / 1024, "seconds": perf_counter() - start}


def counts(recipe: str, source: Path, paper: dict[str, int] | None, note: str = "", **options: Any) -> dict[str, Any]:
    """Return a row: image files by split that a recipe finds, beside the paper's."""
    found, _ = shard.plan(ShardConfig(source, source, recipe=recipe, **options))
    ours = {name: split.samples for name, split in found.splits.items()}
    return {"kind": "counts", "recipe": recipe, "source": note, "ours": ours, "paper": paper}


def written(
    recipe: str, source: Path, out: Path, paper: dict[str, int] | None, note: str, **options: Any
) -> dict[str, Any]:
    """Return a row as `counts`, but of the samples that are written: tiles and frames."""
    dataset = shard.write(ShardConfig(source, out, recipe=recipe, **options))
    ours = {name: split.samples for name, split in dataset.splits.items()}
    row = {"kind": "counts", "recipe": recipe, "source": note, "ours": ours, "paper": paper}
    return row | ({"left_out": dataset.rejected} if dataset.rejected else {})


def all_counts(data: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of every recipe, on real data if there are any, else on generated names or pictures."""
    layouts.create(folder / "xray", layouts.xray_files())
    layouts.create(folder / "isic", layouts.isic_files())
    layouts.isic_labels(folder / "isic")
    layouts.tissuenet(folder / "tissuenet", layouts.TISSUENET, dict.fromkeys(layouts.TISSUENET, 16))
    layouts.dermatomyositis(folder / "dm", height=88, width=118)
    layouts.drone(folder / "drone", 10, 400, 600)
    xray = {"train": 14730, "val": 2202, "test": 4233}
    isic = {"train": 2000, "val": 150, "test": 600}
    dm = {"train": 1656, "val": 240, "test": 480}
    tissue = {"train": 2580, "val": 3140, "test": 1249}
    small = "generated, a sixteenth of the true size"
    return [
        written("isic2017", data / "isic2017", folder / "o1", isic, "real, without the test split"),
        counts("isic2017", folder / "isic", isic, "names of the whole set"),
        written("covid19_radiography", data / "covid19_radiography", folder / "o2", None, "real, 600 of one class"),
        counts("covid19_radiography", folder / "xray", xray, "names of the whole set"),
        written("dsb2018", data / "dsb2018", folder / "o3", None, "real, fluorescence only"),
        written("bitdepth_nucseg", data / "bitdepth_nucseg", folder / "o4", None, "real, 8 bit"),
        written("bitdepth_nucseg", data / "bitdepth_nucseg", folder / "o5", None, "real, 16 bit", variant="16bit", depth=16),
        written("tissuenet", folder / "tissuenet", folder / "o6", tissue, "generated, counts of version 1.0"),
        written("dermatomyositis", folder / "dm", folder / "o7", dm, f"{small}, by slide", group_by="slide", tile=30),
        written("dermatomyositis", folder / "dm", folder / "o8", None, f"{small}, by patient", tile=30),
        written("drone", folder / "drone", folder / "o9", None, "generated, 10 images"),
    ]  # fmt: skip


def main() -> None:
    """Measure all and save the result."""
    data = result.data("shard", [case.folder for case in CASES])
    rows = [time_case(case, data) for case in CASES]
    for samples in SAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(memory(samples, Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        rows += all_counts(data, Path(folder))
    peaks = [row["peak_mb"] for row in rows if row["kind"] == "memory"]
    targets = [
        result.Target(f"time over bare decoding, {row['case']}", "ratio", "<=", 1.3, row["over_decode"])
        for row in rows
        if row["kind"] == "speed" and "tiles" not in row["case"]
    ]
    targets.append(result.Target("peak memory at 100,000 samples over 1,000", "ratio", "<=", 1.1, peaks[1] / peaks[0]))
    result.save("shard", "cpu", rows, targets, {})


if __name__ == "__main__":
    main()
