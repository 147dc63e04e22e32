"""The contract of a training method, and the lookup by name: `methods/<name>.py` defines `build(config, polarity)`."""

import importlib
from typing import Protocol, cast

import torch

from medsass.config import METHODS, TrainConfig
from medsass.data.loader import Batch


class Method(Protocol):
    """What a training step computes from a batch. `needs_masks`: whether batches must hold the ground truth."""

    needs_masks: bool

    def target(self, batch: Batch) -> torch.Tensor:
        """(N, H, W) uint8 in {0, 1}: the mask that the network is to predict."""

    def loss(self, logits: torch.Tensor, target: torch.Tensor, /) -> torch.Tensor:
        """Scalar loss of the network's (N, 1, H, W) logits."""


def build(config: TrainConfig, polarity: str) -> Method:
    """The method that `config.method` names, for a dataset whose foreground has that polarity."""
    assert config.method in METHODS
    module = importlib.import_module(f"medsass.methods.{config.method}")
    return cast(Method, module.build(config, polarity))
