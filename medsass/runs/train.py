"""`medsass train`: epochs, early stopping, and all that a run directory holds."""

import shutil
import warnings
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from medsass.config import TrainConfig
from medsass.data import manifest, remote
from medsass.data.manifest import Manifest
from medsass.methods import method
from medsass.models import checkpoint, unet
from medsass.runs import console, device, directory, panels
from medsass.runs.trainer import Trainer

_SAMPLES = 6


def train(config: TrainConfig) -> dict[str, Any]:
    """Train as `config` says and fill `config.run`; with `resume`, go on after the last finished epoch.

    Returns the line of metrics.jsonl of the best epoch: the one with the lowest validation loss, whose weights are kept
    in best.pt and model.safetensors. Raises `ValueError` or `OSError` that say what is wrong and what to do.
    """
    where = device.resolve(config.device)
    dataset = remote.load(config.shards)
    for split in ("train", "val"):
        dataset.split(split)
    _check_labels(config, dataset)
    polarity = dataset.polarity if config.polarity == "recipe" else config.polarity
    facts = {"polarity": polarity, "device": where, "shards_sha256": manifest.digest(config.shards), **_form(dataset)}
    chosen = method.build(config, polarity)
    device.seed(config.seed, where)
    if config.resume:
        directory.check_resume(config, facts)
        saved = checkpoint.load(config.run / directory.LAST)
        trainer = Trainer(config, chosen, where, saved)
    else:
        saved = None
        trainer = Trainer(config, chosen, where)
        directory.create(config, facts)
    history: list[dict[str, Any]] = saved["history"] if saved else []
    _announce(config, trainer, polarity, where, len(history))
    with _tensorboard(config.run, len(history)) as writer:
        while not _finished(config, history):
            line = _epoch(config, trainer, len(history) + 1)
            history.append(line)
            if best_epoch(history) == line["epoch"]:
                checkpoint.save(
                    config.run / directory.BEST, {"model": trainer.model.state_dict(), "epoch": line["epoch"]}
                )
                checkpoint.save_weights(config.run / directory.WEIGHTS, trainer.model)
                draw_samples(trainer, config.run / directory.SAMPLES)
            checkpoint.save(config.run / directory.LAST, {**trainer.state(), "history": history})
            directory.write_metrics(config.run, history)
            panels.curve(history, best_epoch(history), config.run / directory.PROGRESS)
            for name, value in line.items():
                writer.add_scalar(name, value, line["epoch"])
            writer.flush()
    best = history[best_epoch(history) - 1]
    why = (
        ""
        if len(history) == config.epochs
        else f" (stopped early: no lower validation loss for {config.patience} epochs)"
    )
    console.out.print(
        f"{len(history)} epochs done{why}. Best: epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
    )
    console.out.print(f"Run directory: {config.run}   Next: medsass evaluate {config.run} {config.shards}")
    return best


def _check_labels(config: TrainConfig, dataset: Manifest) -> None:
    if dataset.depth == 16 and config.labels.startswith("adaptive"):
        raise ValueError(
            f"--labels {config.labels} is for 8-bit images, and {config.shards} holds 16-bit ones; "
            "take --labels otsu or ght, or make shards with: medsass shard --depth 8"
        )


def _form(dataset: Manifest) -> dict[str, Any]:
    """What `predict` must know of the images that the network was trained on."""
    options = dataset.options
    return {
        "tile": dataset.tile,
        "level": options.get("level", 0),
        "depth": dataset.depth,
        "range": options.get("range", "minmax"),
    }


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The first epoch, counted from 1, with the lowest validation loss."""
    return int(min(history, key=lambda line: float(line["val_loss"]))["epoch"])


def _finished(config: TrainConfig, history: list[dict[str, Any]]) -> bool:
    stale = len(history) - best_epoch(history) if history else 0
    return len(history) >= config.epochs or bool(config.patience and stale >= config.patience)


def _epoch(config: TrainConfig, trainer: Trainer, epoch: int) -> dict[str, Any]:
    start = monotonic()
    with console.progress(f"epoch {epoch}/{config.epochs}", trainer.train_loader.samples) as bar:
        line = {"epoch": epoch, **trainer.train_epoch(bar.advance)}
        bar.advance(0, "validation")
        line |= trainer.validate()
    line["seconds"] = monotonic() - start
    console.err.print(
        f"epoch {epoch}/{config.epochs}  loss {line['train_loss']:.4f}  validation {line['val_loss']:.4f}  "
        f"IoU with target {line['val_iou_target']:.4f}  {line['images_per_second']:,.0f} images/s  {line['seconds']:.0f} s, "
        f"at most {(config.epochs - epoch) * line['seconds'] / 60:.1f} min left"
    )
    return line


def _announce(config: TrainConfig, trainer: Trainer, polarity: str, where: str, done: int) -> None:
    place = torch.cuda.get_device_name() if where == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    target = f"{config.labels} labels, foreground {polarity}" if not trainer.method.needs_masks else "ground truth"
    console.err.print(
        f"{config.model} ({unet.parameters(trainer.model) / 1e6:.1f} M parameters) on {place}: {config.method} with {target}, "
        f"{trainer.train_loader.samples} {trainer.train_loader.depth}-bit images at {config.size} x {config.size}, "
        f"batch {config.batch_size}, seed {config.seed}"
    )
    if done:
        console.err.print(f"resumed after epoch {done}")


def _tensorboard(run: Path, done: int) -> Any:
    if not done:
        shutil.rmtree(run / directory.TENSORBOARD, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(run / directory.TENSORBOARD), purge_step=done + 1 if done else None)


def draw_samples(trainer: Trainer, path: Path) -> None:
    """Draw image, target and prediction of the first images of the last validation."""
    rows: list[list[panels.Tile]] = []
    for image, target, guess in list(zip(*trainer.samples, strict=True))[:_SAMPLES]:
        rows.append([(image, ""), (target, ""), (guess, ""), (panels.outlined(image, guess), "")])
    panels.sheet(rows, path, ["image", "target", "prediction", "outline"])
