"""The training line against its ceiling, against the paper's way, and with each optimisation taken away.

    python -m benchmarks.train [DATA]

Of each network and batch size, images a second of
- the line: `medsass train`'s own `Trainer` on shards, decoding, augmenting and labelling included;
- the ceiling: the same step on one batch that never leaves the device, so that nothing can be waited for;
- the paper's way: PyTorch DataLoader with PIL on all cores, each batch thresholded by OpenCV on the CPU, float32, NCHW;
- the line without one of its parts at a time.
The ways take turns, several times over, so that a machine that slows down slows all of them. FLOPs are counted by torch
on the network (forward and backward); the matrix peak is measured in the same run. DATA holds `isic2017/`, whose 2000
training images of 256 x 256 pixels are stored as JPEG.
"""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch

from benchmarks import ablations, result, ways
from benchmarks.ways import Pace
from medsass.config import ShardConfig, TrainConfig
from medsass.data import shard
from medsass.runs import device
from medsass.runs.train import train


@dataclass(frozen=True)
class Case:
    """A network, the side of its images and the images of a step."""

    model: str
    size: int
    batch: int


@dataclass(frozen=True)
class Plan:
    """What a kind of machine measures: cases, the one that parts are taken from, and seconds and turns of each way."""

    cases: tuple[Case, ...]
    ablated: Case
    seconds: float
    turns: int


PLANS = {
    "cuda": Plan(
        tuple(Case(model, 224, batch) for model in ("unet-resnet50", "unet-vit-small") for batch in (16, 64, 256)),
        Case("unet-resnet50", 224, 64), 4.0, 3,
    ),
    "cpu": Plan((Case("unet-resnet18", 96, 16),), Case("unet-resnet18", 96, 16), 8.0, 3),
}  # fmt: skip


def main() -> None:
    """Measure, save, draw."""
    data = result.data("train", ["isic2017"])
    where = "cuda" if torch.cuda.is_available() else "cpu"
    plan = PLANS[where]
    limits = {"matrix_flops": ways.matrix_peak(where)}
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name, "shards")
        shard.write(ShardConfig(data / "isic2017", shards, recipe="isic2017", encode="jpeg"))
        rows = []
        for case in plan.cases:
            config = TrainConfig(
                shards, Path(name, "run"), model=case.model, size=case.size, batch_size=case.batch, device=where
            )
            rows += measure(case, config, where, case == plan.ablated, plan, limits["matrix_flops"])
        if where == "cuda":
            rows.append(paper_run(TrainConfig(shards, Path(name, "paper"), patience=0, device=where)))
    path = result.save("train", where, rows, targets(rows, where), limits)
    ways.draw(rows, path.with_suffix(".png"))


def measure(
    case: Case, config: TrainConfig, where: str, ablated: bool, plan: Plan, peak: float
) -> list[dict[str, Any]]:
    """A row a way."""
    chosen = ways.of(config, where) + (ablations.of(config, where) if ablated else [])
    paces: dict[str, list[Pace]] = {way.name: [] for way in chosen}
    flops = ways.flops(case.model, case.size)
    for _ in range(plan.turns):
        for way in chosen:
            device.seed(0, where)
            paces[way.name].append(ways.run(way, plan.seconds))
    rows = []
    for way in chosen:
        speeds = [pace.images_per_second for pace in paces[way.name]]
        middle = median(speeds)
        rows.append(
            {
                "model": case.model,
                "size": case.size,
                "batch": case.batch,
                "way": way.name,
                "what": way.what,
                "images_per_second": middle,
                "least": min(speeds),
                "most": max(speeds),
                "turns": len(speeds),
                "waited": median(pace.waited for pace in paces[way.name]),
                "peak_memory": max(pace.memory for pace in paces[way.name]) or None,
                "flops_an_image": flops,
                "of_matrix_peak": flops * middle / peak,
            }
        )
    return rows


def paper_run(config: TrainConfig) -> dict[str, Any]:
    """ISIC-2017, 50 epochs of batches of 16: seconds from the command's beginning to its end, compilation included."""
    start = monotonic()
    with contextlib.redirect_stdout(None):
        train(config)
    return {"way": "paper run", "model": config.model, "size": config.size, "batch": config.batch_size,
            "epochs": config.epochs, "seconds": monotonic() - start}  # fmt: skip


def targets(rows: Sequence[dict[str, Any]], where: str) -> list[result.Target]:
    """What is aimed at, with what was measured; None where it was not measured on this kind of machine."""

    def speed(way: str, batch: int, model: str = "unet-resnet50") -> float | None:
        found = [r for r in rows if (r["way"], r["batch"], r["model"]) == (way, batch, model)]
        return float(found[0]["images_per_second"]) if found else None

    def ratio(one: float | None, other: float | None) -> float | None:
        return one / other if one is not None and other else None

    over = {batch: ratio(speed("line", batch), speed("ceiling", batch)) for batch in (16, 64, 256)}
    large = [value for batch in (64, 256) if (value := over[batch]) is not None]
    paper = [value for batch in (16, 64, 256) if (value := ratio(speed("line", batch), speed("paper's way", batch)))]
    run = next((row["seconds"] for row in rows if row["way"] == "paper run"), None)
    small = next((row["waited"] for row in rows if row["way"] == "line"), None) if where == "cpu" else None
    ceiling = "real line over device-resident ceiling, ResNet-50 U-Net 224²"
    return [
        result.Target(f"{ceiling}, batch ≥ 64", "ratio", ">=", 0.97, min(large, default=None)),
        result.Target("the same at the paper's batch 16", "ratio", ">=", 0.95, over[16]),
        result.Target("over the paper's way, same GPU, same run", "ratio", ">=", 4, min(paper, default=None)),
        result.Target("ResNet-50 U-Net, bf16, batch 256", "images/s", ">=", 2500, speed("line", 256)),
        result.Target("one paper run (ISIC-2017, 50 epochs), wall clock", "s", "<=", 90, run),
        result.Target("CPU: share of the small U-Net's training spent waiting for data", "share", "<=", 0.05, small),
    ]


if __name__ == "__main__":
    main()
