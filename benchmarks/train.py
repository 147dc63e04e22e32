"""The training line against its ceiling, against the paper's way, and with each optimisation taken away.

    python -m benchmarks.train [DATA]

Images a second, for each network and batch size, of
- the line: `medsass train`'s own `Trainer` on shards, decoding, augmenting and labelling included;
- the ceiling: the same step on one batch that never leaves the device, so that it never waits for data;
- the paper's way: PyTorch DataLoader with PIL on all cores, each batch thresholded by OpenCV on the CPU, float32, NCHW;
- the line without one of its parts at a time.

The contenders take turns, several times over, so that a machine that slows down slows all of them. Torch counts the FLOPs
of the network (forward and backward); the matrix peak is measured in the same run. DATA holds `isic2017/`, whose 2000
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

from benchmarks.support import ablations, cells, result, training
from benchmarks.support.cells import Cell, ResultFile
from benchmarks.support.training import Contender
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
    """The plan of a kind of machine: cases, the one that is ablated, and seconds and turns of each contender."""

    cases: tuple[Case, ...]
    ablated: Case
    seconds: float
    turns: int


_SMALL = Case("unet-resnet18", 96, 16)
_LARGE = tuple(Case(model, 224, batch) for model in ("unet-resnet50", "unet-vit-small") for batch in (64, 256, 16))
PLANS = {"cuda": Plan(_LARGE, _LARGE[0], 4.0, 3), "cpu": Plan((_SMALL,), _SMALL, 8.0, 3)}


def main() -> None:
    """Measure the missing cells and draw the chart. Exit with 3 if some are left."""
    options = cells.options("train")
    result.check(options.data, "train", ["isic2017"])
    results = ResultFile("train", options)
    results.limits = {"matrix_flops": training.matrix_peak(options.where)}
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name, "shards")
        shard.write(ShardConfig(options.data / "isic2017", shards, recipe="isic2017", encode="jpeg"))
        listed = all_cells(shards, options.where, results.limits["matrix_flops"])
        done = results.fill(listed, lambda rows: targets(merged(rows), options.where))
    if merged(results.rows):
        draw(merged(results.rows), results.path.with_suffix(".png"))
    result.show(results.path)
    if not done:
        sys.exit(cells.UNFINISHED)


def all_cells(shards: Path, where: str, peak: float) -> list[Cell]:
    """Return a cell for each turn: first all ceilings and lines, then the paper's run, further turns and contenders."""
    plan, first, later, last = PLANS[where], list[Cell](), list[Cell](), list[Cell]()

    def cell(case: Case, contender: Contender, turn: int) -> Cell:
        key = f"{case.model} {case.size}, batch {case.batch}, {contender.name}, turn {turn + 1}"
        return Cell(key, lambda: [measure(case, contender, where, plan.seconds, peak)])

    for case in plan.cases:
        form = {"model": case.model, "size": case.size, "batch_size": case.batch, "device": where}
        config = TrainConfig(shards, shards.parent / "run", **form)  # type: ignore[arg-type]
        for contender in training.contenders(config, where):
            mine = first if contender.name in ("ceiling", "line") else later
            mine.append(cell(case, contender, 0))
            later += [cell(case, contender, turn) for turn in range(1, plan.turns)]
        if case == plan.ablated:
            ablated = ablations.contenders(config, where)
            last = [cell(case, contender, turn) for turn in range(plan.turns) for contender in ablated]
    run = TrainConfig(shards, shards.parent / "paper", patience=0, device=where, overwrite=True)
    paper = [Cell("paper run", lambda: [paper_run(run)])] if where == "cuda" else []
    return [*first, *paper, *later, *last]


def measure(case: Case, contender: Contender, where: str, seconds: float, peak: float) -> dict[str, Any]:
    """Return the row of one turn of a contender."""
    device.seed(0, where)
    pace, flops = training.run(contender, seconds, where), training.flops(case.model, case.size)
    speed = pace.images_per_second
    print(f"{case}, {contender.name}: {speed:,.0f} images/s, data wait {pace.waited:.1%}", file=sys.stderr)
    return {
        **asdict(case),
        "way": contender.name,
        "what": contender.what,
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
    """Merge the turns of each contender and case into one row: medians, the least, the most."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in ("model", "size", "batch", "way")), []).append(row)
    found = []
    for turns in groups.values():
        row = dict(turns[0])
        if len(turns) > 1:
            row |= {name: median(t[name] for t in turns) for name in ("images_per_second", "waited", "of_matrix_peak")}
            row |= {"least": min(t["least"] for t in turns), "most": max(t["most"] for t in turns), "turns": len(turns)}
            row["peak_memory"] = max((t["peak_memory"] for t in turns if t["peak_memory"]), default=None)
        found.append(row)
    return found


def paper_run(config: TrainConfig) -> dict[str, Any]:
    """Return the row of ISIC-2017, 50 epochs of batches of 16: seconds of the whole command, compilation included."""
    start = monotonic()
    with contextlib.redirect_stdout(None):
        train(config)
    row = {"way": "paper run", "model": config.model, "size": config.size, "batch": config.batch_size}
    return {**row, "epochs": config.epochs, "seconds": monotonic() - start}


def targets(rows: Sequence[dict[str, Any]], where: str) -> list[result.Target]:
    """Return the targets with the measured values, None if this kind of machine does not measure them."""
    speeds = {
        (row["way"], row["batch"]): float(row["images_per_second"])
        for row in rows
        if row["model"] == "unet-resnet50" and row["way"] != "paper run"
    }

    def over(way: str, batch: int) -> float | None:
        line, other = speeds.get(("line", batch)), speeds.get((way, batch))
        return line / other if line and other else None

    large = [ratio for batch in (64, 256) if (ratio := over("ceiling", batch))]
    paper = [ratio for batch in (16, 64, 256) if (ratio := over("paper's way", batch))]
    run = next((row["seconds"] for row in rows if row["way"] == "paper run"), None)
    small = next((row["waited"] for row in rows if row["way"] == "line"), None) if where == "cpu" else None
    ceiling = "real line over device-resident ceiling, ResNet-50 U-Net 224²"
    return [
        result.Target(f"{ceiling}, batch ≥ 64", "ratio", ">=", 0.97, min(large, default=None)),
        result.Target("the same at the paper's batch 16", "ratio", ">=", 0.95, over("ceiling", 16)),
        result.Target("over the paper's way, same GPU, same run", "ratio", ">=", 4, min(paper, default=None)),
        result.Target("ResNet-50 U-Net, bf16, batch 256", "images/s", ">=", 2500, speeds.get(("line", 256))),
        result.Target("one paper run (ISIC-2017, 50 epochs), wall clock", "s", "<=", 90, run),
        result.Target("CPU: share of the small U-Net's training spent waiting for data", "share", "<=", 0.05, small),
    ]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw images a second of each contender as bars, a panel a case."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        if "images_per_second" in row:
            cases.setdefault((row["model"], row["size"], row["batch"]), []).append(row)
    figure = Figure(figsize=(8, len(cases) * (0.6 + 0.3 * max(map(len, cases.values())))), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(cases), squeeze=False)[:, 0]
    for axes, ((model, size, batch), found) in zip(panels, cases.items(), strict=True):
        names = [row["way"] for row in found]
        colours = ["tab:green" if name == "line" else "tab:gray" for name in names]
        speeds = [row["images_per_second"] for row in found]
        below = [row["images_per_second"] - row["least"] for row in found]
        above = [row["most"] - row["images_per_second"] for row in found]
        axes.barh(names, speeds, xerr=[below, above], color=colours)
        axes.invert_yaxis()
        axes.set_title(f"{model}, {size} x {size}, batch {batch}", fontsize=9)
        axes.set_xlabel("images/s")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
