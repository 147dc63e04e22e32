"""The network's input that is made together with the labels."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medsass.labels import threshold as spec

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Normalise:
    """A request for the network's input: (x / 255 - mean) / std of each channel, as `dtype`.

    mean, std: three numbers each, for red, green and blue. Raises `ValueError` for other lengths, a std of 0 or another
    dtype.
    """

    mean: Sequence[float]
    std: Sequence[float]
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise ValueError(f"mean and std must be three numbers each, std not 0; got {self.mean}, {self.std}")
        if self.dtype not in DTYPES:
            raise ValueError(f"the input's dtype must be bfloat16, float16 or float32; got {self.dtype}")


def normalised(images: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> torch.Tensor:
    """Normalise (N, H, W, 3) or (N, H, W) uint8 to (N, 3, H, W) of `dtype`, channels-last in memory.

    The values are those of `threshold.normalised`; a gray channel stands for all three.
    """
    scale, shift = _constants(tuple(mean), tuple(std), images.device)
    rgb = images if images.ndim == 4 else images.unsqueeze(-1)
    return (rgb * scale + shift).to(dtype).permute(0, 3, 1, 2)


@functools.cache
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Cached on the device: a CUDA graph that is being captured must not copy them from the host."""
    return tuple(torch.from_numpy(constant).to(device) for constant in spec.scale_and_shift(mean, std))
