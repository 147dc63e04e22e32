"""DALI's tensors from arrays and back to torch, without a copy: each keeps the memory of the other alive."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import dlpack

from medsass.data.dali import import_dali

_LAYOUT = {1: "", 3: "HWC"}


def batch(tensors: Sequence[Any]) -> Any:
    """A batch for a pipeline's input from the tensors of its samples, which are `tensor`'s and lie anywhere."""
    if isinstance(tensors[0], _module().TensorGPU):
        return list(tensors)
    return _module().TensorListCPU(list(tensors), contiguous=False)


def rows(array: NDArray[np.float32]) -> Any:
    """A batch for a pipeline's input from (N, K) float32: of each sample a row."""
    return _module().TensorListCPU(array)


def tensor(array: NDArray[Any] | torch.Tensor) -> Any:
    """A sample for a pipeline: an encoded file (n,), or a decoded one (H, W, C), on the CPU or on the GPU."""
    layout = _LAYOUT[array.ndim]
    if isinstance(array, torch.Tensor) and array.is_cuda:
        return _module().TensorGPU(dlpack.to_dlpack(array), layout)  # type: ignore[attr-defined]
    return _module().TensorCPU(np.asarray(array), layout)


def split(outputs: Any) -> list[torch.Tensor]:
    """The samples of a pipeline's output, which may be of different sizes."""
    return [dlpack.from_dlpack(outputs[index]) for index in range(len(outputs))]


def whole(outputs: Any) -> torch.Tensor:
    """(N, ...) the samples of a pipeline's output, which are of one size."""
    return dlpack.from_dlpack(outputs.as_tensor())


def _module() -> Any:
    return import_dali("nvidia.dali.tensors")
