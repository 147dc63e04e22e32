"""Prediction of a large image in overlapping tiles, blended without seams, while only a band of it is in memory.

The tiles form a product grid, so a tile's weight is that of its rows times that of its columns, and each of the two can be
made to sum to one by itself: the blend needs no second sum to divide by, and where the network gives the same answer for
all tiles, that is the result.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import geometry
from medsass.data.formats.geometry import Box

Read = Callable[[Box], NDArray[Any]]  # a box -> (h, w, 3) uint8 RGB or (h, w) uint16; called from several threads
Network = Callable[[NDArray[Any]], NDArray[np.float32]]  # a stack of n of these -> (n, h, w) float32 in [0, 1]

_BATCH, _BATCH_PIXELS = 32, 1 << 23  # most tiles a step; fewer where they are large


def stride(tile: int, overlap: float) -> int:
    """Return the pixels from one tile to the next, at least 1, for tiles of `tile` pixels that share `overlap` of their side."""
    return max(1, round(tile * (1 - overlap)))


def weights(length: int, tile: int, step: int) -> list[NDArray[np.float32]]:
    """Return the weights of each tile along an axis of `length` pixels, (min(tile, length),) float32 in (0, 1] for each.

    A raised cosine over the tile, divided by the sum of all tiles at each pixel: at its edge a tile's weight is near 0
    where another one reaches, and 1 where none does.
    """
    side, first = min(tile, length), geometry.starts(length, tile, step)
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    for start in first:
        total[start : start + side] += window
    return [(window / total[start : start + side]).astype(np.float32) for start in first]


def bands(
    read: Read, network: Network, shape: tuple[int, int], tile: int, overlap: float
) -> Generator[NDArray[np.float32]]:
    """Yield the foreground probability of an image, from top to bottom in bands of (rows, W) float32.

    Tiles are read one batch ahead of the network. In memory are at most two bands of min(tile, H) rows and two batches of
    tiles, whatever H is.

    Args:
        read: reads a box of the image.
        network: predicts a stack of tiles.
        shape: (H, W) of the image.
        tile: side of the tiles in pixels; they are smaller where the image is.
        overlap: share of a tile's side that it has in common with the next one.
    """
    height, width = shape
    side, step = min(tile, height), stride(tile, overlap)
    rows, columns = geometry.starts(height, tile, step), geometry.starts(width, tile, step)
    down = dict(zip(rows, weights(height, tile, step), strict=True))
    across = dict(zip(columns, weights(width, tile, step), strict=True))
    below = dict(zip(rows, [*rows[1:], height], strict=True))
    held = np.zeros((side, width), np.float32)
    batch = max(1, min(_BATCH, _BATCH_PIXELS // (side * min(tile, width))))
    for box, chance in _predicted(read, network, geometry.grid(height, width, tile, step), batch):
        held[:, box.x : box.x + box.width] += chance * down[box.y][:, None] * across[box.x]
        if box.x == columns[-1]:
            done = below[box.y] - box.y
            yield held[:done].copy()
            held[: side - done] = held[done:]
            held[side - done :] = 0


def _predicted(
    read: Read, network: Network, boxes: Iterable[Box], batch: int
) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Each box with the network's answer; threads read the next batch while the network works on one."""
    boxes, waiting = iter(boxes), deque[list[tuple[Box, Future[NDArray[Any]]]]]()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while True:
            group = [(box, pool.submit(read, box)) for box in islice(boxes, batch)]
            waiting += [group] if group else []
            if not waiting:
                return
            if len(waiting) > 1 or not group:
                ready = waiting.popleft()
                chances = network(np.stack([image.result() for _, image in ready]))
                yield from zip((box for box, _ in ready), chances, strict=True)
