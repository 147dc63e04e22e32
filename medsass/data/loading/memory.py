"""Free memory of the host and of the GPU."""

import os

import torch

from medsass import budget

host = budget.free


def device() -> int:
    """Return the free bytes of the current GPU."""
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def processes(world: int) -> int:
    """Return how many of a training's `world` processes share this machine: as torchrun says, or all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world))
