"""Connected components of a batch of masks, as an operator of torch: `medsass::components`.

The CPU uses OpenCV, a GPU `kernels/components.cu`. Both name a component by its first pixel in scan order, so the results
are equal and do not depend on the order in which threads run.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from medsass.labels.compiler import THREADS, Variant, launch, pointer

SEGMENT = 32  # pixels of a row that a warp takes
MOST_PIXELS = 1 << 27  # of an image: as for labels

_SIZES = np.dtype([(name, np.int32) for name in ("height", "width", "blocks", "diagonal")])


@torch.library.custom_op("medsass::components", mutates_args=(), schema="(Tensor mask, int connectivity) -> Tensor")
def components(mask: torch.Tensor, connectivity: int) -> torch.Tensor:
    """Label each foreground pixel with the smallest pixel index of its component.

    Args:
        mask: (N, H, W) uint8, foreground where it is not 0.
        connectivity: 4 (pixels that share a side) or 8 (a side or a corner).

    Returns:
        (N, H, W) int32: an index y * W + x into the pixel's own image, -1 where the mask is 0.

    Raises `ValueError` for another connectivity, shape or type.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8; got {connectivity}")
    if mask.ndim != 3 or mask.dtype != torch.uint8 or not 0 < mask[0].numel() <= MOST_PIXELS:
        raise ValueError(
            f"mask must be (N, H, W) uint8 of 1 to {MOST_PIXELS} pixels an image; got {tuple(mask.shape)}, {mask.dtype}"
        )
    if not mask.is_cuda:
        found = [numbered(image, connectivity) for image in mask.numpy()]
        return torch.from_numpy(np.stack([first[labels] for labels, first in found]))
    mask = mask.contiguous()
    labels = torch.empty(mask.shape, dtype=torch.int32, device=mask.device)
    count, height, width = mask.shape
    blocks = blocks_per_image(height, width)
    where = mask.device.index, torch.cuda.current_stream(mask.device).cuda_stream
    sizes = np.array((height, width, blocks, int(connectivity == 8)), _SIZES)
    for name in ("begin", "join", "flatten"):
        launch(Variant("components.cu", 1), name, where, (count * blocks,), (pointer(mask), pointer(labels), sizes))
    return labels


components.register_fake(lambda mask, _: mask.new_empty(mask.shape, dtype=torch.int32))


def numbered(mask: NDArray[np.uint8], connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the number of each pixel's component, (H, W) int32, and the first pixel's index of each number.

    The background is number 0 and has the index -1.
    """
    count, found = cv2.connectedComponents(np.ascontiguousarray(mask), connectivity=connectivity, ltype=cv2.CV_32S)
    labels = np.asarray(found, np.int32)
    first = np.empty(count, np.int32)
    first[labels.ravel()[::-1]] = np.arange(mask.size - 1, -1, -1, dtype=np.int32)  # the last write wins
    first[0] = -1
    return labels, first


def blocks_per_image(height: int, width: int) -> int:
    """Return the CUDA blocks an image needs: a warp for every `SEGMENT` pixels of a row, the last of a row incomplete."""
    return -(-height * -(-width // SEGMENT) * SEGMENT // THREADS)
