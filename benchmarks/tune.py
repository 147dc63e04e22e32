"""How well `medsass tune` chooses labels without ground truth, on real images. No network is trained.

    python -m benchmarks.tune [DATA]

On some training images of each dataset: the side of the threshold that it takes if none is given, the rank correlation of
its scores with the IoU of all candidates (with the recipe's side), and its choice. On the scored split, which had no part in
the choice: the mean IoU of bare Otsu and of the chosen labels. The criteria that vote were themselves chosen on training
images of these datasets, so other datasets have to confirm them.
"""

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.support import result
from benchmarks.support.markdown import Result, measured, table
from medsass.config import ShardConfig, TuneConfig
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.sharding import shard
from medsass.data.shards import remote
from medsass.labels import Labeler, criteria
from medsass.runs.tuning import score
from medsass.runs.tuning.tune import correlation, tune

SPLITS = {"isic2017": "val", "covid19_radiography": "test", "dsb2018": "test", "bitdepth_nucseg": "test"}
SIZE, IMAGES = 224, 48


def measure(dataset: str, data: Path, folder: Path, where: str) -> dict[str, Any]:
    """Return the row of a dataset."""
    shards = folder / dataset
    shard.write(ShardConfig(data / dataset, shards, recipe=dataset))
    config = TuneConfig(shards, out=folder / f"{dataset}.toml", images=IMAGES, size=SIZE, score=True, device=where)
    ranking = tune(config)
    images, _ = score.glimpse(LoaderConfig(shards, "train", SIZE, 16, where, masks=True), IMAGES)
    assert ranking.iou is not None
    best, polarity = ranking.candidates[0], remote.load(shards).recipe["polarity"]
    labelers = {"otsu": Labeler("otsu", polarity), "chosen": best.labeler(SIZE)}
    scores: dict[str, list[float]] = {name: [] for name in labelers}
    for batch in Loader(LoaderConfig(shards, SPLITS[dataset], SIZE, 16, where, masks=True)):
        assert batch.masks is not None
        for name, labeler in labelers.items():
            scores[name] += criteria.overlap(labeler(batch.images).mask, batch.masks).tolist()
    return {
        "dataset": dataset,
        "split": SPLITS[dataset],
        "images": len(scores["otsu"]),
        "looked_at": len(images),
        "side": polarity,
        "side_found": score.side(images),
        "candidates": len(ranking.candidates),
        "correlation": correlation(ranking),
        "chosen": best.name,
        "best": ranking.candidates[int(ranking.iou.argmax())].name,
        "best_iou_looked_at": float(ranking.iou.max()),
        "chosen_iou_looked_at": float(ranking.iou[0]),
        "otsu_iou": mean(scores["otsu"]),
        "chosen_iou": mean(scores["chosen"]),
    }


def targets(rows: list[dict[str, Any]]) -> list[result.Target]:
    """Return the targets, of labels alone: training on them is another question."""
    gains = [row["chosen_iou"] - row["otsu_iou"] for row in rows]
    return [
        result.Target("mean IoU over the sets, chosen labels over bare Otsu", "IoU", ">=", 0.10, mean(gains)),
        result.Target("the same on the worst set", "IoU", ">=", -0.02, min(gains)),
    ]


def markdown_table(results: dict[str, Result]) -> str:
    """Return a Markdown table of the choices and their worth."""
    rows = []
    for name, content in results.items():
        for row in content["rows"]:
            dataset = f"{row['dataset']} ({row['split']}, {row['images']:,} images)"
            side, correlation = f"{row['side_found']} ({row['side']})", f"{row['correlation']:.2f}"
            ious = [f"{row[name]:.3f}" for name in ("otsu_iou", "chosen_iou")]
            rows.append([dataset, side, f"`{row['chosen']}`", correlation, *ious, measured(name, content)])
    heads = [
        "dataset",
        "side found (given)",
        "chosen",
        "rank correlation",
        "IoU, bare Otsu",
        "IoU, chosen",
        "measured on",
    ]
    return table(heads, rows)


def main() -> None:
    """Measure and save."""
    data = result.data("tune", SPLITS)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(dataset, data, Path(folder), where) for dataset in SPLITS]
    result.save("tune", where, rows, targets(rows), {})


if __name__ == "__main__":
    main()
