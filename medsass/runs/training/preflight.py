"""Checks of a training's options against its shards and processes, before anything is built."""

import importlib.util
from dataclasses import replace

from medsass.config import TrainConfig
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest
from medsass.labels import refine
from medsass.methods import method
from medsass.runs.distributed import Ranks


def checked(config: TrainConfig, ranks: Ranks) -> Manifest:
    """Read the manifest, and raise errors that the user can mend before anything is built."""
    dataset = remote.load(config.shards)
    config = resolved(config, dataset)
    for split in ("train", "val"):
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
    if config.batch_size % (ranks.world * config.accumulate):
        raise ValueError(
            f"--batch-size {config.batch_size} must be a multiple of {ranks.world} processes times --accumulate "
            f"{config.accumulate}"
        )
    method.check(config)
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise ImportError("--wandb needs the wandb package: pip install 'medsass[wandb]'")
    return dataset


def resolved(config: TrainConfig, dataset: Manifest) -> TrainConfig:
    """Replace --refine recipe by the recipe's own steps, so that the run records them."""
    return replace(config, refine=dataset.recipe.get("refine", "")) if config.refine == "recipe" else config
