"""Conversion of arrays to DALI's tensors and of DALI's outputs to torch, without a copy: the memory is shared."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import dlpack

from medsass.data.dali import import_dali

_LAYOUT = {1: "", 3: "HWC"}


def tensor(array: NDArray[Any] | torch.Tensor) -> Any:
    """Return one sample as DALI's tensor: an encoded file (n,) or pixels (H, W, C), on the CPU or on the GPU."""
    dali, layout = import_dali("nvidia.dali.tensors"), _LAYOUT[array.ndim]
    if isinstance(array, torch.Tensor) and array.is_cuda:
        return dali.TensorGPU(dlpack.to_dlpack(array), layout)  # type: ignore[attr-defined]
    return dali.TensorCPU(np.asarray(array), layout)


def batch(samples: Sequence[Any]) -> Any:
    """Return a batch for a pipeline's input from what `tensor` gave for each sample; they need not be contiguous."""
    dali = import_dali("nvidia.dali.tensors")
    if isinstance(samples[0], dali.TensorGPU):
        return list(samples)
    return dali.TensorListCPU(list(samples), contiguous=False)


def rows(array: NDArray[np.float32]) -> Any:
    """Return a batch for a pipeline's input from (N, K) float32, one row a sample."""
    return import_dali("nvidia.dali.tensors").TensorListCPU(array)


def unstack(output: Any) -> list[torch.Tensor]:
    """Return the samples of a pipeline's output; their sizes may differ."""
    return [dlpack.from_dlpack(output[index]) for index in range(len(output))]


def stack(output: Any) -> torch.Tensor:
    """Return a pipeline's output as (N, ...); its samples have one size."""
    return dlpack.from_dlpack(output.as_tensor())
