"""The training line without one of its parts at a time: what each of them is worth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.support import training
from benchmarks.support.training import Contender
from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.labels import Labeler
from medsass.methods.segmentation import Segmentation
from medsass.models import network
from medsass.runs.training.trainer import Trainer

UNRECORDED = ("labels on the CPU", "plain optimiser")  # no CUDA graph can hold them: compare them with "no graphs"


def contenders(config: TrainConfig, where: str) -> list[Contender]:
    """Return the line with one thing changed, by an option of `medsass train` or by code."""
    on_gpu = where == "cuda"
    options: dict[str, tuple[str, dict[str, Any], bool]] = {
        "no graphs": ("every step launched by Python", {"graphs": False}, on_gpu),
        "no compile": ("not compiled", {"compile": False}, on_gpu),
        "neither": ("neither compiled nor recorded", {"compile": False, "graphs": False}, on_gpu),
        "fp32": ("float32 in place of bfloat16", {"precision": "fp32"}, on_gpu),
        "bf16": ("bfloat16 in place of float32", {"precision": "bf16"}, not on_gpu),
        "cached": ("decoded images kept in memory", {"cache": "device"}, True),
    }
    on_host = "each batch copied to the host, cv2.threshold, masks copied back"
    changes: dict[str, tuple[str, Callable[[Trainer], None], bool]] = {
        "NCHW": ("weights and images channels first", _channels_first, True),
        "labels on the CPU": (on_host, _labels_on_host, on_gpu),
        "labels and input apart": ("a kernel for the mask, PyTorch for the network's input", _labels_apart, True),
        "plain optimiser": ("AdamW in PyTorch's for-loops", _plain_optimiser, True),
        "waiting each step": ("the loss is read after every step", _waiting, on_gpu),
    }
    found = [
        Contender(name, what, partial(training.line, replace(config, **fields), where))
        for name, (what, fields, applies) in options.items()
        if applies
    ]
    for name, (what, change, applies) in changes.items():
        if applies:
            plain = replace(config, graphs=config.graphs and name not in UNRECORDED)
            found.append(Contender(name, what, partial(training.line, plain, where, change)))
    return found


def _channels_first(trainer: Trainer) -> None:
    trainer.method.network.to(memory_format=torch.contiguous_format)
    owner = _segmentation(trainer)
    original = owner.prepare

    def prepare(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        target, images = original(batch)
        return target, images.contiguous(memory_format=torch.contiguous_format)

    owner.prepare = prepare  # type: ignore[method-assign]


def _labels_on_host(trainer: Trainer) -> None:
    _segmentation(trainer).prepare = lambda batch: (  # type: ignore[method-assign]
        training.otsu(batch.images.cpu()).to(batch.images.device),
        network.normalise(batch.images),
    )


def _labels_apart(trainer: Trainer) -> None:
    labeler = Labeler("otsu", "dark")
    _segmentation(trainer).prepare = lambda batch: (  # type: ignore[method-assign]
        labeler(batch.images).mask,
        network.normalise(batch.images),
    )


def _plain_optimiser(trainer: Trainer) -> None:
    trainer.step.optimizer = torch.optim.AdamW(
        trainer.method.parameters(), lr=trainer.regime.lr, weight_decay=trainer.regime.weight_decay, foreach=False
    )
    for group in trainer.step.optimizer.param_groups:
        group["constant"] = False


def _waiting(trainer: Trainer) -> None:
    original = trainer.step.__class__.__call__
    step = trainer.step

    class Waiting(type(step)):  # type: ignore[misc]
        """A step whose loss is read."""

        def __call__(self, parts: Sequence[Batch], progress: float) -> Any:
            outcomes = original(self, parts, progress)
            outcomes[-1].loss.item()
            return outcomes

    step.__class__ = Waiting


def _segmentation(trainer: Trainer) -> Segmentation:
    assert isinstance(trainer.method, Segmentation)
    return trainer.method
