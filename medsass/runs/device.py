"""Where a command runs, and seeds."""

import numpy as np
import torch


def resolve(name: str) -> str:
    """The device, "cpu" or "cuda", for --device auto|cpu|cuda. Raises `ValueError` where a GPU is asked for and none can be used."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no usable NVIDIA GPU was found; see medsass doctor, or take --device cpu")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def seed(value: int, device: str) -> None:
    """Seed torch. On the CPU only algorithms that repeat bit for bit are allowed; on the GPU the fastest are."""
    torch.manual_seed(value)
    torch.use_deterministic_algorithms(device == "cpu")
    # Filling fresh memory finds bugs and costs time; what is computed is the same without.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device == "cuda"


def seed_step(value: int, step: int, rank: int, device: str) -> None:
    """Seed what the method draws in a step of the training, so that it does not depend on what was drawn before."""
    seed = int(np.random.SeedSequence([value, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.default_generator.manual_seed(seed)
    if device == "cuda":
        torch.cuda.manual_seed(seed)
