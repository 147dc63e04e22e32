"""The loader and the labeler, from stored images to augmented batches with labels, against what users would write instead.

    python -m benchmarks.loader [DATA]

Images a second of batches of 224 x 224 uint8 RGB with an Otsu mask an image, by every contender of
`benchmarks.support.loaders`. In each case all contenders take turns, several times over, and no two run at once: each is
started, warmed up, measured and ended before the next one starts. Decoding alone is measured in the same way; it limits all
that decode each image anew. DATA holds `isic2017/` and `isic2017_fullsize/`. `docs/benchmarks.md` has the design.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.support import cells, loaders, peers, result
from benchmarks.support.cells import Cell, ResultFile
from benchmarks.support.images import CASES, Case, Source, prepare
from benchmarks.support.loaders import Contender
from benchmarks.support.markdown import Result, measured, table

_LEAST = 4  # batches to warm up and to measure: more than are prefetched while a contender starts
_NETWORK = "unet-resnet50"  # whose step the GPU's loader has to feed

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Seconds to warm up and to measure a contender in each turn, at least, and the number of turns."""

    warm: float
    seconds: float
    turns: int


PLANS = {"cuda": Plan(1.0, 2.5, 3), "cpu": Plan(1.5, 5.0, 3)}


@dataclass(frozen=True)
class Pace:
    """The images and seconds of a turn."""

    images: int
    seconds: float


def run(contender: Contender, source: Source, plan: Plan) -> Pace:
    """Run one turn. Worker processes deliver in bursts, a batch each, so whole rounds of them are measured."""
    batches, burst = contender.start(source), contender.processes or 1
    pace = Pace(0, 0.0)
    try:
        for seconds in (plan.warm, plan.seconds):
            start, taken, images = perf_counter(), 0, 0
            while taken < _LEAST or perf_counter() - start < seconds:
                images += sum(len(next(batches).images) for _ in range(burst))
                taken += burst
            if contender.device == "cuda":
                torch.cuda.synchronize()
            pace = Pace(images, perf_counter() - start)
        return pace
    finally:
        batches.close()


def measure(case: Case, source: Source, contenders: Sequence[Contender], plan: Plan) -> list[Row]:
    """Return a row for each contender that works here; the others are named with the reason."""
    paces: dict[Contender, list[Pace]] = {contender: [] for contender in contenders}
    for _ in range(plan.turns):
        for contender in list(paces):
            try:
                paces[contender].append(run(contender, source, plan))
            except Exception as error:  # whatever fails, the others go on
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                print(f"{case.name}: {_title(contender)}: skipped, {reason}", file=sys.stderr)
                del paces[contender]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    rows = [_row(case, contender, found) for contender, found in paces.items()]
    limits = {row["decoder"]: row["images_per_second"] for row in rows if row["by"] == loaders.DECODING}
    for row in rows:
        limit = limits.get(row["decoder"]) if row["cached"] == "none" else None
        row["of_decoding"] = row["images_per_second"] / limit if limit else None
    return rows


def _title(contender: Contender) -> str:
    cached = "" if contender.cached == "none" else f", cached on the {contender.cached}"
    return f"{contender.name}, {contender.device}{cached}"


def _row(case: Case, contender: Contender, paces: Sequence[Pace]) -> Row:
    speeds = [pace.images / pace.seconds for pace in paces]
    middle = median(speeds)
    pace = f"{middle:,.0f} images/s, {min(speeds):,.0f} to {max(speeds):,.0f}"
    print(f"{case.name}: {_title(contender)}: {pace}", file=sys.stderr)
    return {
        "case": case.name,
        "batch": case.batch,
        "by": contender.name,
        "what": contender.what,
        "versions": result.versions(contender.packages),
        "device": contender.device,
        "decoder": contender.decoder,
        "processes": contender.processes,
        "threads": contender.threads,
        "cached": contender.cached,
        "images": sum(pace.images for pace in paces),
        "seconds": sum(pace.seconds for pace in paces),
        "turns": len(paces),
        "images_per_second": middle,
        "least": min(speeds),
        "most": max(speeds),
        "spread": (max(speeds) - min(speeds)) / middle,
    }


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return, by case, the speed of medsass on the CPU without cache over that of PyTorch's DataLoader with PIL."""
    found = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        own = speed(rows, case, loaders.OWN, "cpu")
        other = speed(rows, case, loaders.PIL)
        if own and other:
            found[case] = own / other
    return found


def speed(rows: Sequence[Row], case: str, by: str, device: str = "") -> float | None:
    """Return images a second of a contender without cache, on `device` if given; None if it was not measured."""
    fits = (r for r in rows if (r["case"], r["by"], r["cached"]) == (case, by, "none") and device in ("", r["device"]))
    return next((float(row["images_per_second"]) for row in fits), None)


def consumed(trained: Result | None) -> float | None:
    """Return images a second that training consumes if it never waits for data, at its fastest batch size.

    trained: the result of `benchmarks.train`.
    """
    rows = trained["rows"] if trained else []
    speeds = [row["images_per_second"] for row in rows if row["way"] == "ceiling" and row["model"] == _NETWORK]
    return max(speeds, default=None)


def targets(rows: Sequence[Row], step: float | None) -> list[result.Target]:
    """Return the targets: ratios to the DataLoader in the order of the cases, and to `step`, as `consumed` returns it."""
    first = CASES[0].name
    found, on_gpu = ratios(rows), speed(rows, first, loaders.OWN, "cuda")
    over = "DALI CPU loader with labels over PyTorch DataLoader + PIL + OpenCV, all cores, same work"
    fed, feeds = f"loader with labels over what the step consumes, {first}", on_gpu / step if on_gpu and step else None
    return [
        *(result.Target(f"{over}, {case.name}", "ratio", ">=", 2, found.get(case.name)) for case in CASES),
        result.Target(fed, "ratio", ">=", 3, feeds),
    ]


def markdown_table(results: dict[str, Result]) -> str:
    """Return a Markdown table: a row a contender and case, beside decoding alone and the DataLoader with PIL."""
    lines = []
    for name, content in results.items():
        for row in content["rows"]:
            base = speed(content["rows"], row["case"], loaders.PIL)
            over = f"{row['images_per_second'] / base:.1f}" if base and row["by"] != loaders.DECODING else ""
            share = f"{row['of_decoding']:.0%}" if row["of_decoding"] and row["by"] != loaders.DECODING else ""
            cached = "" if row["cached"] == "none" else f", cached on the {row['cached']}"
            place = "GPU" if row["device"] == "cuda" else "CPU"
            pace = f"{row['images_per_second']:,.0f}"
            lines.append([row["case"], f"{row['by']}, {place}{cached}", pace, share, over, measured(name, content)])
    heads = ["images", "batches by", "images/s", "of decoding alone", "over DataLoader with PIL", "measured on"]
    return table(heads, lines)


def chart(rows: Sequence[Row], path: Path) -> None:
    """Draw a panel a case: a bar a contender with the range of its turns, and a line at decoding alone."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, axes = plt.subplots(len(cases), 1, figsize=(9, 2.4 * len(cases)), layout="constrained", squeeze=False)
    for ax, case in zip(axes[:, 0], cases, strict=True):
        bars = [row for row in rows if row["case"] == case and row["by"] != loaders.DECODING][::-1]
        values = [row["images_per_second"] for row in bars]
        cached = ["" if row["cached"] == "none" else f", cached: {row['cached']}" for row in bars]
        names = [f"{row['by']}, {row['device']}{cache}" for row, cache in zip(bars, cached, strict=True)]
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
    """Measure the missing cells, one a case, and draw the chart. Exit with 3 if some are left."""
    options = cells.options("loader")
    result.check(options.data, "loader", [case.folder for case in CASES])
    contenders = loaders.contenders(options.where, peers.cores())
    trained = options.out / f"{result.device(options.where)}-train.json"
    step = consumed(json.loads(trained.read_text()) if trained.is_file() else None)
    results = ResultFile("loader", options)

    def measure_case(case: Case) -> list[Row]:
        with tempfile.TemporaryDirectory() as folder:
            return measure(case, prepare(case, options.data, Path(folder)), contenders, PLANS[options.where])

    def aims(rows: list[Row]) -> list[result.Target]:
        results.limits = {
            f"decode_images_per_second, {row['case']}, {row['device']}": row["images_per_second"]
            for row in rows
            if row["by"] == loaders.DECODING
        }
        return targets(rows, step)

    done = results.fill([Cell(case.name, partial(measure_case, case)) for case in CASES], aims)
    for name, ratio in sorted(ratios(results.rows).items(), key=lambda item: item[1]):
        print(f"{name}: medsass on the CPU is {ratio:.2f} times {loaders.PIL}", file=sys.stderr)
    if results.rows:
        chart(results.rows, results.path.with_suffix(".png"))
    result.show(results.path)
    if not done:
        sys.exit(cells.UNFINISHED)


if __name__ == "__main__":
    main()
