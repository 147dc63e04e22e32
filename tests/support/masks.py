"""Masks for tests of components and morphology: hard patterns, random blobs and hypothesis strategies."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
SHAPES = [(1, 1), (1, 7), (7, 1), (1, 65), (65, 1), (2, 2), (16, 32), (33, 31), (31, 67), (40, 64), (37, 100)]
KINDS = ("empty", "full", "checkerboard", "stripes", "comb", "spiral", "snake", "diagonals", "sparse", "half", "dense")


def spiral(height: int, width: int) -> Mask:
    """Draw a path one pixel wide that winds inwards with a gap of one: a single component of both connectivities."""
    mask = np.zeros((height, width), np.uint8)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = 1
    while True:
        for _ in range(2):  # straight on, else one turn to the right
            ny, nx, my, mx = y + dy, x + dx, y + 2 * dy, x + 2 * dx
            inside = 0 <= ny < height and 0 <= nx < width
            if inside and not (0 <= my < height and 0 <= mx < width and mask[my, mx]) and not mask[ny, nx]:
                break
            dy, dx = dx, -dy
        else:
            return mask
        y, x = ny, nx
        mask[y, x] = 1


def make(kind: str, shape: tuple[int, int], seed: int = 0) -> Mask:
    """Make the mask of a kind: (H, W) uint8 in {0, 1}."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    dice = rng.random(shape)
    made = {
        "empty": y < 0,
        "full": y >= 0,
        "checkerboard": (y + x) % 2 == 0,
        "stripes": x % 2 == 0,
        "comb": (x % 2 == 0) | (y == shape[0] - 1),  # teeth that meet in the last row alone
        "spiral": spiral(*shape) > 0,
        "snake": (y % 2 == 0) | (x == np.where(y % 4 == 1, shape[1] - 1, 0)),
        "diagonals": (y + x) % 3 == 0,
        "sparse": dice < 0.2,
        "half": dice < 0.5,
        "dense": dice < 0.62,
    }
    return made[kind].astype(np.uint8)


def blobs(shape: tuple[int, int], seed: int) -> Mask:
    """Draw round pieces of many sizes, some with holes, some at the border: (H, W) uint8 in {0, 1}."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    mask = np.zeros(shape, np.uint8)
    for _ in range(int(rng.integers(1, 9))):
        away = np.hypot(y - rng.integers(0, shape[0]), x - rng.integers(0, shape[1]))
        radius = rng.uniform(1, max(2, min(shape) / 4))
        mask ^= ((away < radius) & (away > radius * rng.choice([-1, 0.5]))).astype(np.uint8)
    return mask


@st.composite
def masks(draw: st.DrawFn, most: int = 48) -> Mask:
    """Draw a mask of any kind and shape."""
    shape = (draw(st.integers(1, most)), draw(st.integers(1, most)))
    seed = draw(st.integers(0, 2**32 - 1))
    kind = draw(st.sampled_from(("blobs", *KINDS)))
    return blobs(shape, seed) if kind == "blobs" else make(kind, shape, seed)


@st.composite
def batches(draw: st.DrawFn, most: int = 40) -> Mask:
    """Draw one to four masks of one shape: (N, H, W) uint8 in {0, 1}."""
    shape = (draw(st.integers(1, most)), draw(st.integers(1, most)))
    seeds = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4))
    kinds = [draw(st.sampled_from(("blobs", *KINDS))) for _ in seeds]
    return np.stack(
        [blobs(shape, s) if kind == "blobs" else make(kind, shape, s) for kind, s in zip(kinds, seeds, strict=True)]
    )
