"""Compile and launch the CUDA kernels: assembled from `kernels/*.cu`, compiled with NVRTC at first use, cached per device."""

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medsass import bundled

THREADS = 512
BLOCK_BYTES, SHARED_BYTES = 18_560, 2084  # sizes of structs in parts.cuh, which checks them
HEADERS = {
    "label.cu": ("common.cuh", "histogram.cuh", "solve.cuh", "pixels.cuh", "parts.cuh", "mask.cuh"),
    "adaptive.cu": ("common.cuh", "pixels.cuh"),
    "components.cu": ("common.cuh",),
    "blur.cu": ("common.cuh",),
}
OPTIONS = ("-std=c++17", "--fmad=false")  # contraction would make scores differ from the NumPy statement's


@dataclass(frozen=True)
class Variant:
    """A kernel file and the definitions it is compiled with; `input` is 0, 1, 2, 3 for none, bfloat16, float16, float32."""

    file: str
    channels: int = 3
    bits: int = 8
    ght: bool = False
    input: int = 0

    @property
    def stage(self) -> int:
        """Bytes of shared memory that a block of `label` uses for pixels in flight: 48 a thread of RGB."""
        return THREADS * 48 if self.channels == 3 else 0

    @property
    def resident(self) -> int:
        """Wanted blocks of `label` on a multiprocessor: some load while others solve; a stage takes the room of the third."""
        return 2 if self.stage else 3


@dataclass(frozen=True)
class Limits:
    """A device's shared memory in bytes (a multiprocessor's, and the most a block may have) and its multiprocessors."""

    shared: int
    shared_block: int
    processors: int


def import_cupy() -> Any:
    """Import CuPy, which compiles and launches the kernels. Raises `ImportError` that says which extra to install."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise ImportError(
            "labelling on a GPU needs CuPy: pip install 'medsass[cuda13]' (or 'medsass[cuda12]' for a CUDA 12 driver)"
        ) from error


def source(variant: Variant) -> str:
    """Return the complete source of a variant: definitions, then headers and kernel with `#line`, without any `#include`.

    CuPy's compile cache knows a program by its text, so an included header that changed would go unnoticed.
    """
    definitions = {
        "THREADS": THREADS,
        "PIXEL_BITS": variant.bits,
        "CHANNELS": variant.channels,
        "GHT": int(variant.ght),
        "INPUT": variant.input,
        "RESIDENT": variant.resident,
        "BLOCK_BYTES": BLOCK_BYTES,
        "STAGE_BYTES": variant.stage,
        "SHARED_BYTES": SHARED_BYTES,
    }
    lines = [f"#define {name} {value}" for name, value in definitions.items()]
    for name in (*HEADERS[variant.file], variant.file):
        lines += [f'#line 1 "{name}"', (bundled.folder("kernels") / name).read_text()]
    return "\n".join(lines)


@functools.cache
def limits(device: int) -> Limits:
    """Return the limits of a GPU that launches are planned by."""
    found = import_cupy().cuda.Device(device).attributes
    block = found["MaxSharedMemoryPerBlockOptin"]
    return Limits(found["MaxSharedMemoryPerMultiprocessor"], block, found["MultiProcessorCount"])


@functools.cache
def _module(variant: Variant, device: int) -> Any:  # noqa: ARG001 - a module belongs to the device it was loaded on
    return import_cupy().RawModule(code=source(variant), options=OPTIONS, backend="nvrtc")


@functools.cache
def kernel(variant: Variant, name: str, device: int) -> Any:
    """Return the compiled kernel `name` of a variant on a device, allowed all the shared memory that a block may have."""
    with import_cupy().cuda.Device(device):
        found = _module(variant, device).get_function(name)
        found.max_dynamic_shared_size_bytes = limits(device).shared_block - found.shared_size_bytes
        found.preferred_shared_memory_carveout = 100  # per cent: so that two blocks can share a multiprocessor
        return found


def launch(
    variant: Variant,
    name: str,
    where: tuple[int, int],
    grid: tuple[int, ...],
    arguments: tuple[Any, ...],
    *,
    shared: int = 0,
    cooperative: bool = False,
) -> None:
    """Launch a kernel with `THREADS` threads a block.

    Args:
        variant: the compiled file that holds the kernel.
        name: the kernel's function.
        where: the device's index and the pointer of a stream on it.
        grid: number of blocks along each dimension.
        arguments: pointers and NumPy scalars or structs, in the kernel's order.
        shared: bytes of dynamic shared memory a block.
        cooperative: start only if all blocks can be resident at once, so that they may wait for one another.
    """
    cupy, (device, stream) = import_cupy(), where
    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
        # RawKernel's own flag would also compile for CUDA's device runtime, which no kernel here calls
        started = kernel(variant, name, device).kernel
        started(grid, (THREADS,), arguments, shared_mem=shared, enable_cooperative_groups=cooperative)


def pointer(tensor: torch.Tensor | None) -> Any:
    """Return a tensor's address as a kernel argument; 0 for None."""
    return np.uint64(tensor.data_ptr() if tensor is not None else 0)
