"""What is done with runs, and whole lines of them."""

from dataclasses import dataclass
from pathlib import Path

from medsass.config.options import DEVICES, PROTOCOLS, check, option


@dataclass(frozen=True)
class EvaluateConfig:
    """`medsass evaluate RUN SHARDS`."""

    run: Path
    shards: Path
    split: str = option("test", "split to score")
    protocol: str = option(
        "auto", "whose masks: network, the run's own; paper, an untrained decoder's on its encoder; linear, a 1x1 head's, "
        "trained on SHARDS' training labels upon the frozen encoder; auto: network, or linear of an encoder alone",
        choices=PROTOCOLS,
    )  # fmt: skip
    flips: bool = option(False, "average the network's probabilities over the four flips of each image")
    batch_size: int = option(16, "images a step; does not change the scores of network and paper", least=1)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    json: Path | None = option(None, "write the scores into this file")
    panel: Path | None = option(None, "draw best, median and worst images into this PNG file")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PredictConfig:
    """`medsass predict RUN IMAGE|FOLDER...`."""

    run: Path
    images: tuple[Path, ...]
    out: Path = option(Path("predictions"), "folder that the masks are written to")
    tile: int = option(
        0, "predict in overlapping tiles of N x N pixels; 0: only slides and what is too large for one piece, in tiles "
        "of the run's shards, or of the size it was trained at", least=0,
    )  # fmt: skip
    overlap: float = option(0.25, "share of a tile's side that it has in common with the next one, below 1", least=0)
    level: int | None = option(
        None, "pyramid level of slides that is read; 0 is full resolution; by default that of the run's shards", least=0
    )
    overlay: bool = option(False, "also write the image with the mask's outline; of slides an overview")
    flips: bool = option(False, "average the network's probabilities over the four flips of each image")
    probability: bool = option(False, "also write the foreground probability, 0..1 as 0..65535, PNG (slides: TIFF)")
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace masks that are already in the folder")

    def __post_init__(self) -> None:
        check(self)
        if self.overlap >= 1:
            raise ValueError(f"--overlap must be below 1; got {self.overlap}")


@dataclass(frozen=True)
class ProbeConfig:
    """`medsass probe RUN SHARDS`. Defaults are the paper's (appendix D)."""

    run: Path
    shards: Path
    split: str = option("test", "split to score")
    epochs: int = option(50, "passes over the training split", least=1)
    patience: int = option(5, "stop after this many epochs without a lower validation loss; 0 never stops", least=0)
    batch_size: int = option(16, "images a step", least=1)
    lr: float = option(1e-3, "peak learning rate of AdamW", least=0)
    seed: int = option(0, "seed of the head's weights, shuffling and augmentation", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    json: Path | None = option(None, "write the scores into this file")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ExportConfig:
    """`medsass export RUN`."""

    run: Path
    format: str = option(
        "safetensors", "safetensors: all that the run keeps, for smp; timm: its encoder, for timm.create_model; onnx: the "
        "network, or the feature map of an encoder alone", choices=("safetensors", "timm", "onnx"),
    )  # fmt: skip
    out: Path | None = option(None, "folder of the files; by default RUN/export")
    overwrite: bool = option(False, "replace what the folder holds")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ExperimentConfig:
    """`medsass experiment GRID OUT`."""

    grid: Path
    out: Path
    data: Path | None = option(None, "folder that the grid's sources and shards are below; by default the grid's own")
    jobs: int = option(0, "cells that run side by side; 0: one on a CPU, on GPUs as many as fit", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    dry_run: bool = option(False, "only list the cells, and which of them are finished")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class DemoConfig:
    """`medsass demo OUT`."""

    out: Path
    seed: int = option(0, "seed of the generated images and of the training", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace what OUT holds")

    def __post_init__(self) -> None:
        check(self)
