"""The decoder that training uses on the CPU, so that a file it cannot read never reaches a shard.

One corrupt sample ends a DALI pipeline for good, and it cannot be skipped there. So images are decoded here in batches,
at the speed of all cores; where a batch fails, its images are decoded one by one in DALI's eager mode, in which a bad
file raises alone.
"""

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 32


def import_dali(module: str = "nvidia.dali") -> Any:
    """Import a module of DALI. Raises `ImportError` that says which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            "this command needs NVIDIA DALI, also on the CPU: "
            "pip install 'medsass[cuda13]' (or 'medsass[cuda12]' where the driver is of CUDA 12)"
        ) from error


def options(depth: int) -> dict[str, Any]:
    """Of DALI's image decoder: (H, W, 3) uint8 RGB at depth 8, (H, W, 1) uint16 gray at depth 16."""
    types = import_dali("nvidia.dali.types")
    if depth == 16:
        return {"output_type": types.GRAY, "dtype": types.UINT16}
    return {"output_type": types.RGB, "dtype": types.UINT8}


def mask_options() -> dict[str, Any]:
    """Of DALI's image decoder: (H, W, 1) uint8."""
    return {"output_type": import_dali("nvidia.dali.types").GRAY}


def decode(data: bytes | NDArray[np.uint8], depth: int = 8) -> NDArray[Any]:
    """(H, W, 3) uint8 RGB, or (H, W, 1) uint16 at depth 16, by DALI's CPU decoder.

    Raises `ValueError` where it cannot, `ImportError` without DALI.
    """
    return _decode(data, options(depth))


def decode_mask(data: bytes | NDArray[np.uint8]) -> NDArray[Any]:
    """(H, W, 1) uint8, by DALI's CPU decoder. Raises as `decode` does."""
    return _decode(data, mask_options())


def _decode(data: bytes | NDArray[np.uint8], chosen: dict[str, Any]) -> NDArray[Any]:
    dynamic = import_dali("nvidia.dali.experimental.dynamic")
    try:
        encoded = dynamic.as_tensor(np.frombuffer(data, np.uint8))
        return np.asarray(dynamic.decoders.image(encoded, device="cpu", **chosen))
    except RuntimeError as error:
        text = " ".join(str(error).split()).rstrip(" :")
        raise ValueError(f"the training decoder (DALI) cannot read it: {text}") from error


class Decoder:
    """Decodes batches of at most `BATCH` files. Raises `ImportError` without DALI."""

    def __init__(self, depth: int, threads: int) -> None:
        self._depth, self._threads = depth, threads or os.cpu_count()
        self._pipeline: Any = None

    def __call__(self, files: Sequence[bytes]) -> list[NDArray[Any] | ValueError]:
        """For each file its pixels as `decode` gives them, or why there are none. They are valid until the next call."""
        try:
            self._pipeline = self._pipeline or self._build()
            self._pipeline.feed_input("files", [np.frombuffer(data, np.uint8) for data in files])
            (decoded,) = self._pipeline.run()
            return [np.asarray(decoded[i]) for i in range(len(files))]
        except RuntimeError:
            self._pipeline = None  # after an error it is of no use
            return [self._alone(data) for data in files]

    def _alone(self, data: bytes) -> NDArray[Any] | ValueError:
        try:
            return decode(data, self._depth)
        except ValueError as error:
            return error

    def _build(self) -> Any:
        dali, fn, types = import_dali(), import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")

        @dali.pipeline_def  # type: ignore[untyped-decorator]
        def define() -> Any:
            files = fn.external_source(name="files", dtype=types.UINT8, ndim=1)
            return fn.decoders.image(files, device="cpu", **options(self._depth))

        pipeline = define(batch_size=BATCH, num_threads=self._threads, device_id=None, prefetch_queue_depth=1)
        pipeline.build()
        return pipeline
