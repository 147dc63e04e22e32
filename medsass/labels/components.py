"""Connected components of a batch of masks, as an operator of torch: `medsass::components`.

On the CPU OpenCV finds them, on the GPU `kernels/components.cu`. Both name a component by its first pixel in scan order,
so that their results are equal and do not depend on who was first.
"""

import functools

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from medsass.labels.compiler import THREADS, Variant
from medsass.labels.launch import launch, pointer

SEGMENT = 32  # pixels of a row that a warp takes
MOST_PIXELS = 1 << 27  # of an image: as for labels

_SIZES = np.dtype([(name, np.int32) for name in ("height", "width", "blocks", "diagonal")])


@torch.library.custom_op("medsass::components", mutates_args=(), schema="(Tensor mask, int connectivity) -> Tensor")
def components(mask: torch.Tensor, connectivity: int) -> torch.Tensor:
    """Of each foreground pixel the component that it belongs to, by the smallest index of the component's pixels.

    mask: (N, H, W) uint8, foreground where it is not 0. connectivity: 4 (pixels that share a side) or 8 (or a corner).
    Returns (N, H, W) int32: an index y * W + x into the pixel's own image, -1 where the mask is 0.
    Raises `ValueError` for another connectivity, shape or type.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8; got {connectivity}")
    if mask.ndim != 3 or mask.dtype != torch.uint8 or not 0 < mask[0].numel() <= MOST_PIXELS:
        raise ValueError(
            f"mask must be (N, H, W) uint8 of 1 to {MOST_PIXELS} pixels an image; got {tuple(mask.shape)}, {mask.dtype}"
        )
    if mask.is_cuda:
        return _on_gpu(mask.contiguous(), connectivity)
    return torch.from_numpy(np.stack([_of_image(image, connectivity) for image in mask.numpy()]))


@components.register_fake
def _(mask: torch.Tensor, connectivity: int) -> torch.Tensor:  # noqa: ARG001
    return mask.new_empty(mask.shape, dtype=torch.int32)


def _of_image(mask: NDArray[np.uint8], connectivity: int) -> NDArray[np.int32]:
    labels, first = numbered(mask, connectivity)
    found: NDArray[np.int32] = first[labels]
    return found


def numbered(mask: NDArray[np.uint8], connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Components of one mask (H, W) by number: (H, W) int32, 0 on the ground, and of each number the smallest index of its
    pixels, -1 of the ground.
    """
    count, found = cv2.connectedComponents(np.ascontiguousarray(mask), connectivity=connectivity, ltype=cv2.CV_32S)
    labels = np.asarray(found, np.int32)
    first = np.empty(count, np.int32)
    first[labels.ravel()[::-1]] = np.arange(mask.size - 1, -1, -1, dtype=np.int32)  # the last one that is written stays
    first[0] = -1
    return labels, first


def _on_gpu(mask: torch.Tensor, connectivity: int) -> torch.Tensor:
    count, height, width = mask.shape
    device, stream = mask.device.index, torch.cuda.current_stream(mask.device).cuda_stream
    labels = torch.empty(mask.shape, dtype=torch.int32, device=mask.device)
    blocks = blocks_of(height, width)
    sizes = np.array((height, width, blocks, int(connectivity == 8)), _SIZES)
    kernel = functools.partial(launch, Variant("components.cu", 1), device, stream, (count * blocks,))
    for name in ("begin", "join", "flatten"):
        kernel(name, 0, (pointer(mask), pointer(labels), sizes))
    return labels


def blocks_of(height: int, width: int) -> int:
    """Blocks an image: a warp for every `SEGMENT` pixels of a row, the last of a row incomplete."""
    return -(-height * -(-width // SEGMENT) * SEGMENT // THREADS)
