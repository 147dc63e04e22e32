"""Options of the commands that use trained runs, and of those that run a whole line of commands."""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Lt

from medsass.config.options import (
    DEVICE_HELP,
    FOLLOW_HELP,
    THREADS_HELP,
    Amount,
    Count,
    Device,
    Place,
    Positive,
    Protocol,
    Reading,
    Seed,
    Threads,
    option,
    options_class,
)


@options_class
class EvaluateConfig:
    """`medsass evaluate RUN SHARDS`."""

    run: Place
    shards: Place
    split: str = option("test", "split to score")
    protocol: Annotated[str, Protocol] = option(
        "auto",
        "whose masks: network, the run's own; paper, an untrained decoder's on its encoder; linear, a 1x1 head's, "
        "trained on SHARDS' training labels upon the frozen encoder; auto: network, or linear of an encoder alone",
    )
    flips: bool = option(False, "average the network's probabilities over the four flips of each image")
    batch_size: Positive = option(16, "images a step; does not change the scores of network and paper")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    threads: Threads = option(0, THREADS_HELP)
    json: Place | None = option(None, "write the scores into this file")
    panel: Place | None = option(None, "draw best, median and worst images into this PNG file")


@options_class
class PredictConfig(Reading):
    """`medsass predict RUN IMAGE|FOLDER...`."""

    run: Place
    images: tuple[Place, ...]
    out: Place = option(Path("predictions"), "folder that the masks are written to")
    tile: Count = option(
        0,
        "predict in overlapping tiles of N x N pixels; 0: only slides and what is too large for one piece, in tiles "
        "of the run's shards, or of the size it was trained at",
    )
    overlap: Annotated[Amount, Lt(1)] = option(0.25, "share of a tile's side that overlaps with the next tile, below 1")
    level: Count | None = option(
        None, "pyramid level of slides that is read; 0 is full resolution; by default that of the run's shards"
    )
    overlay: bool = option(False, "also write the image with the mask's outline; of slides an overview")
    flips: bool = option(False, "average the network's probabilities over the four flips of each image")
    probability: bool = option(False, "also write the foreground probability, 0..1 as 0..65535, PNG (slides: TIFF)")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    follow_links: bool = option(False, FOLLOW_HELP)
    overwrite: bool = option(False, "replace masks that are already in the folder")


@options_class
class ProbeConfig:
    """`medsass probe RUN SHARDS`. Defaults are the paper's (appendix D)."""

    run: Place
    shards: Place
    split: str = option("test", "split to score")
    epochs: Positive = option(50, "passes over the training split")
    patience: Count = option(5, "stop after this many epochs without a lower validation loss; 0 never stops")
    batch_size: Positive = option(16, "images a step")
    lr: Amount = option(1e-3, "peak learning rate of AdamW")
    seed: Seed = option(0, "seed of the head's weights, shuffling and augmentation")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    threads: Threads = option(0, THREADS_HELP)
    json: Place | None = option(None, "write the scores into this file")


@options_class
class ExportConfig:
    """`medsass export RUN`."""

    run: Place
    format: Annotated[str, Literal["safetensors", "timm", "onnx"]] = option(
        "safetensors",
        "safetensors: all that the run keeps, for smp; timm: its encoder, for timm.create_model; onnx: the "
        "network, or the feature map of an encoder alone",
    )
    out: Place | None = option(None, "folder of the files; by default RUN/export")
    overwrite: bool = option(False, "replace what the folder holds")


@options_class
class ExperimentConfig:
    """`medsass experiment GRID OUT`."""

    grid: Place
    out: Place
    data: Place | None = option(None, "folder that the grid's sources and shards are below; by default the grid's own")
    jobs: Count = option(0, "cells that run side by side; 0: one on a CPU, on GPUs as many as fit")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    threads: Threads = option(0, THREADS_HELP)
    dry_run: bool = option(False, "only list the cells, and which of them are finished")


@options_class
class DemoConfig:
    """`medsass demo OUT`."""

    out: Place
    seed: Seed = option(0, "seed of the generated images and of the training")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    overwrite: bool = option(False, "replace what OUT holds")
