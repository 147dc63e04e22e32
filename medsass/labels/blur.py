"""Gaussian smoothing of gray images, in whole numbers, so that every device gives the same pixels.

Weights along each axis are whole numbers that sum to 4096. A sum of 8-bit levels over both axes stays below 2^32, where
float64 and 32 unsigned bits are exact in any order; the one rounding comes last. `by_shifts` says it plainly; on the
CPU OpenCV does it, on the GPU `kernels/blur.cu`.
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from medsass.labels.compiler import THREADS, Variant
from medsass.labels.launch import launch, pointer

WHOLE = 4096


@functools.cache
def weights(sigma: float) -> tuple[int, ...]:
    """2 r + 1 whole numbers that sum to 4096, r = max(1, round(3 sigma)): a Gaussian whose running sum, from the middle to
    either side, is rounded. So errors do not add up: no part of the weight is off by more than 1 in 4096.
    """
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    kernel[0] /= 2
    sums = np.rint(np.cumsum(kernel) / kernel.sum() * (WHOLE // 2)).astype(int)
    side = np.diff(sums).tolist()
    return (*side[::-1], 2 * int(sums[0]), *side)


def blur(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    """(N, H, W) uint8 smoothed with a Gaussian of `sigma` pixels, edges mirrored about their middle (OpenCV's default)."""
    return _BLUR.get(gray.device.type, by_shifts)(gray, sigma)


def by_shifts(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    """`blur` in operators of torch: a sum of shifted images."""
    sums = _along(_along(gray.long(), weights(sigma), 1), weights(sigma), 2)
    return ((sums + WHOLE**2 // 2) >> 24).byte()


def _along(values: torch.Tensor, weights: tuple[int, ...], axis: int) -> torch.Tensor:
    size, radius = values.shape[axis], len(weights) // 2
    padded = values.index_select(axis, mirrored(size, radius, values.device))
    result = values * weights[radius]
    for away, weight in enumerate(weights[radius + 1 :], 1):
        if weight:
            pair = padded.narrow(axis, radius - away, size) + padded.narrow(axis, radius + away, size)
            result.add_(pair, alpha=weight)
    return result


def mirrored(size: int, radius: int, device: torch.device) -> torch.Tensor:
    """(size + 2 radius) int64: what stands at -radius, ..., size + radius - 1 where edges are mirrored about their middle."""
    period = max(1, 2 * (size - 1))
    index = torch.arange(-radius, size + radius, device=device) % period
    return torch.minimum(index, period - index) if size > 1 else index


def _by_opencv(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    kernel = np.array(weights(sigma), np.float64)
    return torch.from_numpy(np.stack([_smoothed(image, kernel) for image in gray.numpy()]))


def _smoothed(gray: NDArray[np.uint8], kernel: NDArray[np.float64]) -> NDArray[np.uint8]:
    sums = cv2.sepFilter2D(gray, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return ((sums.astype(np.uint32) + np.uint32(WHOLE**2 // 2)) >> 24).astype(np.uint8)


def _on_gpu(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    gray = gray.contiguous()
    device, stream = gray.device.index, torch.cuda.current_stream(gray.device).cuda_stream
    sums, smooth = torch.empty(gray.shape, dtype=torch.int32, device=gray.device), torch.empty_like(gray)
    sizes = np.array((*gray.shape[1:], len(weights(sigma)) // 2, gray.numel()), _SIZES)
    kernel = functools.partial(launch, Variant("blur.cu", 1), device, stream, (-(-gray.numel() // THREADS),))
    kernel("across", 0, (pointer(gray), pointer(sums), pointer(_weights(sigma, device)), sizes))
    kernel("down", 0, (pointer(sums), pointer(smooth), pointer(_weights(sigma, device)), sizes))
    return smooth


_SIZES = np.dtype(
    [("height", np.int32), ("width", np.int32), ("radius", np.int32), ("pixels", np.uint64)], align=True
)  # as the kernel's compiler lays them out


@functools.cache
def _weights(sigma: float, device: int) -> torch.Tensor:
    """From the middle outwards, kept on the device: a CUDA graph that is being recorded must not copy them."""
    half = weights(sigma)[len(weights(sigma)) // 2 :]
    return torch.tensor(half, dtype=torch.int32, device=f"cuda:{device}")


_BLUR: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {"cpu": _by_opencv, "cuda": _on_gpu}
