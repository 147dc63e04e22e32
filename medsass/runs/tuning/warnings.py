"""Warnings before labels are learnt: signs that no threshold finds objects in these images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medsass.config import TrainConfig
from medsass.data.loading.loader import LoaderConfig
from medsass.data.shards.manifest import Manifest
from medsass.labels import Labeler
from medsass.runs.tuning import score

# Least values of the criteria that vote in `tune`, means over the images. On four sets (dermoscopy, X-rays, two kinds of
# fluorescence; some 50 images each) the best labels were above all of these where their IoU was 0.64 or more, and below one
# where it was less; Otsu's bare labels on the wrong side, and on X-rays on either, were below one as well.
SIGNS = {
    "contrast": (0.75, "their outlines hardly follow edges of the image"),
    "size": (0.70, "they cover nearly nothing, or nearly all, of many images"),
    "frame": (0.80, "they run along the images' frames"),
    "crop": (0.75, "they change where the images' margins are cut off"),
}
LOOKED, _BATCH = 48, 16  # training images that `of_run` reads, and images a step

_ELSE = "where no threshold finds the objects, a few masks and --method supervised will do more"


def of_choice(values: Mapping[str, NDArray[np.float64]], chosen: int) -> str:
    """Return a warning about the labels that `tune` chose by `values` (C,) of each criterion, or ""."""
    found = signs({name: float(values[name][chosen]) for name in SIGNS})
    if not found:
        return ""
    return f"even the best labels may be of little use: {found}. Look at them (--sheet) before you train; {_ELSE}"


def of_run(config: TrainConfig, dataset: Manifest, labeler: Labeler, where: str) -> str:
    """Return a warning about the labels that a run is about to learn, or "". Reads `LOOKED` training images of `dataset`."""
    plain = LoaderConfig(config.shards, "train", config.size, _BATCH, where, seed=config.seed, threads=config.threads)
    images, _ = score.glimpse(plain, LOOKED, dataset)
    _, values = score.looked(labeler, images)
    found = signs({name: float(values[name].mean()) for name in SIGNS})
    if not found:
        return ""
    return (
        f"these labels may be of little use: {found}. medsass tune {config.shards} looks for better ones and draws them; "
        f"{_ELSE}"
    )


def signs(values: Mapping[str, float]) -> str:
    """Return a few words for each sign, "" where there is none, from the mean over images of each criterion of SIGNS."""
    return "; ".join(
        f"{what} ({name} {values[name]:.2f}, below {least:.2f})"
        for name, (least, what) in SIGNS.items()
        if values[name] < least
    )
