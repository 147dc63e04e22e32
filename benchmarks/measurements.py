"""The tables of docs/measurements.md from `benchmarks/results/*.json`. None of their figures is typed by hand.

    python -m benchmarks.measurements [--check]

Rewrites the tables between the markers `<!-- table: NAME -->` and `<!-- end -->`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import beyond, loader, paper, tune
from benchmarks.support import refine, roofline
from benchmarks.support.markdown import Result, measured, table
from benchmarks.support.result import RESULTS
from benchmarks.train import merged
from medsass import files
from medsass.runs.experiment import aggregate, export, grid, tables

PAGE = Path(__file__).parents[1] / "docs" / "measurements.md"
PAPER_TABLES = ("1", "1b", "2b", "3", "4")

Results = dict[str, Result]  # by file name


def _rows(results: Results, kind: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the rows of all results, those of one kind if given, each with the link to its result."""
    for name, content in results.items():
        for row in content["rows"]:
            if not kind or row["kind"] == kind:
                yield row, measured(name, content)


def line(results: Results) -> str:
    """The whole line on real images, a row a dataset."""
    rows = []
    for row, link in _rows(results):
        dataset = f"{row['dataset']} ({row['split']}, {row['images']} images)"
        ious = [f"{row[name]:.3f}" for name in ("iou", "labels_iou")]
        speeds = [f"{row[f'{name}_images_per_second']:.0f}" for name in ("shard", "train")]
        rows.append([dataset, f"{row['epochs']}", *ious, *speeds, f"{row['train_seconds']:.0f} s", link])
    ious, speeds = ["IoU", "IoU of bare Otsu"], ["shard, images/s", "train, images/s"]
    return table(["dataset", "epochs", *ious, *speeds, "training", "measured on"], rows)


def labels(results: Results) -> str:
    """The labelling kernels and their peers, each on its largest batch of the same content."""
    rows = []
    for name, content in results.items():
        for row in roofline.comparable(content["rows"]):
            by = f"{row['by']}: {row['method']}" + (" + bfloat16 input" if row["fused"] else "")
            given = row.get("given") or ("RGB" if row["channels"] == 3 else "gray")
            images = f"{row['height']} × {row['width']} {given}, {row['content']}"
            share = f"{row['of_copy']:.0%}" if row.get("of_copy") else ""
            speed = f"{row['images_per_second']:,.0f}"
            rows.append([by, images, f"{row['batch']}", speed, share, measured(name, content)])
    return table(["labels by", "images", "batch", "images/s", "of copy bandwidth", "measured on"], rows)


def targets(results: Results) -> str:
    """The targets of a GPU and the values that each GPU reached; only values measured there are filled in."""
    gpus = {name: content for name, content in results.items() if not content["device"].startswith("cpu-")}
    rows = []
    for i, aim in enumerate(next(iter(results.values()))["targets"]):
        values = [content["targets"][i]["value"] for content in gpus.values()]
        reached = [f"{value:,.3g}" if value is not None else "not yet measured" for value in values]
        rows.append([aim["name"], _aim(aim), *(reached or ["not yet measured"])])
    heads = [measured(name, content) for name, content in gpus.items()]
    return table(["target", "aim on an H200", *(heads or ["measured"])], rows)


def aims(results: Results) -> str:
    """The targets of a benchmark, and the values of every machine that measured them."""
    rows = []
    for i, aim in enumerate(next(iter(results.values()))["targets"]):
        reached = [
            f"{content['targets'][i]['value']:,.3g} ({measured(name, content)})"
            for name, content in results.items()
            if content["targets"][i]["value"] is not None
        ]
        rows.append([aim["name"], _aim(aim), "; ".join(reached) or "not yet measured"])
    return table(["target", "aim", "measured"], rows)


def _aim(target: dict[str, Any]) -> str:
    sign = {">=": "≥", "<=": "≤"}[target["relation"]]
    return f"{sign} {target['target']:,} {target['unit']}"


def training(results: Results) -> str:
    """The contenders of `benchmarks.train`: pace, over the ceiling, of the matrix peak, data wait, memory.

    The matrix product of a CPU is no limit, because its convolutions are faster.
    """
    rows = []
    for name, content in results.items():
        found = merged([row for row in content["rows"] if "images_per_second" in row])
        cases = [(row["model"], row["size"], row["batch"]) for row in found]
        ceilings = {
            case: row["images_per_second"] for case, row in zip(cases, found, strict=True) if row["way"] == "ceiling"
        }
        for case, row in zip(cases, found, strict=True):
            way = f"{row['model']} {row['size']}², batch {row['batch']}: {row['way']}"
            over = f"{row['images_per_second'] / ceilings[case]:.2f}" if case in ceilings else ""
            peak = "" if content["device"].startswith("cpu-") else f"{row['of_matrix_peak']:.0%}"
            memory = f"{row['peak_memory'] / 1e9:.1f} GB" if row["peak_memory"] else ""
            pace, wait = f"{row['images_per_second']:,.1f}", f"{row['waited']:.1%}"
            rows.append([way, pace, over, peak, wait, memory, measured(name, content)])
    shares = ["over the ceiling", "of the matrix peak", "waiting for data"]
    return table(["way", "images/s", *shares, "GPU memory", "measured on"], rows)


def scaled(results: Results) -> str:
    """The cost of training with larger images, larger datasets and more processes."""
    rows = []
    for row, link in _rows(results):
        pace = f"{row['images_per_second']:,.1f}"
        if row["kind"] == "size":
            work = f"{row['flops_an_image'] / 1e9:,.1f} GFLOP an image"
            rows.append([f"{row['model']}, images of {row['size']}²", pace, work, link])
        elif row["kind"] == "dataset":
            cost = f"{row['first_batch_seconds']:.1f} s to the first batch, {row['peak_mb']:,.0f} MB"
            pace = f"{row['images_per_second']:,.0f}"
            rows.append([f"loader alone, {row['samples']:,} samples", pace, cost, link])
        else:
            loss = f"loss {row['train_loss'][-1]:.4f} after {len(row['train_loss'])} epochs"
            several = "process" if row["processes"] == 1 else "processes"
            rows.append([f"{row['model']} {row['size']}², {row['processes']} {several}", pace, loss, link])
    return table(["of what", "images/s", "", "measured on"], rows)


def sharding(results: Results) -> str:
    """`medsass shard` beside bare decoding of the same files and `tar cf`."""
    rows = []
    for row, link in _rows(results, "speed"):
        speeds = [f"{row[f'{name}_images_per_second']:,.0f}" for name in ("shard", "decode")]
        over = [f"{row['over_decode']:.2f}", f"{row['over_tar']:.0f}"]
        rows.append([row["case"], f"{row['images']:,} ({row['files']:,})", *speeds, *over, link])
    speeds, over = ["shard, images/s", "decode alone, images/s"], ["time over decoding", "over `tar cf`"]
    return table(["set", "images (files)", *speeds, *over, "measured on"], rows)


def shard_memory(results: Results) -> str:
    """Peak memory of a process that shards."""
    rows = [
        [f"{row['samples']:,}", f"{row['peak_mb']:,.0f} MB", f"{row['seconds']:.0f} s", link]
        for row, link in _rows(results, "memory")
    ]
    return table(["images", "peak memory", "time", "measured on"], rows)


def shard_counts(results: Results) -> str:
    """The images by split that each recipe finds, beside the paper's numbers."""
    rows = []
    for row, _ in _rows(results, "counts"):
        ours, papers = (
            " / ".join(f"{counts[name]:,}" for name in ("train", "val", "test") if name in counts)
            for counts in (row["ours"], row["paper"] or {})
        )
        rows.append([f"`{row['recipe']}`", row["source"], ours, f"{row.get('left_out', 0) or ''}", papers])
    return table(["recipe", "data", "train / val / test", "left out", "in the paper"], rows)


def verifying(results: Results) -> str:
    """`medsass verify` beside reading the same tar files, and beside their hash."""
    rows = []
    for row, link in _rows(results):
        speeds = [
            f"{row[f'{name}_mb_per_second']:,.0f}"
            for name in ("read_disk", "verify_disk", "look_disk", "verify_memory", "hash_memory")
        ]
        speeds.append(f"{row['verify_over_read']:.2f}")
        rows.append(
            [row["case"], f"{row['samples']:,}", f"{row['tar_files']} ({row['megabytes']:,.0f} MB)", *speeds, link]
        )
    speeds = ["read from disk, MB/s", "verify from disk", "with each sample", "verify from memory"]
    speeds += ["SHA-256 alone from memory", "verify over read"]
    return table(["set", "samples", "tar files", *speeds, "measured on"], rows)


def experiment(results: Results) -> str:
    """The paper's main tables of each machine, and a link to all tables and figures."""
    parts = []
    for name, content in results.items():
        chosen = grid.load(paper.grid_of(content["device"]))
        for spec in tables.TABLES_OF_THE_PAPER:
            if spec.number in PAPER_TABLES and (filled := aggregate.build(spec, chosen, content["rows"])):
                parts.append(export.markdown(filled).strip())
        every = f"benchmarks/results/{content['device']}-paper.md"
        parts.append(f"Measured: {measured(name, content)}. All tables and figures: `{every}`.")
    return "\n\n".join(parts)


def polarity(results: Results) -> str:
    """Bare Otsu with the foreground on either side, and foreground everywhere."""
    rows = []
    for row, link in _rows(results):
        dataset = f"{row['dataset']} ({row['split']}, {row['images']:,} images)"
        ious = [f"{row[side]['iou']:.3f} / {row[side]['iou_dataset']:.3f}" for side in ("dark", "bright", "everything")]
        rows.append([dataset, *ious, link])
    return table(["dataset", "dark", "bright", "foreground everywhere", "measured on"], rows)


TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {  # marker in the page -> benchmark and its table
    "line": ("line", line),
    "shard": ("shard", sharding),
    "shard-memory": ("shard", shard_memory),
    "shard-counts": ("shard", shard_counts),
    "verify": ("verify", verifying),
    "paper": ("paper", experiment),
    "polarity": ("polarity", polarity),
    "train-targets": ("train", aims),
    "train": ("train", training),
    "loader-targets": ("loader", aims),
    "loader": ("loader", loader.markdown_table),
    "scaling": ("scaling", scaled),
    "tune": ("tune", tune.markdown_table),
    "beyond-targets": ("beyond", aims),
    "beyond": ("beyond", beyond.markdown_table),
    "refine": ("labels", refine.markdown_table),
    "labels": ("labels", labels),
    "label-targets": ("labels", targets),
}


def render(text: str) -> str:
    """Return `text` with every table rewritten from the existing results."""
    for name, (benchmark, make) in TABLES.items():
        start, end = f"<!-- table: {name} -->\n", "\n<!-- end -->"
        before, _, rest = text.partition(start)
        _, mark, after = rest.partition(end)
        if not mark:
            raise ValueError(f"{PAGE} has no '{start.strip()}' ... '{end.strip()}'")
        found = {path.name: json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"*-{benchmark}.json"))}
        text = before + start + (make(found) if found else "Not yet measured.") + mark + after
    return text


def main() -> None:
    """Rewrite docs/measurements.md. With --check, exit with 1 if it differs from the results."""
    old = PAGE.read_text("utf-8")
    new = render(old)
    if "--check" in sys.argv and old != new:
        sys.exit(f"{PAGE} does not show what benchmarks/results hold; run: python -m benchmarks.measurements")
    files.write(PAGE, new)


if __name__ == "__main__":
    main()
