"""The device of a command, and random seeds."""

from typing import Literal

import numpy as np
import torch

from medsass.data.loading import memory
from medsass.errors import TooLargeError

Where = Literal["cpu", "cuda"]


def resolve(name: str) -> Where:
    """Resolve --device auto|cpu|cuda. Raises `ValueError` for cuda where no GPU can be used."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no usable NVIDIA GPU was found; see medsass doctor, or take --device cpu")
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


# Bytes that each pixel of a batch takes on a CPU at least; measured: 810 to 1800 of whole networks, 2600 to 5600 trained.
ENCODER, NETWORK, TRAINING = 150, 700, 2000


def check_memory(size: int, images: int, least: int, where: str) -> None:
    """Raise `TooLargeError` where a batch of `images` of `size` x `size` pixels, of `least` bytes a pixel, cannot fit this
    machine: a run may be somebody else's, and its size any number. A GPU says so by itself.
    """
    if where == "cpu" and (needed := size * size * images * least) > (free := memory.host()):
        raise TooLargeError(
            f"{images} images of {size} x {size} pixels at once take {needed >> 30} GiB of memory or more, and {free >> 30} GiB "
            "are free; take a smaller --batch-size, or a run of a smaller --size"
        )


def seed(value: int, device: str) -> None:
    """Seed torch. On a CPU only algorithms that repeat bit for bit are allowed; on a GPU the fastest are used."""
    torch.manual_seed(value)
    torch.use_deterministic_algorithms(device == "cpu")
    # Filling fresh memory finds bugs, costs time, and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device == "cuda"


def seed_step(value: int, step: int, rank: int, device: str) -> None:
    """Seed the random numbers of one training step, so that they do not depend on those drawn before."""
    seed = int(np.random.SeedSequence([value, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)
