"""Scores of bare Otsu on real images with the foreground on either side, and of foreground everywhere.

    python -m benchmarks.polarity [DATA]

DATA holds the datasets of `CASES` in their owners' layouts. IoU at 224 x 224 pixels, the paper's size, as the mean over
images and of all pixels together: evidence for the polarity and the mean behind the paper's numbers.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.support import result
from medsass.config import ShardConfig
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.sharding import shard
from medsass.labels import Labeler
from medsass.runs.scoring import metrics

SIZE = 224
CASES = {"isic2017": "val", "covid19_radiography": "test", "dsb2018": "test", "bitdepth_nucseg": "test"}


def run(recipe: str, split: str, data: Path, folder: Path) -> dict[str, Any]:
    """Return a row: scores of the split by either polarity, and of foreground everywhere."""
    shard.write(ShardConfig(data / recipe, folder, recipe=recipe, size=SIZE))
    counts: dict[str, list[torch.Tensor]] = {"dark": [], "bright": [], "everything": []}
    for batch in Loader(LoaderConfig(folder, split, SIZE, 32, masks=True)):
        assert batch.masks is not None
        for polarity in ("dark", "bright"):
            counts[polarity].append(metrics.count(Labeler("otsu", polarity)(batch.images).mask, batch.masks))
        counts["everything"].append(metrics.count(torch.ones_like(batch.masks), batch.masks))
    scores = {name: metrics.scores(torch.cat(part, 1).cpu()) for name, part in counts.items()}
    images = sum(part.shape[1] for part in counts["dark"])
    return {"dataset": recipe, "split": split, "images": images, "size": SIZE, **scores}


def main() -> None:
    """Measure all cases and save the result."""
    data = result.data("polarity", CASES)
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(recipe, split, data, Path(folder, recipe)) for recipe, split in CASES.items()]
    result.save("polarity", "cpu", rows, [], {})


if __name__ == "__main__":
    main()
