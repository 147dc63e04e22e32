"""Gaussian smoothing of gray images in integer arithmetic, so that every device computes the same pixels.

The weights along each axis are integers that sum to 4096. A sum of 8-bit levels over both axes stays below 2^32, where
float64 and 32 unsigned bits are exact in any order of summation; the only rounding is the last step. `by_shifts` is the
plain statement; the CPU uses OpenCV, a GPU `kernels/blur.cu`.
"""

import functools

import cv2
import numpy as np
import torch

from medsass.labels.compiler import THREADS, Variant, launch, pointer

ONE = 4096  # sum of the weights along an axis
# Aligned as the kernel's compiler lays the struct out.
_SIZES = np.dtype([("height", np.int32), ("width", np.int32), ("radius", np.int32), ("pixels", np.uint64)], align=True)


@functools.cache
def weights(sigma: float) -> tuple[int, ...]:
    """Return the 2 r + 1 integer weights of a Gaussian, which sum to 4096, with r = max(1, round(3 sigma)).

    The running sum from the middle outwards is rounded, not each weight, so that errors do not add up: the weight of any
    interval is off by at most 1 in 4096.
    """
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    kernel[0] /= 2
    sums = np.rint(np.cumsum(kernel) / kernel.sum() * (ONE // 2)).astype(int)
    side = np.diff(sums).tolist()
    return (*side[::-1], 2 * int(sums[0]), *side)


def blur(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth (N, H, W) uint8 images by a Gaussian of `sigma` pixels; edges are mirrored about the middle of the
    outermost pixel (OpenCV's default).
    """
    if gray.is_cuda:
        return _on_gpu(gray.contiguous(), sigma)
    if gray.device.type != "cpu":
        return by_shifts(gray, sigma)
    kernel, smooth = np.array(weights(sigma), np.float64), []
    for image in gray.numpy():
        sums = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
        smooth.append(((sums.astype(np.uint32) + np.uint32(ONE**2 // 2)) >> 24).astype(np.uint8))
    return torch.from_numpy(np.stack(smooth))


def by_shifts(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    """Compute `blur` as a sum of shifted images, in operators of torch."""
    radius, sums = len(weights(sigma)) // 2, gray.long()
    for axis in (1, 2):
        size = gray.shape[axis]
        period = max(1, 2 * (size - 1))
        index = torch.arange(-radius, size + radius, device=gray.device) % period
        padded = sums.index_select(axis, torch.minimum(index, period - index) if size > 1 else index)
        sums = sums * weights(sigma)[radius]
        for distance, weight in enumerate(weights(sigma)[radius + 1 :], 1):
            if weight:
                pair = padded.narrow(axis, radius - distance, size) + padded.narrow(axis, radius + distance, size)
                sums.add_(pair, alpha=weight)
    return ((sums + ONE**2 // 2) >> 24).byte()


def _on_gpu(gray: torch.Tensor, sigma: float) -> torch.Tensor:
    device, stream = gray.device.index, torch.cuda.current_stream(gray.device).cuda_stream
    sums, smooth = torch.empty(gray.shape, dtype=torch.int32, device=gray.device), torch.empty_like(gray)
    half = pointer(_half(sigma, device))
    sizes = np.array((*gray.shape[1:], len(weights(sigma)) // 2, gray.numel()), _SIZES)
    variant, where, grid = Variant("blur.cu", 1), (device, stream), (-(-gray.numel() // THREADS),)
    launch(variant, "across", where, grid, (pointer(gray), pointer(sums), half, sizes))
    launch(variant, "down", where, grid, (pointer(sums), pointer(smooth), half, sizes))
    return smooth


@functools.cache
def _half(sigma: float, device: int) -> torch.Tensor:
    """Weights from the middle outwards, cached on the device: a CUDA graph that is being captured must not copy them."""
    return torch.tensor(weights(sigma)[len(weights(sigma)) // 2 :], dtype=torch.int32, device=f"cuda:{device}")
