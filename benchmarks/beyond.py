"""Beyond the threshold: MedSASS as in the paper, each part of `medsass-plus` added alone, and all of them together.

    python -m benchmarks.beyond [DATA [OUT]]

For each dataset `medsass tune` chooses labels on training images without ground truth; all seeds use the same choice. Arms:
MedSASS as in the paper; with the chosen labels; with each part of the training; averaged over flips; and everything. The
scored split had no part in choice or training: of ISIC 2017, whose test masks are not public, the validation split. The last
epoch counts if a method ranks none, else the one with the lowest loss against the threshold's masks; ground truth has no part
in that. OUT (default `medsass-beyond` among the temporary files) keeps every run: the same command goes on where it was
stopped. On a CPU every core trains a small network of its own on a part of the images (`plan`).
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from benchmarks.support import result
from benchmarks.support.markdown import Result, measured, table
from medsass import files
from medsass.config import ShardConfig, TuneConfig
from medsass.data.sharding import shard
from medsass.data.shards import remote
from medsass.runs import run_directory
from medsass.runs.tuning.tune import correlation, tune
from medsass.runs.tuning.warnings import of_choice

Row = dict[str, Any]

SPLITS = {"isic2017": "val", "covid19_radiography": "test", "dsb2018": "test", "bitdepth_nucseg": "test"}
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Arm:
    """A way to train, by options of `train`, and to score. tuned: with the labels that `tune` chose. flips: as their mean."""

    name: str
    options: tuple[str, ...] = ()
    tuned: bool = False
    flips: bool = False

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return self.name.replace(" ", "-")

    @property
    def trained(self) -> "Arm":
        """The first arm with the same training, whose runs this one scores."""
        return next(arm for arm in ARMS if (arm.options, arm.tuned) == (self.options, self.tuned))


PAPER = Arm("MedSASS as in the paper")
TUNED = Arm("chosen labels", tuned=True)
ALL = Arm("all together", ("--method", "medsass-plus"), tuned=True, flips=True)
_PARTS = [Arm(name, ("--method", "medsass-plus", "--parts", name)) for name in ("weights", "consistency", "teacher")]
ARMS = (PAPER, TUNED, *_PARTS, Arm("flips", flips=True), ALL)


@dataclass(frozen=True)
class Plan:
    """The size of the experiment.

    model, size, batch: network, side of its images, images a step. steps: of a training, in whole epochs, at least one.
    isic: training images of ISIC 2017, 0 for all. workers: trainings at a time.
    """

    model: str
    size: int
    batch: int
    steps: int
    isic: int
    workers: int


def plan(where: str) -> Plan:
    """Return the paper's network and size for a GPU; on a CPU, where they would take days, a small one."""
    if where == "cuda":
        return Plan("unet-resnet50", 224, 16, 2500, isic=0, workers=1)
    return Plan("unet-resnet18", 96, 4, 200, isic=800, workers=os.cpu_count() or 1)


@dataclass(frozen=True)
class Bench:
    """A dataset: its shards, the labels that `tune` chose for it, and its trainings, all in `folder`."""

    dataset: str
    folder: Path
    plan: Plan
    where: str

    @property
    def shards(self) -> Path:
        """Folder of the shards."""
        return self.folder / "shards"

    @property
    def choice(self) -> Path:
        """The file that `tune` wrote."""
        return self.folder / "labels.toml"

    def prepare(self, source: Path) -> None:
        """Shard the dataset and choose its labels, unless that is done."""
        if not (self.shards / "manifest.json").is_file():
            if self.dataset == "isic2017" and self.plan.isic:
                source = fewer(source, self.folder / "source", self.plan.isic)
            shard.write(ShardConfig(source, self.shards, recipe=self.dataset, overwrite=True))
        about = self.choice.with_suffix(".json")
        if not about.is_file():
            sheet, size = self.choice.with_suffix(".png"), self.plan.size
            found = tune(TuneConfig(self.shards, self.choice, sheet, size=size, score=True, device=self.where))
            assert found.iou is not None
            best = int(found.iou.argmax())
            content = {
                "correlation": correlation(found),
                "chosen_iou": float(found.iou[0]),
                "best_iou": float(found.iou[best]),
                "best": found.candidates[best].name,
                "warned": bool(of_choice(found.values, 0)),
            }
            files.write(about, json.dumps(content))

    def epochs(self) -> int:
        """Return the epochs of every training."""
        images = remote.load(self.shards).split("train").samples
        return max(1, round(self.plan.steps * self.plan.batch / images))

    def score(self, arm: Arm, seed: int) -> Row:
        """Train and score an arm, unless that is done, and return its row."""
        run, scores = self.folder / f"{arm.trained.slug}-{seed}", self.folder / f"{arm.slug}-{seed}.json"
        common = ("--device", self.where, *(("--threads", "1") if self.plan.workers > 1 else ()))
        if not (run / "done").is_file():
            choice = ("--config", f"{self.choice}") if arm.tuned else ()
            form = ("--model", self.plan.model, "--size", self.plan.size, "--batch-size", self.plan.batch)
            course = ("--epochs", self.epochs(), "--patience", 0, "--seed", seed, "--cache", "host", "--overwrite")
            _medsass("train", self.shards, run, *form, *course, *arm.options, *choice, *common)
            files.write(run / "done", "")
        trained = run_directory.stored(run)[0]
        if (trained.model, trained.size) != (self.plan.model, self.plan.size):
            sys.exit(f"{run} is of another machine's plan, {trained.model} at {trained.size}; give another OUT")
        if not scores.is_file():
            flips = ("--flips",) if arm.flips else ()
            _medsass("evaluate", run, self.shards, "--split", SPLITS[self.dataset], "--json", scores, *flips, *common)
        content = json.loads(scores.read_text())
        return {
            "dataset": self.dataset,
            "split": SPLITS[self.dataset],
            "images": content["images"],
            "arm": arm.name,
            "seed": seed,
            "model": self.plan.model,
            "size": self.plan.size,
            "trained_on": remote.load(self.shards).split("train").samples,
            "epochs": self.epochs(),
            "iou": content["iou"],
            "dice": content["dice"],
            "labels_iou": content["labels"]["iou"],
        }

    def about(self) -> Row:
        """Return the row of what `tune` chose and how well it follows the ground truth."""
        options = tomllib.loads(self.choice.read_text())
        options.pop("chosen-on", None)  # a path of the machine
        return {"dataset": self.dataset, "choice": options, **json.loads(self.choice.with_suffix(".json").read_text())}


def fewer(source: Path, folder: Path, images: int) -> Path:
    """Fill `folder` with links to ISIC 2017's `source`, with that many evenly spaced training images, and return it."""
    training = "ISIC-2017_Training_Data"
    names = sorted(path.stem for path in (source / training).glob("*.jpg"))
    kept = {names[i] for i in np.linspace(0, len(names) - 1, images).round().astype(int)}
    for path in sorted(source.rglob("*")):
        of_training = path.parent.name in (training, "ISIC-2017_Training_Part1_GroundTruth")
        link = folder / path.relative_to(source)
        if path.is_file() and (not of_training or path.stem.removesuffix("_segmentation") in kept):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return folder


def _medsass(*arguments: object) -> None:
    """Run a command of medsass in a process of its own, with one thread if several run at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if "--threads" in arguments else None
    command = [sys.executable, "-m", "medsass", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def targets(rows: list[Row]) -> list[result.Target]:
    """Return the targets: gains in IoU, mean over seeds, of all together over MedSASS as in the paper."""
    ious = _ious(rows)
    gains = [
        mean(ious[dataset, ALL.name]) - mean(ious[dataset, PAPER.name]) for dataset, arm in ious if arm == ALL.name
    ]
    aim = "mean IoU over the four sets, all together over MedSASS as in the paper"
    return [
        result.Target(aim, "IoU", ">=", 0.10, mean(gains)),
        result.Target("the same on the worst of the sets", "IoU", ">=", -0.02, min(gains)),
    ]


def _ious(rows: Iterable[Row], score: str = "iou") -> dict[tuple[str, str], list[float]]:
    """Scores of all seeds by dataset and arm."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if "arm" in row:
            found.setdefault((row["dataset"], row["arm"]), []).append(row[score])
    return found


def markdown_table(results: dict[str, Result]) -> str:
    """Return a Markdown table: mean and standard deviation of the IoU over seeds, a row an arm and a column a dataset.

    If seeds are missing, it says how many there are. The first rows are the labels themselves, without a network.
    """
    rows = []
    for name, content in results.items():
        labels, networks = _ious(content["rows"], "labels_iou"), _ious(content["rows"])
        datasets = list(dict.fromkeys(dataset for dataset, _ in networks))
        for head, arm in (("bare Otsu", PAPER), ("bare chosen labels", TUNED)):
            bare = [labels[dataset, arm.name][0] for dataset in datasets]
            rows.append([head, *(f"{iou:.3f}" for iou in bare), f"{mean(bare):.3f}", measured(name, content)])
        for arm in ARMS:
            found = [networks[dataset, arm.name] for dataset in datasets]
            rows.append([arm.name, *map(_spread, found), f"{mean(map(mean, found)):.3f}", measured(name, content)])
    first = next(iter(results.values()))["rows"]
    return table(["", *dict.fromkeys(row["dataset"] for row in first), "mean", "measured on"], rows)


def _spread(ious: list[float]) -> str:
    seeds = "" if len(ious) >= len(SEEDS) else f" (seeds: {len(ious)})"
    return f"{mean(ious):.3f}" + (f" ± {stdev(ious):.3f}" if len(ious) > 1 else "") + seeds


def main() -> None:
    """Train and score what is not done yet, and save the result."""
    data = result.data("beyond", SPLITS)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.gettempdir()) / "medsass-beyond"
    benches = [Bench(dataset, out / dataset, plan(where), where) for dataset in SPLITS]
    for bench in benches:
        bench.prepare(data / bench.dataset)
    # all arms of a seed before the next seed, and arms that only score another's runs after all trainings
    cells = sorted(product(SEEDS, benches, ARMS), key=lambda cell: cell[2].trained != cell[2])

    def score(cell: tuple[int, Bench, Arm]) -> None:
        seed, bench, arm = cell
        print(f"{bench.dataset}, {arm.name}, seed {seed}: {bench.score(arm, seed)['iou']:.4f}", file=sys.stderr)

    with ThreadPoolExecutor(plan(where).workers) as pool:
        list(pool.map(score, cells))
    rows = [bench.score(arm, seed) for bench in benches for arm in ARMS for seed in SEEDS]
    result.save("beyond", where, [*rows, *(bench.about() for bench in benches)], targets(rows), {})


if __name__ == "__main__":
    main()
