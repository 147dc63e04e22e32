"""README's tables from `benchmarks/results/*.json`: `python -m benchmarks.readme` rewrites what stands between the markers.

A table is between `<!-- table: NAME -->` and `<!-- end -->`. No figure in README is typed by hand.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import beyond, loader, paper, tune
from benchmarks.support import refine, roofline
from benchmarks.support.markdown import Result, measured, table
from benchmarks.support.result import RESULTS
from benchmarks.train import merged
from medsass import files
from medsass.runs.experiment import aggregate, export, grid, tables

README = Path(__file__).parents[1] / "README.md"


def line(results: dict[str, Result]) -> str:
    """The whole line on real images, a row a dataset."""
    rows = []
    for name, content in results.items():
        for row in content["rows"]:
            rows.append(
                [
                    f"{row['dataset']} ({row['split']}, {row['images']} images)",
                    f"{row['epochs']}",
                    f"{row['iou']:.3f}",
                    f"{row['labels_iou']:.3f}",
                    f"{row['shard_images_per_second']:.0f}",
                    f"{row['train_images_per_second']:.0f}",
                    f"{row['train_seconds']:.0f} s",
                    measured(name, content),
                ]
            )
    heads = [
        "dataset",
        "epochs",
        "IoU",
        "IoU of bare Otsu",
        "shard, images/s",
        "train, images/s",
        "training",
        "measured on",
    ]
    return table(heads, rows)


def labels(results: dict[str, Result]) -> str:
    """The labelling kernels and what users would pick instead, each on its largest batch of the same content."""
    rows = []
    for name, content in results.items():
        for row in roofline.comparable(content["rows"]):
            given = row.get("given") or ("RGB" if row["channels"] == 3 else "gray")
            share = row.get("of_copy")
            rows.append(
                [
                    f"{row['by']}: {row['method']}" + (" + bfloat16 input" if row["fused"] else ""),
                    f"{row['height']} × {row['width']} {given}, {row['content']}",
                    f"{row['batch']}",
                    f"{row['images_per_second']:,.0f}",
                    f"{share:.0%}" if share else "",
                    measured(name, content),
                ]
            )
    return table(["labels by", "images", "batch", "images/s", "of copy bandwidth", "measured on"], rows)


def targets(results: dict[str, Result]) -> str:
    """What is aimed at on a GPU, and what each GPU reached; nothing is filled in that was not measured there."""
    gpus = {name: content for name, content in results.items() if not content["device"].startswith("cpu-")}
    rows = []
    for i, aim in enumerate(next(iter(results.values()))["targets"]):
        sign = {">=": "≥", "<=": "≤"}[aim["relation"]]
        values = [content["targets"][i]["value"] for content in gpus.values()]
        reached = [f"{value:,.3g}" if value is not None else "not yet measured" for value in values]
        rows.append([aim["name"], f"{sign} {aim['target']:,} {aim['unit']}", *(reached or ["not yet measured"])])
    heads = [measured(name, content) for name, content in gpus.items()]
    return table(["target", "aim on an H200", *(heads or ["measured"])], rows)


def aims(results: dict[str, Result]) -> str:
    """What is aimed at, and where it was measured with what outcome."""
    rows = []
    for i, aim in enumerate(next(iter(results.values()))["targets"]):
        sign = {">=": "≥", "<=": "≤"}[aim["relation"]]
        reached = [
            f"{content['targets'][i]['value']:,.3g} ({measured(name, content)})"
            for name, content in results.items()
            if content["targets"][i]["value"] is not None
        ]
        rows.append([aim["name"], f"{sign} {aim['target']:,} {aim['unit']}", "; ".join(reached) or "not yet measured"])
    return table(["target", "aim", "measured"], rows)


def training(results: dict[str, Result]) -> str:
    """Ways to train, a row each: pace, share of the ceiling's and of the matrix peak, waiting, memory. A CPU's matrix
    product is no limit: its convolutions are faster.
    """
    rows = []
    for name, content in results.items():
        found = merged([row for row in content["rows"] if "images_per_second" in row])
        ceilings = {_case(row): row["images_per_second"] for row in found if row["way"] == "ceiling"}
        for row in found:
            memory = row["peak_memory"]
            rows.append(
                [
                    f"{row['model']} {row['size']}², batch {row['batch']}: {row['way']}",
                    f"{row['images_per_second']:,.1f}",
                    f"{row['images_per_second'] / ceilings[_case(row)]:.2f}" if _case(row) in ceilings else "",
                    "" if content["device"].startswith("cpu-") else f"{row['of_matrix_peak']:.0%}",
                    f"{row['waited']:.1%}",
                    f"{memory / 1e9:.1f} GB" if memory else "",
                    measured(name, content),
                ]
            )
    heads = [
        "way",
        "images/s",
        "over the ceiling",
        "of the matrix peak",
        "waiting for data",
        "GPU memory",
        "measured on",
    ]
    return table(heads, rows)


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["size"], row["batch"]


def scaled(results: dict[str, Result]) -> str:
    """What training costs as images and datasets grow and processes join."""
    rows = []
    for name, content in results.items():
        for row in content["rows"]:
            pace, place = f"{row['images_per_second']:,.1f}", measured(name, content)
            if row["kind"] == "size":
                work = f"{row['flops_an_image'] / 1e9:,.1f} GFLOP an image"
                rows.append([f"{row['model']}, images of {row['size']}²", pace, work, place])
            elif row["kind"] == "dataset":
                cost = f"{row['first_batch_seconds']:.1f} s to the first batch, {row['peak_mb']:,.0f} MB"
                rows.append(
                    [f"loader alone, {row['samples']:,} samples", f"{row['images_per_second']:,.0f}", cost, place]
                )
            else:
                loss = f"loss {row['train_loss'][-1]:.4f} after {len(row['train_loss'])} epochs"
                several = "process" if row["processes"] == 1 else "processes"
                rows.append([f"{row['model']} {row['size']}², {row['processes']} {several}", pace, loss, place])
    return table(["of what", "images/s", "", "measured on"], rows)


def sharding(results: dict[str, Result]) -> str:
    """`medsass shard` beside bare decoding of the same files and `tar cf`."""
    rows = [
        [
            row["case"],
            f"{row['images']:,} ({row['files']:,})",
            f"{row['shard_images_per_second']:,.0f}",
            f"{row['decode_images_per_second']:,.0f}",
            f"{row['over_decode']:.2f}",
            f"{row['over_tar']:.0f}",
            measured(name, content),
        ]
        for name, content in results.items()
        for row in content["rows"]
        if row["kind"] == "speed"
    ]
    heads = [
        "set",
        "images (files)",
        "shard, images/s",
        "decode alone, images/s",
        "time over decoding",
        "over `tar cf`",
        "measured on",
    ]
    return table(heads, rows)


def shard_memory(results: dict[str, Result]) -> str:
    """Peak memory of a process that shards."""
    rows = [
        [f"{row['samples']:,}", f"{row['peak_mb']:,.0f} MB", f"{row['seconds']:.0f} s", measured(name, content)]
        for name, content in results.items()
        for row in content["rows"]
        if row["kind"] == "memory"
    ]
    return table(["images", "peak memory", "time", "measured on"], rows)


def shard_counts(results: dict[str, Result]) -> str:
    """What each recipe finds, beside what the paper says of the same dataset."""

    def show(counts: dict[str, int] | None) -> str:
        return " / ".join(f"{counts[name]:,}" for name in ("train", "val", "test") if name in counts) if counts else ""

    rows = [
        [f"`{row['recipe']}`", row["source"], show(row["ours"]), f"{row.get('left_out', 0) or ''}", show(row["paper"])]
        for content in results.values()
        for row in content["rows"]
        if row["kind"] == "counts"
    ]
    return table(["recipe", "data", "train / val / test", "left out", "in the paper"], rows)


def experiment(results: dict[str, Result]) -> str:
    """Of the paper's tables the main ones, of each machine; a link leads to all of them and to the figures."""
    parts = []
    for name, content in results.items():
        chosen = grid.load(paper.grid_of(content["device"]))
        for spec in tables.TABLES_OF_THE_PAPER:
            if spec.number in PAPER_TABLES and (sheet := aggregate.build(spec, chosen, content["rows"])):
                parts.append(export.markdown(sheet).strip())
        every = f"benchmarks/results/{content['device']}-paper.md"
        parts.append(f"Measured: {measured(name, content)}. [All tables and figures]({every}).")
    return "\n\n".join(parts)


def polarity(results: dict[str, Result]) -> str:
    """Bare Otsu with the foreground on either side, and foreground everywhere."""
    rows = [
        [f"{row['dataset']} ({row['split']}, {row['images']:,} images)",
         *(f"{row[side]['iou']:.3f} / {row[side]['iou_dataset']:.3f}" for side in ("dark", "bright", "everything")),
         measured(name, content)]
        for name, content in results.items()
        for row in content["rows"]
    ]  # fmt: skip
    return table(["dataset", "dark", "bright", "foreground everywhere", "measured on"], rows)


Table = Callable[[dict[str, Result]], str]
PAPER_TABLES = ("1", "1b", "2b", "3", "4")
TABLES: dict[str, tuple[str, Table]] = {  # marker in README -> benchmark, and how its results become a table
    "line": ("line", line),
    "shard": ("shard", sharding),
    "shard-memory": ("shard", shard_memory),
    "shard-counts": ("shard", shard_counts),
    "paper": ("paper", experiment),
    "polarity": ("polarity", polarity),
    "train-targets": ("train", aims),
    "train": ("train", training),
    "loader-targets": ("loader", aims),
    "loader": ("loader", loader.readme_table),
    "scaling": ("scaling", scaled),
    "tune": ("tune", tune.readme_table),
    "beyond-targets": ("beyond", aims),
    "beyond": ("beyond", beyond.readme_table),
    "refine": ("labels", refine.readme_table),
    "labels": ("labels", labels),
    "label-targets": ("labels", targets),
}


def render(text: str) -> str:
    """`text` with every table made anew from the results that are there."""
    for name, (benchmark, make) in TABLES.items():
        start, end = f"<!-- table: {name} -->\n", "\n<!-- end -->"
        before, _, rest = text.partition(start)
        _, mark, after = rest.partition(end)
        if not mark:
            raise ValueError(f"README.md has no '{start.strip()}' ... '{end.strip()}'")
        found = {path.name: json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"*-{benchmark}.json"))}
        text = before + start + (make(found) if found else "Not yet measured.") + mark + after
    return text


def main() -> None:
    """Rewrite README.md; with --check, exit 1 where it is not what the results say."""
    old = README.read_text()
    new = render(old)
    if "--check" in sys.argv and old != new:
        sys.exit("README.md does not show what benchmarks/results hold; run: python -m benchmarks.readme")
    files.write(README, new)


if __name__ == "__main__":
    main()
