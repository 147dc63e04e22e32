"""Labels without a network: made, and chosen."""

from dataclasses import dataclass
from pathlib import Path

from medsass.config.options import (
    DEVICES,
    LABELS,
    POLARITIES,
    block_size_option,
    check,
    ght_option,
    offset_option,
    option,
    refine_option,
)


@dataclass(frozen=True)
class LabelConfig:
    """`medsass label SOURCE OUT`."""

    source: Path
    out: Path
    method: str = option("otsu", "threshold that makes the labels", choices=LABELS)
    polarity: str = option(
        "recipe", "foreground side; recipe: the shards' own, auto for images", choices=("recipe", *POLARITIES)
    )
    ght: str = ght_option()
    block_size: int = block_size_option()
    offset: float = offset_option()
    refine: str = refine_option()
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace masks that are already in OUT")

    def __post_init__(self) -> None:
        check(self)
        if self.block_size % 2 == 0:
            raise ValueError(f"--block-size must be odd; got {self.block_size}")


@dataclass(frozen=True)
class TuneConfig:
    """`medsass tune SHARDS`."""

    shards: Path
    out: Path = option(Path("labels.toml"), "write the choice into this TOML file, for train --config")
    sheet: Path | None = option(None, "draw images with the masks of the best few into this PNG file")
    images: int = option(96, "images of the training split that are looked at", least=8)
    size: int = option(224, "they are resized to N x N pixels, best the size that will be trained at", least=32)
    polarity: str = option(
        "recipe",
        "which side of the threshold is foreground; auto: dark of colour images on a light ground, else what holds less "
        "of the images' frames",
        choices=("recipe", *POLARITIES),
    )
    learn: int = option(
        0, "order so many of the best also by how well a small network that learns them on one half of the images gives them "
        "on the other; takes minutes on a CPU", least=0,
    )  # fmt: skip
    score: bool = option(False, "also say how well the ranking follows the shards' masks, which have no part in it")
    seed: int = option(0, "seed of the choice of images, of their other light and of the small networks", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)

    def __post_init__(self) -> None:
        check(self)
