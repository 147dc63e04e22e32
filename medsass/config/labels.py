"""Options of the commands that label without a network."""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from medsass.config.options import (
    BLOCK_SIZE_HELP,
    DEVICE_HELP,
    GHT_HELP,
    OFFSET_HELP,
    REFINE_HELP,
    THREADS_HELP,
    Count,
    Device,
    Number,
    Place,
    Polarity,
    Threshold,
    check_odd,
    option,
    options_class,
)


@options_class
class LabelConfig:
    """`medsass label SOURCE OUT`."""

    source: Place
    out: Place
    method: Annotated[str, Threshold] = option("otsu", "threshold that makes the labels")
    polarity: Annotated[str, Literal["recipe", Polarity]] = option(
        "recipe", "foreground side; recipe: the shards' own, auto for images"
    )
    ght: str = option("0,0,0,0.5", GHT_HELP)
    block_size: Annotated[int, Ge(3)] = option(51, BLOCK_SIZE_HELP)
    offset: Number = option(0.0, OFFSET_HELP)
    refine: str = option("", REFINE_HELP)
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    overwrite: bool = option(False, "replace masks that are already in OUT")

    def __post_init__(self) -> None:
        check_odd(self.block_size)


@options_class
class TuneConfig:
    """`medsass tune SHARDS`."""

    shards: Place
    out: Place = option(Path("labels.toml"), "write the choice into this TOML file, for train --config")
    sheet: Place | None = option(None, "draw images with the masks of the best few into this PNG file")
    images: Annotated[int, Ge(8)] = option(96, "number of training images to look at")
    size: Annotated[int, Ge(32)] = option(224, "resize them to N x N pixels, best the size of the training")
    polarity: Annotated[str, Literal["recipe", Polarity]] = option(
        "recipe",
        "which side of the threshold is foreground; auto: dark for colour images on a light ground, else the side with "
        "less of the images' borders",
    )
    learn: Count = option(
        0,
        "also rank this many of the best by a small network: trained on one half of the images, how well does it "
        "reproduce the labels of the other; takes minutes on a CPU",
    )
    score: bool = option(False, "also report how well the ranking agrees with the shards' masks, which it does not use")
    seed: Count = option(0, "seed of the choice of images, of their changed light and of the small networks")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    threads: Count = option(0, THREADS_HELP)
