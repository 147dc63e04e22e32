"""What lies beyond the threshold: MedSASS as in the paper, each part of `medsass-plus` added alone, and all together.

    python -m benchmarks.beyond [DATA [OUT]]

For each dataset `medsass tune` chooses labels on training images without their truth, and the same choice is used with all
seeds. Arms: MedSASS as in the paper; with the chosen labels; with each part of the training; scored as a mean over flips;
and all of it. What is scored is a split that nothing was chosen or trained on: of ISIC 2017, whose test masks are not
public, the validation split. The last epoch counts where a method ranks none, the lowest loss against the threshold's masks
where it does; the truth has no part in that. OUT (`medsass-beyond` among temporary files unless given) keeps every run: the
same command goes on where it was stopped. On a CPU every core does a training of its own, of a small network on a part of
the images (`plan`).
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
    """A way to train, by options of `train`, and to score. tuned: with the labels that `tune` chose."""

    name: str
    options: tuple[str, ...] = ()
    tuned: bool = False
    flips: bool = False

    @property
    def training(self) -> tuple[tuple[str, ...], bool]:
        """What makes its training; arms that share it are scored on the same runs."""
        return self.options, self.tuned


def _part(name: str) -> Arm:
    return Arm(name, ("--method", "medsass-plus", "--parts", name))


PAPER = Arm("MedSASS as in the paper")
TUNED = Arm("chosen labels", tuned=True)
ALL = Arm("all together", ("--method", "medsass-plus"), tuned=True, flips=True)
ARMS = (
    PAPER,
    TUNED,
    _part("weights"),
    _part("consistency"),
    _part("teacher"),
    Arm("flips", flips=True),
    ALL,
)
_NAMES = [arm.name for arm in ARMS]


@dataclass(frozen=True)
class Plan:
    """The network, the side of its images, images a step, steps of a training (in whole epochs, at least one), training
    images of ISIC 2017, 0 for all, and trainings at a time.
    """

    model: str
    size: int
    batch: int
    steps: int
    isic: int
    workers: int


def plan(where: str) -> Plan:
    """A GPU's is the paper's network and size; on a CPU the same would take days."""
    if where == "cuda":
        return Plan("unet-resnet50", 224, 16, 2500, isic=0, workers=1)
    return Plan("unet-resnet18", 96, 4, 200, isic=800, workers=os.cpu_count() or 1)


@dataclass(frozen=True)
class Bench:
    """One dataset: its shards, the labels that `tune` chose for it, and its trainings, all in `folder`."""

    dataset: str
    folder: Path
    plan: Plan
    where: str

    @property
    def shards(self) -> Path:
        """Its shards."""
        return self.folder / "shards"

    @property
    def choice(self) -> Path:
        """What `tune` wrote."""
        return self.folder / "labels.toml"

    def prepare(self, source: Path) -> None:
        """Shard and choose, where that is not done."""
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
        """Of every training."""
        images = remote.load(self.shards).split("train").samples
        return max(1, round(self.plan.steps * self.plan.batch / images))

    def score(self, arm: Arm, seed: int) -> Row:
        """Train, unless that is done, and score: one row."""
        run = self.folder / f"{_slug(_first(arm))}-{seed}"
        scores = self.folder / f"{_slug(arm)}-{seed}.json"
        common = ("--device", self.where, *(("--threads", "1") if self.plan.workers > 1 else ()))
        if not (run / "done").is_file():
            choice = ("--config", f"{self.choice}") if arm.tuned else ()
            _medsass("train", self.shards, run, "--model", self.plan.model, "--size", self.plan.size,
                     "--batch-size", self.plan.batch, "--epochs", self.epochs(), "--patience", 0, "--seed", seed,
                     "--cache", "host", "--overwrite", *arm.options, *choice, *common)  # fmt: skip
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
        """What `tune` chose, and how well that follows the truth."""
        options = tomllib.loads(self.choice.read_text())
        options.pop("chosen-on", None)  # a path of the machine
        return {"dataset": self.dataset, "choice": options, **json.loads(self.choice.with_suffix(".json").read_text())}


def fewer(source: Path, folder: Path, images: int) -> Path:
    """A folder like `source`, ISIC 2017's, of links, with that many training images, taken evenly."""
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
    """Run a command of medsass, in a process of its own: one core's where several run at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if "--threads" in arguments else None
    command = [sys.executable, "-m", "medsass", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def _first(arm: Arm) -> Arm:
    """The first arm of the same training, by which its run is named."""
    return next(item for item in ARMS if item.training == arm.training)


def _slug(arm: Arm) -> str:
    return arm.name.replace(" ", "-")


def over(rows: Iterable[Row], arm: Arm, base: Arm = PAPER) -> dict[str, float]:
    """By dataset: mean IoU of an arm over its seeds, less that of `base`."""
    found: dict[str, float] = {}
    rows = list(rows)
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        means = [mean(r["iou"] for r in rows if (r["dataset"], r["arm"]) == (dataset, one.name)) for one in (arm, base)]
        found[dataset] = means[0] - means[1]
    return found


def targets(rows: list[Row]) -> list[result.Target]:
    """What is aimed at, over all four sets."""
    gains = over([row for row in rows if "arm" in row], ALL).values()
    return [
        result.Target("mean IoU over the four sets, all together over MedSASS as in the paper", "IoU", ">=", 0.10, mean(gains)),
        result.Target("the same on the worst of the sets", "IoU", ">=", -0.02, min(gains)),
    ]  # fmt: skip


def readme_table(results: dict[str, Result]) -> str:
    """Each way to go past the threshold: mean IoU over seeds and their standard deviation, a column a dataset; where seeds
    are missing, how many there are. Above them the labels that were learnt, without a network.
    """
    rows = []
    for name, content in results.items():
        cells = [row for row in content["rows"] if "arm" in row]
        datasets = list(dict.fromkeys(row["dataset"] for row in cells))
        of = {(d, arm): [r for r in cells if (r["dataset"], r["arm"]) == (d, arm)] for d in datasets for arm in _NAMES}
        for head, arm in (("bare Otsu", PAPER.name), ("bare chosen labels", TUNED.name)):
            bare = [of[dataset, arm][0]["labels_iou"] for dataset in datasets]
            rows.append([head, *(f"{iou:.3f}" for iou in bare), f"{mean(bare):.3f}", measured(name, content)])
        for arm in _NAMES:
            found = [[row["iou"] for row in of[dataset, arm]] for dataset in datasets]
            texts = [_spread(ious) for ious in found]
            rows.append([arm, *texts, f"{mean(map(mean, found)):.3f}", measured(name, content)])
    first = next(iter(results.values()))["rows"]
    return table(["", *dict.fromkeys(row["dataset"] for row in first), "mean", "measured on"], rows)


def _spread(ious: list[float]) -> str:
    seeds = "" if len(ious) >= len(SEEDS) else f" (seeds: {len(ious)})"
    return f"{mean(ious):.3f}" + (f" ± {stdev(ious):.3f}" if len(ious) > 1 else "") + seeds


def main() -> None:
    """Do what is not done yet, and save."""
    data = result.data("beyond", SPLITS)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.gettempdir()) / "medsass-beyond"
    benches = [Bench(dataset, out / dataset, plan(where), where) for dataset in SPLITS]
    for bench in benches:
        bench.prepare(data / bench.dataset)
    # a seed of everything comes before the next, and what scores another's run anew after all trainings
    cells = sorted(product(SEEDS, benches, ARMS), key=lambda cell: _first(cell[2]) != cell[2])
    with ThreadPoolExecutor(plan(where).workers) as pool:
        list(pool.map(_told, cells))
    rows = [bench.score(arm, seed) for bench in benches for arm in ARMS for seed in SEEDS]
    result.save("beyond", where, [*rows, *(bench.about() for bench in benches)], targets(rows), {})


def _told(cell: tuple[int, Bench, Arm]) -> None:
    seed, bench, arm = cell
    print(f"{bench.dataset}, {arm.name}, seed {seed}: {bench.score(arm, seed)['iou']:.4f}", file=sys.stderr)


if __name__ == "__main__":
    main()
