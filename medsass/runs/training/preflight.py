"""What a training asks for, held against its shards and processes before anything is built."""

from dataclasses import replace

from medsass.config import TrainConfig
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest
from medsass.labels import refine
from medsass.methods import method
from medsass.runs.distributed import Ranks
from medsass.runs.training import log


def checked(config: TrainConfig, ranks: Ranks) -> Manifest:
    """The manifest of the shards; raises what the user can mend before anything is built."""
    dataset = remote.load(config.shards)
    config = resolved(config, dataset)
    for split in ("train", "val"):
        dataset.split(split)
    _check_labels(config, dataset)
    _check_processes(config, ranks)
    method.check(config)
    log.check(config)
    return dataset


def resolved(config: TrainConfig, dataset: Manifest) -> TrainConfig:
    """With the steps that the recipe names in the place of "recipe", so that the run says which they were."""
    return replace(config, refine=dataset.refine) if config.refine == "recipe" else config


def _check_processes(config: TrainConfig, ranks: Ranks) -> None:
    if config.batch_size % (ranks.world * config.accumulate):
        raise ValueError(
            f"--batch-size {config.batch_size} must be a multiple of {ranks.world} processes times --accumulate "
            f"{config.accumulate}"
        )


def _check_labels(config: TrainConfig, dataset: Manifest) -> None:
    if dataset.depth == 16 and config.labels.startswith("adaptive"):
        raise ValueError(
            f"--labels {config.labels} is for 8-bit images, and {config.shards} holds 16-bit ones; "
            "take --labels otsu or ght, or make shards with: medsass shard --depth 8"
        )
    if dataset.depth == 16 and (steps := refine.before(refine.parse(config.refine))):
        raise ValueError(
            f"--refine {refine.text(steps)} is for 8-bit images, and {config.shards} holds 16-bit ones; "
            "drop the step, or make shards with: medsass shard --depth 8"
        )
