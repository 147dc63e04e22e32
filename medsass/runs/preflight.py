"""Checks of the commands' options, files and shards that need neither torch nor DALI, whose imports take seconds: the
command line makes them first. Each function returns what it has read, for the command of its name, and raises `ValueError`,
`OSError` or `ImportError` with the rule and the remedy.
"""

import os
import warnings
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from medsass import files
from medsass.config import (
    EvaluateConfig,
    ExportConfig,
    LabelConfig,
    PredictConfig,
    ProbeConfig,
    TrainConfig,
    TuneConfig,
    refine,
)
from medsass.config.train import ENCODERS
from medsass.data import dali
from medsass.data.shards import manifest, remote
from medsass.data.shards.manifest import Manifest
from medsass.runs import image_files, run_directory
from medsass.runs.image_files import Item, Outputs
from medsass.runs.run_directory import Facts

CHOSEN_ON = "chosen-on"  # the option that marks a choice of `tune`


@dataclass(frozen=True)
class Trained:
    """A run: its options, its facts and, for `evaluate` and `probe`, the shards; for `predict`, its inputs."""

    config: TrainConfig
    facts: Facts
    dataset: Manifest = field(default_factory=lambda: Manifest({"name": "", "polarity": "auto"}, {}))
    inputs: list[Outputs] = field(default_factory=list)


def train(config: TrainConfig, world: int = 0) -> Manifest | None:
    """Check a training of `world` processes. Where that is 0, not known, nothing is checked under torchrun, which starts the
    same command again after a failure: then the first process checks for all, once they have met.
    """
    if not world and "WORLD_SIZE" in os.environ:
        return None
    world = world or 1
    dataset = _shards(config.shards)
    config = resolved(config, dataset)
    if dataset.followed != "val":
        warnings.warn(
            f"{config.shards} has no split 'val': the loss of its training images, not augmented, is followed in its place, and "
            "does not tell when the network only knows these by heart; shard more images, or other patients",
            stacklevel=2,
        )
    for split in ("train", dataset.followed):
        if config.method == "supervised":
            _check_masks(config.shards, dataset, split, "take --method medsass, which needs none")
        dataset.split(split)
    if dataset.options.depth == 16 and config.labels.startswith("adaptive"):
        raise ValueError(
            f"--labels {config.labels} is for 8-bit images, and {config.shards} holds 16-bit ones; "
            "take --labels otsu or ght, or make shards with: medsass shard --depth 8"
        )
    if dataset.options.depth == 16 and (steps := refine.before(refine.parse(config.refine))):
        raise ValueError(
            f"--refine {refine.text(steps)} is for 8-bit images, and {config.shards} holds 16-bit ones; "
            "drop the step, or make shards with: medsass shard --depth 8"
        )
    if config.batch_size % (world * config.accumulate):
        raise ValueError(
            f"--batch-size {config.batch_size} must be a multiple of {world} processes times --accumulate "
            f"{config.accumulate}"
        )
    if config.resume:
        run_directory.check_resume(config)
    else:
        run_directory.check_new(config)
    if config.init:
        run_directory.check_weights(config.init)
    if config.method in ENCODERS and find_spec("lightly") is None:
        raise ImportError("the self-supervised baselines need lightly: pip install 'medsass[baselines]'")
    if config.wandb and find_spec("wandb") is None:
        raise ImportError("--wandb needs the wandb package: pip install 'medsass[wandb]'")
    return dataset


def resolved(config: TrainConfig, dataset: Manifest) -> TrainConfig:
    """Replace --refine recipe by the recipe's own steps, so that the run records them."""
    return replace(config, refine=dataset.recipe.get("refine", "")) if config.refine == "recipe" else config


def _shards(folder: Path) -> Manifest:
    """Read the manifest of shards that DALI will load."""
    dataset = remote.load(folder)
    dali.check()
    return dataset


def _check_masks(shards: Path, dataset: Manifest, split: str, remedy: str) -> None:
    if not dataset.split(split).masks:
        raise ValueError(f"{shards}: no image of split '{split}' has a mask; {remedy}")


def protocol(config: EvaluateConfig, facts: Facts) -> str:
    """Resolve --protocol auto."""
    if config.protocol != "auto":
        return config.protocol
    return "network" if facts.keeps == "network" else "linear"


def evaluate(config: EvaluateConfig) -> Trained:
    """Check an evaluation."""
    for name in ("json", "panel"):
        if path := getattr(config, name):
            run_directory.check_file(path, f"--{name}")
    trained, facts = run_directory.check_weights(config.run)
    chosen = protocol(config, facts)
    if chosen == "network" and facts.keeps != "network":
        raise ValueError(
            f"{config.run} keeps an encoder alone, without a network that segments; take --protocol linear or paper"
        )
    dataset = _shards(config.shards)
    _check_depth(config.run, config.shards, dataset, facts)
    masked = [name for name, split in dataset.splits.items() if split.masks]
    remedy = f"take --split {' or '.join(masked)}" if masked else "shard them again with masks drawn by hand (--masks)"
    _check_masks(config.shards, dataset, config.split, remedy)
    for split in ("train", "val") if chosen == "linear" else ():
        if not dataset.split(split).masks:
            raise ValueError(
                f"{config.shards}: no image of split '{split}' has a mask, and --protocol linear learns from them; "
                "take --protocol network or paper"
            )
    return Trained(trained, facts, dataset)


def probe(config: ProbeConfig) -> Trained:
    """Check a probe: the training split has classes, and the others have no other ones."""
    if config.json:
        run_directory.check_file(config.json, "--json")
    trained, facts = run_directory.check_weights(config.run)
    dataset = _shards(config.shards)
    _check_depth(config.run, config.shards, dataset, facts)
    classes = sorted(dataset.split("train").classes)
    if len(classes) < 2:
        held = f"only the class '{classes[0]}'" if classes else "no class labels"
        raise ValueError(
            f"{config.shards}: the split 'train' holds {held}; medsass probe needs two classes or more, which a "
            "recipe's [classes] reads from paths or a CSV file"
        )
    for name in ("val", config.split):
        found = dataset.split(name).classes
        if not found:
            raise ValueError(f"{config.shards}: no image of split '{name}' has a class label; choose another split")
        if unknown := sorted(set(found) - set(classes)):
            raise ValueError(
                f"{config.shards}: split '{name}' has the class '{unknown[0]}', which split 'train' has not; "
                "make shards with more images, or whose splits share their classes"
            )
    return Trained(trained, facts, dataset)


def _check_depth(run: Path, shards: Path, dataset: Manifest, facts: Facts) -> None:
    """Raise `ValueError` where shards hold images of another depth than the run was trained on."""
    if dataset.options.depth != facts.depth:
        raise ValueError(
            f"{run} was trained on {facts.depth}-bit images, and {shards} holds {dataset.options.depth}-bit ones; "
            f"make shards with: medsass shard --depth {facts.depth}"
        )


def predict(config: PredictConfig) -> Trained:
    """Check a prediction, and list its inputs."""
    trained, facts = run_directory.check_weights(config.run)
    run_directory.check_local(config.out, "--out")
    level = facts.level if config.level is None else config.level
    # Which slices were trained on says nothing about those to predict: `frames` and `every` are not taken over.
    trained_on = {name: getattr(facts, name) for name in ("array", "channels", "axis") if getattr(config, name) is None}
    return Trained(trained, facts, inputs=image_files.to_predict(replace(config, level=level, **trained_on)))


def export(config: ExportConfig) -> Trained:
    """Check the run and the folder of an export."""
    trained, facts = run_directory.check_weights(config.run)
    folder = config.out or config.run / run_directory.EXPORT
    run_directory.check_local(folder, "--out")
    if not config.out:
        files.refuse_links(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; --out must be a folder")
    if folder.resolve() == config.run.resolve():
        default = config.run / run_directory.EXPORT
        raise ValueError(f"--out {folder} is the run directory; omit --out for {default}, or choose another")
    return Trained(trained, facts)


def label(config: LabelConfig) -> tuple[Manifest | None, list[Item]]:
    """Check what is labelled and written: the manifest of shards, or the images of a folder."""
    run_directory.check_local(config.out, "OUT")
    sharded = not files.is_local(config.source) or (config.source / manifest.NAME).is_file()
    dataset = remote.load(config.source) if sharded else None
    if sharded and (config.selected() or config.window):
        raise ValueError(
            "--array, --channels, --frames, --axis, --every and --window are for files, and these are shards, whose images were read "
            "when they were made; drop the options"
        )
    return dataset, image_files.to_label(config, dataset)


def tune(config: TuneConfig) -> Manifest:
    """Check the shards and the files of a choice of labels."""
    dataset = _shards(config.shards)
    for name, path in (("--out", config.out), ("--sheet", config.sheet)):
        if path:
            run_directory.check_file(path, name)
    if config.out.exists() and CHOSEN_ON not in files.read(config.out).decode(errors="replace"):
        raise FileExistsError(
            f"{config.out} was not written by medsass tune, which would replace it; give another --out"
        )
    split = dataset.split("train")
    if config.score and not split.masks:
        raise ValueError(f"{config.shards}: no image of split 'train' has a mask for --score to compare with; drop it")
    if config.learn and split.samples < 2:
        raise ValueError(f"{config.shards}: --learn takes two training images or more, and there is one; drop it")
    return dataset
