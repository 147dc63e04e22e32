"""`medsass train`: epochs, early stopping, and all that a run directory holds."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from medsass.config import TrainConfig, plain
from medsass.data import manifest, remote
from medsass.data.manifest import Manifest
from medsass.methods import method
from medsass.methods.method import Method, Regime
from medsass.models import checkpoint, network
from medsass.runs import console, device, directory, head, panels
from medsass.runs.trainer import Trainer

_SAMPLES = 6


def train(config: TrainConfig) -> dict[str, Any]:
    """Train as `config` says and fill `config.run`; with `resume`, go on after the last finished epoch.

    Returns the line of metrics.jsonl of the epoch whose weights are kept in best.pt and model.safetensors: the one with
    the lowest validation loss, or the last where that loss ranks nothing (`Regime.ranks`).
    Raises `ValueError` or `OSError` that say what is wrong and what to do.
    """
    where = device.resolve(config.device)
    dataset = remote.load(config.shards)
    for split in ("train", "val"):
        dataset.split(split)
    _check_labels(config, dataset)
    polarity = dataset.polarity if config.polarity == "recipe" else config.polarity
    device.seed(config.seed, where)
    chosen = method.make(replace(config, init=None) if config.resume else config, polarity)
    regime = chosen.regime.of(config)
    origin = directory.stored(config.run)[1]["init"] if config.resume else _origin(config)
    facts = {
        "polarity": polarity,
        "device": where,
        "shards_sha256": manifest.digest(config.shards),
        "keeps": chosen.keeps,
        "segments": chosen.segments,
        "labels_read": chosen.needs_masks or bool(origin and origin["labels_read"]),
        "init": origin,
        "regime": plain(regime),
        **_form(dataset),
    }
    saved = None
    if config.resume:
        directory.check_resume(config, facts)
        saved = checkpoint.load(config.run / directory.LAST)
    trainer = Trainer(config, chosen, where, saved)
    if not config.resume:
        directory.create(config, facts)
    history: list[dict[str, Any]] = saved["history"] if saved else []
    _announce(config, trainer, polarity, where, len(history))
    with _tensorboard(config.run, len(history)) as writer:
        while not _finished(config, regime, history):
            line = _epoch(config, trainer, len(history) + 1)
            history.append(line)
            if best_epoch(history, regime) == line["epoch"]:
                weights = chosen.weights()
                checkpoint.save(config.run / directory.BEST, {"model": weights, "epoch": line["epoch"]})
                checkpoint.save_weights(config.run / directory.WEIGHTS, weights)
                draw_samples(trainer, config.run / directory.SAMPLES)
            checkpoint.save(config.run / directory.LAST, {**trainer.state(), "history": history})
            directory.write_metrics(config.run, history)
            panels.curve(history, best_epoch(history, regime), config.run / directory.PROGRESS)
            for name, value in line.items():
                writer.add_scalar(name, value, line["epoch"])
            writer.flush()
    best = history[best_epoch(history, regime) - 1]
    why = (
        ""
        if len(history) == config.epochs
        else f" (stopped early: no lower validation loss for {regime.patience} epochs)"
    )
    kept = "Best" if regime.ranks else "Kept"
    console.out.print(
        f"{len(history)} epochs done{why}. {kept}: epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
    )
    console.out.print(f"Run directory: {config.run}   Next: medsass evaluate {config.run} {config.shards}")
    return best


def _check_labels(config: TrainConfig, dataset: Manifest) -> None:
    if dataset.depth == 16 and config.labels.startswith("adaptive"):
        raise ValueError(
            f"--labels {config.labels} is for 8-bit images, and {config.shards} holds 16-bit ones; "
            "take --labels otsu or ght, or make shards with: medsass shard --depth 8"
        )


def _origin(config: TrainConfig) -> dict[str, Any] | None:
    """Of the run that --init names: its method, what of it is taken, and whether labels had a part in its weights."""
    if not config.init:
        return None
    old, facts = directory.stored(config.init)
    return {"method": old.method, "takes": facts["keeps"], "labels_read": facts["labels_read"]}


def _form(dataset: Manifest) -> dict[str, Any]:
    """What `predict` must know of the images that the network was trained on."""
    options = dataset.options
    return {
        "tile": dataset.tile,
        "level": options.get("level", 0),
        "depth": dataset.depth,
        "range": options.get("range", "minmax"),
    }


def best_epoch(history: list[dict[str, Any]], regime: Regime) -> int:
    """The epoch, counted from 1, whose weights are kept: the first with the lowest validation loss, or the last where
    that loss ranks nothing.
    """
    return head.best_epoch(history) if regime.ranks else len(history)


def _finished(config: TrainConfig, regime: Regime, history: list[dict[str, Any]]) -> bool:
    stale = len(history) - head.best_epoch(history) if history else 0
    return len(history) >= config.epochs or bool(regime.patience and stale >= regime.patience)


def _epoch(config: TrainConfig, trainer: Trainer, epoch: int) -> dict[str, Any]:
    start = monotonic()
    with console.progress(f"epoch {epoch}/{config.epochs}", trainer.train_loader.samples) as bar:
        line = {"epoch": epoch, **trainer.train_epoch(bar.advance)}
        bar.advance(0, "validation")
        line |= trainer.validate()
    line["seconds"] = monotonic() - start
    console.err.print(
        f"epoch {epoch}/{config.epochs}  loss {line['train_loss']:.4f}  validation {line['val_loss']:.4f}  "
        f"{_quality(line)}  {line['images_per_second']:,.0f} images/s  {line['seconds']:.0f} s, "
        f"at most {(config.epochs - epoch) * line['seconds'] / 60:.1f} min left"
    )
    return line


def _quality(line: dict[str, Any]) -> str:
    if "val_iou_target" in line:
        return f"IoU with target {line['val_iou_target']:.4f}"
    return f"feature std {line['train_feature_std']:.3f}" if "train_feature_std" in line else ""


def _announce(config: TrainConfig, trainer: Trainer, polarity: str, where: str, done: int) -> None:
    place = torch.cuda.get_device_name() if where == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
    console.err.print(
        f"{config.model} ({network.parameters(trainer.method.network) / 1e6:.1f} M parameters) on {place}: "
        f"{_task(config, trainer.method, polarity)}, "
        f"{trainer.train_loader.samples} {trainer.train_loader.depth}-bit images at {config.size} x {config.size}, "
        f"batch {config.batch_size}, seed {config.seed}"
    )
    if config.init and not done:
        console.err.print(f"starting from the {directory.stored(config.init)[1]['keeps']} of {config.init}")
    if done:
        console.err.print(f"resumed after epoch {done}")


def _task(config: TrainConfig, chosen: Method, polarity: str) -> str:
    if chosen.needs_masks:
        share = f"{config.label_fraction:.0%} of the " if config.label_fraction < 1 else ""
        return f"{config.method} with {share}ground truth"
    if chosen.segments:
        return f"{config.method} with {config.labels} labels, foreground {polarity}"
    return f"{config.method}, encoder alone"


def _tensorboard(run: Path, done: int) -> Any:
    if not done:
        shutil.rmtree(run / directory.TENSORBOARD, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(run / directory.TENSORBOARD), purge_step=done + 1 if done else None)


def draw_samples(trainer: Trainer, path: Path) -> None:
    """Draw image, target and prediction of the first images of the last validation, of a method that segments."""
    if not trainer.samples:
        return
    rows: list[list[panels.Tile]] = []
    for image, target, guess in list(zip(*trainer.samples, strict=True))[:_SAMPLES]:
        rows.append([(image, ""), (target, ""), (guess, ""), (panels.outlined(image, guess), "")])
    panels.sheet(rows, path, ["image", "target", "prediction", "outline"])
