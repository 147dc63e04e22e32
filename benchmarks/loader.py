"""Stored images -> augmented batches with labels: the loader and the labeller against what users would write instead.

    python -m benchmarks.loader [DATA]

Images a second of batches of 224 x 224 uint8 RGB with an Otsu mask an image, of every way in `benchmarks.support.loaders`. Of each
case all ways take turns, several times over, and no two run at once: a way is started, warmed up, measured and ended
before the next one starts. Decoding alone is measured in the same way: the limit of all that decode each image anew. DATA
holds `isic2017/` and `isic2017_fullsize/`. `benchmarks/README.md` has the design.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.support import loaders, peers, result, sheet
from benchmarks.support.images import CASES, Case, Source, prepare
from benchmarks.support.loaders import Batches, Way
from benchmarks.support.markdown import Result, measured, table
from benchmarks.support.sheet import Cell, Sheet

_LEAST = 4  # batches to warm up and to measure: more than are made ready while a way starts
_NETWORK = "unet-resnet50"  # of which the step is that the GPU's loader has to feed

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long a way is warmed up and measured in each of its turns, at least, in seconds."""

    warm: float
    seconds: float
    turns: int


PLANS = {"cuda": Plan(1.0, 2.5, 3), "cpu": Plan(1.5, 5.0, 3)}


@dataclass(frozen=True)
class Pace:
    """What a turn gave: images, in so many seconds."""

    images: int
    seconds: float

    @property
    def speed(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def run(way: Way, source: Source, plan: Plan) -> Pace:
    """One turn. Worker processes deliver in bursts, a batch each: so what is measured is whole rounds of them."""
    batches, burst = way.start(source), way.processes or 1
    try:
        _take(batches, plan.warm, burst)
        _wait(way)
        start = perf_counter()
        images = _take(batches, plan.seconds, burst)
        _wait(way)
        return Pace(images, perf_counter() - start)
    finally:
        batches.close()


def _take(batches: Batches, seconds: float, burst: int) -> int:
    """Images that came in at least so many seconds and `_LEAST` batches."""
    start, taken, images = perf_counter(), 0, 0
    while taken < _LEAST or perf_counter() - start < seconds:
        images += sum(len(next(batches).images) for _ in range(burst))
        taken += burst
    return images


def _wait(way: Way) -> None:
    if way.device == "cuda":
        torch.cuda.synchronize()


def measure(case: Case, source: Source, ways: Sequence[Way], plan: Plan) -> list[Row]:
    """A row a way that works here; the others are named with the reason."""
    paces: dict[Way, list[Pace]] = {way: [] for way in ways}
    for _ in range(plan.turns):
        for way in list(paces):
            try:
                paces[way].append(run(way, source, plan))
            except Exception as error:  # a way may fail in any way, and the others go on
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                print(f"{case.name}: {_title(way)}: skipped, {reason}", file=sys.stderr)
                del paces[way]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    rows = [_row(case, way, found) for way, found in paces.items()]
    limits = {row["decoder"]: row["images_per_second"] for row in rows if row["by"] == loaders.DECODING}
    for row in rows:
        limit = limits.get(row["decoder"]) if row["cached"] == "none" else None
        row["of_decoding"] = row["images_per_second"] / limit if limit else None
    return rows


def _title(way: Way) -> str:
    return f"{way.name}, {way.device}" + ("" if way.cached == "none" else f", cached on the {way.cached}")


def _row(case: Case, way: Way, paces: Sequence[Pace]) -> Row:
    speeds = [pace.speed for pace in paces]
    middle = median(speeds)
    print(
        f"{case.name}: {_title(way)}: {middle:,.0f} images/s, {min(speeds):,.0f} to {max(speeds):,.0f}", file=sys.stderr
    )
    return {
        "case": case.name,
        "batch": case.batch,
        "by": way.name,
        "what": way.what,
        "versions": _versions(way.packages),
        "device": way.device,
        "decoder": way.decoder,
        "processes": way.processes,
        "threads": way.threads,
        "cached": way.cached,
        "images": sum(pace.images for pace in paces),
        "seconds": sum(pace.seconds for pace in paces),
        "turns": len(paces),
        "images_per_second": middle,
        "least": min(speeds),
        "most": max(speeds),
        "spread": (max(speeds) - min(speeds)) / middle,
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Of each case the speed of medsass on the CPU, nothing cached, over that of PyTorch's DataLoader with PIL."""
    found = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        own = speed(rows, case, loaders.OWN, "cpu")
        other = speed(rows, case, loaders.PIL)
        if own and other:
            found[case] = own / other
    return found


def speed(rows: Sequence[Row], case: str, by: str, device: str = "") -> float | None:
    """Images a second of a way that caches nothing, to batches on `device` where it is given; None where not measured."""
    fits = (r for r in rows if (r["case"], r["by"], r["cached"]) == (case, by, "none") and device in ("", r["device"]))
    return next((float(row["images_per_second"]) for row in fits), None)


def consumed(trained: Result | None) -> float | None:
    """Images a second that training consumes where it never waits for data, at its fastest batch size, by the result of
    `benchmarks.train`.
    """
    rows = trained["rows"] if trained else []
    speeds = [row["images_per_second"] for row in rows if row["way"] == "ceiling" and row["model"] == _NETWORK]
    return max(speeds, default=None)


def targets(rows: Sequence[Row], step: float | None) -> list[result.Target]:
    """What is aimed at; the ratios to the DataLoader in the order of the cases. step: as `consumed`."""
    first = CASES[0].name
    found, on_gpu = ratios(rows), speed(rows, first, loaders.OWN, "cuda")
    over = "DALI CPU loader with labels over PyTorch DataLoader + PIL + OpenCV, all cores, same work"
    return [
        *(result.Target(f"{over}, {case.name}", "ratio", ">=", 2, found.get(case.name)) for case in CASES),
        result.Target(
            f"loader with labels over what the step consumes, {first}", "ratio", ">=", 3,
            on_gpu / step if on_gpu and step else None,
        ),
    ]  # fmt: skip


def readme_table(results: dict[str, Result]) -> str:
    """For README: a row a way and case, each beside decoding alone and the DataLoader with PIL."""
    lines = []
    for name, content in results.items():
        for row in content["rows"]:
            base = speed(content["rows"], row["case"], loaders.PIL)
            over = f"{row['images_per_second'] / base:.1f}" if base and row["by"] != loaders.DECODING else ""
            share = f"{row['of_decoding']:.0%}" if row["of_decoding"] and row["by"] != loaders.DECODING else ""
            cached = "" if row["cached"] == "none" else f", cached on the {row['cached']}"
            place = "GPU" if row["device"] == "cuda" else "CPU"
            lines.append([row["case"], f"{row['by']}, {place}{cached}", f"{row['images_per_second']:,.0f}", share, over,
                          measured(name, content)])  # fmt: skip
    heads = ["images", "batches by", "images/s", "of decoding alone", "over DataLoader with PIL", "measured on"]
    return table(heads, lines)


def chart(rows: Sequence[Row], path: Path) -> None:
    """Draw a panel a case: a bar a way with the range of its turns, and a line where decoding alone ends."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, axes = plt.subplots(len(cases), 1, figsize=(9, 2.4 * len(cases)), layout="constrained", squeeze=False)
    for ax, case in zip(axes[:, 0], cases, strict=True):
        bars = [row for row in rows if row["case"] == case and row["by"] != loaders.DECODING][::-1]
        values = [row["images_per_second"] for row in bars]
        names = [f"{row['by']}, {row['device']}" + (f", cached: {row['cached']}" if row["cached"] != "none" else "")
                 for row in bars]  # fmt: skip
        below = [value - row["least"] for value, row in zip(values, bars, strict=True)]
        above = [row["most"] - value for value, row in zip(values, bars, strict=True)]
        colours = ["C0" if row["by"] == loaders.OWN else "C7" for row in bars]
        drawn = ax.barh(names, values, color=colours, xerr=[below, above], ecolor="black", capsize=2)
        boxed = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.bar_label(drawn, fmt="{:,.0f}", padding=6, fontsize=8, bbox=boxed)
        for row in rows:
            if row["case"] == case and row["by"] == loaders.DECODING:
                style = "--" if row["device"] == "cpu" else ":"
                label = f"decoding alone, {row['device']}"
                ax.axvline(row["images_per_second"], color="black", linestyle=style, linewidth=1, label=label)
                ax.legend(loc="lower right", fontsize=8)
        ax.set(title=case, xlabel="images a second")
        ax.margins(x=0.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure what is missing, a case a cell, and draw; exit 3 where something is left."""
    chosen = sheet.options("loader")
    result.check(chosen.data, "loader", [case.folder for case in CASES])
    ways = loaders.of(chosen.where, peers.cores())
    trained = chosen.out / f"{result.device(chosen.where)}-train.json"
    step = consumed(json.loads(trained.read_text()) if trained.is_file() else None)
    grown = Sheet("loader", chosen)
    cells = [Cell(case.name, partial(_case, case, chosen.data, ways, PLANS[chosen.where])) for case in CASES]

    def aims(rows: list[Row]) -> list[result.Target]:
        grown.limits = decoding(rows)
        return targets(rows, step)

    done = grown.fill(cells, aims)
    for name, ratio in sorted(ratios(grown.rows).items(), key=lambda item: item[1]):
        print(f"{name}: medsass on the CPU is {ratio:.2f} times {loaders.PIL}", file=sys.stderr)
    if grown.rows:
        chart(grown.rows, grown.path.with_suffix(".png"))
    result.show(grown.path)
    if not done:
        sys.exit(sheet.UNFINISHED)


def decoding(rows: Sequence[Row]) -> dict[str, float]:
    """Images a second of decoding alone, by case and device."""
    return {
        f"decode_images_per_second, {row['case']}, {row['device']}": row["images_per_second"]
        for row in rows
        if row["by"] == loaders.DECODING
    }


def _case(case: Case, data: Path, ways: Sequence[Way], plan: Plan) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return measure(case, prepare(case, data, Path(folder)), ways, plan)


if __name__ == "__main__":
    main()
