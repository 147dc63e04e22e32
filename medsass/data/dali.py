"""DALI: its import, its tensors, and the CPU decoder that training uses, so that a file it cannot read never reaches a shard.

One corrupt sample ends a DALI pipeline for good, and a pipeline cannot skip it. So images are decoded here in batches;
when a batch fails, its images are decoded one by one, each failure at the price of a new pipeline: some milliseconds.
"""

import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

BATCH = 32

_MISSING = (
    "this command needs NVIDIA DALI, also on the CPU: "
    "pip install 'medsass[cuda13]' (or 'medsass[cuda12]' with a CUDA 12 driver)"
)


def import_dali(module: str = "nvidia.dali") -> Any:
    """Import a module of DALI. Raises `ImportError` that says which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(_MISSING) from error


def check() -> None:
    """Raise `ImportError` as `import_dali` does, without the import."""
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        raise ImportError(_MISSING)


def tensor(array: "NDArray[Any] | torch.Tensor") -> Any:
    """Return one sample as DALI's tensor, which shares its memory: an encoded file (n,) or pixels (H, W, C)."""
    dali, layout = import_dali("nvidia.dali.tensors"), "HWC" if array.ndim == 3 else ""
    if isinstance(array, np.ndarray) or not array.is_cuda:
        return dali.TensorCPU(np.asarray(array), layout)
    from torch.utils import dlpack  # `medsass shard` must not import torch

    return dali.TensorGPU(dlpack.to_dlpack(array), layout)  # type: ignore[attr-defined]


def batch(samples: Sequence[Any]) -> Any:
    """Return a batch for a pipeline's input from what `tensor` gave for each sample; they need not be contiguous."""
    dali = import_dali("nvidia.dali.tensors")
    if isinstance(samples[0], dali.TensorGPU):
        return list(samples)
    return dali.TensorListCPU(list(samples), contiguous=False)


def decoder_options(depth: int) -> dict[str, Any]:
    """Return the options of DALI's image decoder for files of `depth` bits a channel.

    The decoder then gives (H, W, 3) uint8 RGB at depth 8, (H, W, 1) uint16 gray at depth 16, and (H, W, 1) uint8 gray at
    depth 1, a mask file.
    """
    types = import_dali("nvidia.dali.types")
    if depth == 1:
        return {"output_type": types.GRAY}
    if depth == 16:
        return {"output_type": types.GRAY, "dtype": types.UINT16}
    return {"output_type": types.RGB, "dtype": types.UINT8}


def decode(data: bytes | NDArray[np.uint8], depth: int = 8) -> NDArray[Any]:
    """Decode one file to pixels as described at `decoder_options`.

    Raises:
        ValueError: DALI cannot read the file.
        ImportError: DALI is not installed.
    """
    (found,) = Decoder(depth, 1)([data])
    if isinstance(found, ValueError):
        raise found
    return found.copy()


class Decoder:
    """Decoder of batches of at most `BATCH` files. Raises `ImportError` without DALI.

    DALI is C code, and some damaged files end the process: what nobody has decoded before belongs into a process of its own.

    Args:
        depth: Bits a channel, as for `decode`.
        threads: CPU threads; 0 for all cores.
    """

    def __init__(self, depth: int, threads: int) -> None:
        self._depth, self._threads = depth, threads or os.cpu_count()
        self._pipeline: Any = None

    def __call__(self, files: Sequence[bytes | NDArray[np.uint8]]) -> list[NDArray[Any] | ValueError]:
        """Return for each file its pixels or the error of `decode`. Pixels are valid until the next call."""
        try:
            self._pipeline = self._pipeline or self._build()
            self._pipeline.feed_input("files", [np.frombuffer(data, np.uint8) for data in files])
            (decoded,) = self._pipeline.run()
            return [np.asarray(decoded[i]) for i in range(len(files))]
        except RuntimeError as error:
            self._pipeline = None  # unusable after an error
            if len(files) == 1:
                return [ValueError(f"the training decoder (DALI) cannot read it: {_reason(error)}")]
        return [found if isinstance(found, ValueError) else found.copy() for data in files for found in self([data])]

    def _build(self) -> Any:
        dali, fn, types = import_dali(), import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
        pipeline = dali.Pipeline(batch_size=BATCH, num_threads=self._threads, device_id=None, prefetch_queue_depth=1)
        with pipeline:
            files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
            pipeline.set_outputs(fn.decoders.image(files, device="cpu", **decoder_options(self._depth)))
        pipeline.build()
        return pipeline


def _reason(error: RuntimeError) -> str:
    """Return what DALI says of a file, without the traceback of the pipeline."""
    text = str(error).rpartition("encountered:")[2].partition("Current pipeline object")[0]
    return " ".join((text or str(error)).split()).rstrip(" :") or "it gives no reason"
