"""The lines that a training prints."""

import shlex
from typing import Any

import torch

from medsass.config import TrainConfig
from medsass.config.options import Kept
from medsass.data.shards.manifest import Manifest
from medsass.methods.method import Regime
from medsass.models import network
from medsass.runs import console
from medsass.runs.training import meter
from medsass.runs.training.trainer import Trainer


def announce(config: TrainConfig, trainer: Trainer, polarity: str, origin: str) -> None:
    """Print what is trained, on which data and where. `origin` is what --init gives, "encoder" or "network"."""
    chosen, loader = trainer.method, trainer.train_loader
    machine = torch.cuda.get_device_name() if trainer.device == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    several = f"{trainer.ranks.world} processes, the first " if trainer.ranks.world > 1 else ""
    batches = f" in {config.accumulate} micro-batches" if config.accumulate > 1 else ""
    task = f"{config.method}, encoder alone"
    if chosen.needs_masks:
        share = f"{config.label_fraction:.0%} of the " if config.label_fraction < 1 else ""
        task = f"{config.method} with {share}ground truth"
    elif chosen.segments:
        refined = f" refined by {config.refine}" if config.refine else ""
        task = f"{config.method} with {config.labels} labels{refined}, foreground {polarity}"
    console.err.print(
        f"{config.model} ({network.parameters(chosen.network) / 1e6:.1f} M parameters) on {several}{machine}, "
        f"{trainer.step.precision}: {task}, {loader.samples} {loader.depth}-bit images at {config.size} x {config.size}, "
        f"batch {config.batch_size}{batches}, seed {config.seed}"
    )
    if loader.cache_note:
        console.err.print(loader.cache_note)
    if config.init and not trainer.number:
        console.err.print(f"starting from the {origin} of {config.init}")
    if config.resume:
        console.err.print(f"resumed after {place(trainer.epoch, trainer.done)}")


def epoch(config: TrainConfig, line: dict[str, Any]) -> None:
    """Print the result of an epoch, from its line of metrics.jsonl."""
    quality = f"feature std {line['train_feature_std']:.3f}" if "train_feature_std" in line else ""
    if "val_iou_target" in line:
        quality = f"IoU with target {line['val_iou_target']:.4f}"
    left = (config.epochs - line["epoch"]) * line["seconds"]
    rest = f", at most {console.duration(left)} left" if left else ""
    console.err.print(
        f"epoch {line['epoch']}/{config.epochs}  loss {line['train_loss']:.4f}  validation {line['val_loss']:.4f}  "
        f"{quality}  {line['images_per_second']:,.0f} images/s  {meter.text(line)}  {line['seconds']:.0f} s{rest}"
    )


def finished(config: TrainConfig, regime: Regime, epochs: int, best: dict[str, Any]) -> None:
    """Print that the training has finished after `epochs` epochs, and the `best` line of metrics.jsonl."""
    early = f" (stopped early: no lower validation loss for {regime.patience} epochs)" if epochs < config.epochs else ""
    console.out.print(
        f"{epochs} epochs done{early}. "
        f"{'Best' if regime.ranks else 'Kept'}: epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
    )


def suggest(config: TrainConfig, dataset: Manifest, keeps: Kept) -> None:
    """Print the run directory, and a command that fits it: one that the shards have masks or class labels for."""
    words = ["export", config.run, "--format", "timm"]
    if keeps == "network":
        words = ["predict", config.run, "IMAGE"]
    order = sorted(dataset.splits, key=lambda name: ({"test": 0, "val": 1}.get(name, 2), name))
    learns = keeps == "network" or all(
        dataset.splits[name].masks for name in ("train", dataset.followed)
    )  # the linear protocol
    masked = [name for name in order if dataset.splits[name].masks and learns]
    if masked:
        words = ["evaluate", config.run, config.shards, *(["--split", masked[0]] if masked[0] != "test" else [])]
    console.out.print(f"Run directory: {config.run}   Next: {shlex.join(('medsass', *map(str, words)))}")


def place(epochs: int, steps: int) -> str:
    """Name the point after so many whole epochs and steps of the next one."""
    return f"step {steps} of epoch {epochs + 1}" if steps or not epochs else f"epoch {epochs}"
