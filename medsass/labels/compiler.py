"""The kernels' source: assembled from `kernels/*.cu`, compiled with NVRTC at first use, and kept for each device."""

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from medsass import bundled

THREADS = 512
BLOCK_BYTES, SHARED_BYTES = 18_560, 2084  # of parts.cuh's structs, which it checks
HEADERS = {
    "label.cu": ("common.cuh", "histogram.cuh", "solve.cuh", "pixels.cuh", "parts.cuh", "mask.cuh"),
    "adaptive.cu": ("common.cuh", "pixels.cuh"),
    "components.cu": ("common.cuh",),
    "blur.cu": ("common.cuh",),
}
OPTIONS = ("-std=c++17", "--fmad=false")  # contraction would make scores differ from the NumPy statement's


@dataclass(frozen=True)
class Variant:
    """What a kernel source is compiled for; `input` is 0, 1, 2, 3 for none, bfloat16, float16, float32."""

    file: str
    channels: int = 3
    bits: int = 8
    ght: bool = False
    input: int = 0

    @property
    def stage(self) -> int:
        """Bytes of shared memory in which a block of `label` has pixels that are on their way: 48 a thread of RGB."""
        return THREADS * 48 if self.channels == 3 else 0

    @property
    def resident(self) -> int:
        """Blocks of `label` that a multiprocessor is to hold, so that some load while others solve and write; a stage takes
        the third one's room.
        """
        return 2 if self.stage else 3


@dataclass(frozen=True)
class Limits:
    """A device's shared memory (bytes a multiprocessor and at most a block) and its number of multiprocessors."""

    shared: int
    shared_block: int
    processors: int


def import_cupy() -> Any:
    """CuPy, which compiles and launches the kernels. Raises `ImportError` that says which extra to install."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise ImportError(
            "labelling on a GPU needs CuPy: pip install 'medsass[cuda13]' (or 'medsass[cuda12]' where the driver is of CUDA 12)"
        ) from error


def source(variant: Variant) -> str:
    """The complete source of a variant: its definitions, then headers and kernel with `#line`, no `#include` left.

    CuPy's compile cache knows a program by its text, so what an `#include` brings in would go stale there.
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
    """What `plan` must know of a GPU."""
    cupy = import_cupy()
    found = cupy.cuda.Device(device).attributes
    block = found["MaxSharedMemoryPerBlockOptin"]
    return Limits(found["MaxSharedMemoryPerMultiprocessor"], block, found["MultiProcessorCount"])


@functools.cache
def kernel(variant: Variant, name: str, device: int) -> Any:
    """The compiled kernel `name` of a variant on a device, allowed all the shared memory that a block may have."""
    cupy = import_cupy()
    with cupy.cuda.Device(device):
        found = _module(variant, device).get_function(name)
        found.max_dynamic_shared_size_bytes = limits(device).shared_block - found.shared_size_bytes
        found.preferred_shared_memory_carveout = 100  # per cent: so that two blocks can share a multiprocessor
        return found


@functools.cache
def _module(variant: Variant, device: int) -> Any:  # noqa: ARG001 - a module belongs to the device it was loaded on
    cupy = import_cupy()
    return cupy.RawModule(code=source(variant), options=OPTIONS, backend="nvrtc")


def architectures() -> tuple[str, ...]:
    """Compute capabilities that the kernels are kept compiling for."""
    return ("75", "80", "86", "89", "90", "100", "120")


def variants() -> list[Variant]:
    """Every variant that can be asked for."""
    made = [
        Variant("label.cu", channels, 8, ght, value)
        for channels in (1, 3)
        for ght in (False, True)
        for value in range(4)
    ]
    made += [Variant("label.cu", 1, 16, ght) for ght in (False, True)]
    return [
        *made,
        Variant("adaptive.cu", 1),
        Variant("adaptive.cu", 3),
        Variant("components.cu", 1),
        Variant("blur.cu", 1),
    ]
