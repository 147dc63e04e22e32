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
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from benchmarks.support import ablations, result, sheet, ways
from benchmarks.support.sheet import Cell, Sheet
from benchmarks.support.ways import Way
from medsass.config import ShardConfig, TrainConfig
from medsass.data.sharding import shard
from medsass.runs import device
from medsass.runs.training.train import train


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
        tuple(Case(model, 224, batch) for model in ("unet-resnet50", "unet-vit-small") for batch in (64, 256, 16)),
        Case("unet-resnet50", 224, 64), 4.0, 3,
    ),
    "cpu": Plan((Case("unet-resnet18", 96, 16),), Case("unet-resnet18", 96, 16), 8.0, 3),
}  # fmt: skip


def main() -> None:
    """Measure what is missing, draw; exit 3 where something is left."""
    chosen = sheet.options("train")
    result.check(chosen.data, "train", ["isic2017"])
    grown = Sheet("train", chosen)
    grown.limits = {"matrix_flops": ways.matrix_peak(chosen.where)}
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name, "shards")
        shard.write(ShardConfig(chosen.data / "isic2017", shards, recipe="isic2017", encode="jpeg"))
        made = cells(shards, chosen.where, grown.limits["matrix_flops"])
        done = grown.fill(made, lambda rows: targets(merged(rows), chosen.where))
    if merged(grown.rows):
        ways.draw(merged(grown.rows), grown.path.with_suffix(".png"))
    result.show(grown.path)
    if not done:
        sys.exit(sheet.UNFINISHED)


def cells(shards: Path, where: str, peak: float) -> list[Cell]:
    """A cell a turn of a way: first each case's ceiling and line, then the paper's run, further turns, and the other ways."""
    plan, first, later, last = PLANS[where], list[Cell](), list[Cell](), list[Cell]()
    for case in plan.cases:
        config = TrainConfig(
            shards, shards.parent / "run", model=case.model, size=case.size, batch_size=case.batch, device=where
        )
        for way in ways.of(config, where):
            mine = first if way.name in ("ceiling", "line") else later
            mine += [_cell(case, way, turn, where, plan.seconds, peak) for turn in range(1)]
            later += [_cell(case, way, turn, where, plan.seconds, peak) for turn in range(1, plan.turns)]
        if case == plan.ablated:
            chosen = ablations.of(config, where)
            last = [_cell(case, way, turn, where, plan.seconds, peak) for turn in range(plan.turns) for way in chosen]
    run = TrainConfig(shards, shards.parent / "paper", patience=0, device=where, overwrite=True)
    paper = [Cell("paper run", lambda: [paper_run(run)])] if where == "cuda" else []
    return [*first, *paper, *later, *last]


def _cell(case: Case, way: Way, turn: int, where: str, seconds: float, peak: float) -> Cell:
    key = f"{case.model} {case.size}, batch {case.batch}, {way.name}, turn {turn + 1}"
    return Cell(key, lambda: [measure(case, way, where, seconds, peak)])


def measure(case: Case, way: Way, where: str, seconds: float, peak: float) -> dict[str, Any]:
    """A turn of a way."""
    device.seed(0, where)
    pace, flops = ways.run(way, seconds, where), ways.flops(case.model, case.size)
    speed = pace.images_per_second
    print(f"{case}, {way.name}: {speed:,.0f} images/s, data wait {pace.waited:.1%}", file=sys.stderr)
    return {
        **asdict(case),
        "way": way.name,
        "what": way.what,
        "images_per_second": speed,
        "least": speed,
        "most": speed,
        "turns": 1,
        "waited": pace.waited,
        "peak_memory": pace.memory or None,
        "flops_an_image": flops,
        "of_matrix_peak": flops * speed / peak,
    }


def merged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a way and case, from those of its turns: medians, the least, the most."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in ("model", "size", "batch", "way")), []).append(row)
    return [_merged(group) for group in groups.values()]


def _merged(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(turns) == 1:
        return turns[0]
    middles = {name: median(t[name] for t in turns) for name in ("images_per_second", "waited", "of_matrix_peak")}
    memory = max((t["peak_memory"] for t in turns if t["peak_memory"]), default=None)
    ends = {"least": min(t["least"] for t in turns), "most": max(t["most"] for t in turns)}
    return {**turns[0], **middles, **ends, "peak_memory": memory, "turns": len(turns)}


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
