"""What a user reads of a training while it runs."""

from typing import Any

import torch

from medsass.config import TrainConfig
from medsass.methods.method import Method
from medsass.models import network
from medsass.runs import console, run_directory
from medsass.runs.training import meter
from medsass.runs.training.trainer import Trainer


def announce(config: TrainConfig, trainer: Trainer, polarity: str) -> None:
    """Say what is about to be trained, on what and where."""
    machine = torch.cuda.get_device_name() if trainer.device == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    several = f"{trainer.ranks.world} processes, the first " if trainer.ranks.world > 1 else ""
    in_parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
    console.err.print(
        f"{config.model} ({network.parameters(trainer.method.network) / 1e6:.1f} M parameters) on {several}{machine}, "
        f"{trainer.step.precision}: {_task(config, trainer.method, polarity)}, "
        f"{trainer.train_loader.samples} {trainer.train_loader.depth}-bit images at {config.size} x {config.size}, "
        f"batch {config.batch_size}{in_parts}, seed {config.seed}"
    )
    if trainer.train_loader.cache_note:
        console.err.print(trainer.train_loader.cache_note)
    if config.init and not trainer.number:
        console.err.print(f"starting from the {run_directory.stored(config.init)[1]['keeps']} of {config.init}")
    if config.resume:
        console.err.print(f"resumed after {place(trainer.epoch, trainer.done)}")


def _task(config: TrainConfig, chosen: Method, polarity: str) -> str:
    if chosen.needs_masks:
        share = f"{config.label_fraction:.0%} of the " if config.label_fraction < 1 else ""
        return f"{config.method} with {share}ground truth"
    if chosen.segments:
        refined = f" refined by {config.refine}" if config.refine else ""
        return f"{config.method} with {config.labels} labels{refined}, foreground {polarity}"
    return f"{config.method}, encoder alone"


def remark(seen: dict[str, float]) -> str:
    """Beside the progress bar."""
    return f"loss {seen['loss']:.4f}  {meter.text(seen)}"


def epoch(config: TrainConfig, line: dict[str, Any]) -> None:
    """Say how an epoch went, from its line of metrics.jsonl."""
    console.err.print(
        f"epoch {line['epoch']}/{config.epochs}  loss {line['train_loss']:.4f}  validation {line['val_loss']:.4f}  "
        f"{_quality(line)}  {line['images_per_second']:,.0f} images/s  {meter.text(line)}  {line['seconds']:.0f} s, "
        f"at most {(config.epochs - line['epoch']) * line['seconds'] / 60:.1f} min left"
    )


def _quality(line: dict[str, Any]) -> str:
    if "val_iou_target" in line:
        return f"IoU with target {line['val_iou_target']:.4f}"
    return f"feature std {line['train_feature_std']:.3f}" if "train_feature_std" in line else ""


def place(epochs: int, steps: int) -> str:
    """How far a training is, after that many whole epochs and steps of the next one."""
    return f"step {steps} of epoch {epochs + 1}" if steps or not epochs else f"epoch {epochs}"
