"""The way onto the GPU that every kernel takes."""

from typing import Any

import numpy as np
import torch

from medsass.labels.compiler import THREADS, Variant, import_cupy, kernel


def launch(
    variant: Variant,
    device: int,
    stream: int,
    grid: tuple[int, ...],
    name: str,
    shared: int,
    arguments: tuple[Any, ...],
    *,
    cooperative: bool = False,
) -> None:
    """Start the kernel `name` of a variant: `grid` blocks of `THREADS` threads with `shared` bytes each, on a stream.

    cooperative: start only when all blocks can be resident at once, so that they may wait for one another.
    """
    cupy = import_cupy()
    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
        # RawKernel's own flag would also compile for CUDA's device runtime, which no kernel here calls
        started = kernel(variant, name, device).kernel
        started(grid, (THREADS,), arguments, shared_mem=shared, enable_cooperative_groups=cooperative)


def pointer(tensor: torch.Tensor | None) -> Any:
    """A tensor's address as a kernel's argument; 0 where there is none."""
    return np.uint64(tensor.data_ptr() if tensor is not None else 0)
