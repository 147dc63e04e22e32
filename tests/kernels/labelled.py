"""Images for the labelling kernels, and their labels by the NumPy statements in threshold.py."""

import ctypes
import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import threshold as spec
from tests.support import emulation as em

GHT = {
    "otsu": (1e60, 1e-15, 0.0, 0.0),
    "minimum error": (0.0, 0.0, 0.0, 0.5),
    "documents": (2**29.5, 2**3.125, 2**22.25, 2**-3.25),
    "between": (2.0**10, 5.0, 30.0, 0.4),
}
POLARITIES = ("bright", "dark", "auto")
LAYOUTS = ((1, True), (2, True), (3, True), (7, True), (1, False), (3, False))  # parts an image, read once
KINDS = ("uniform", "bimodal", "two levels", "mostly black", "sparse", "black", "white", "constant", "narrow")


def draw(kind: str, shape: tuple[int, int], rng: np.random.Generator, top: int = 255) -> NDArray[np.int64]:
    """Draw (H, W) levels in [0, top]."""
    bimodal = np.where(rng.random(shape) < 0.3, rng.normal(0.7, 0.08, shape), rng.normal(0.25, 0.08, shape))
    anything = rng.integers(0, top + 1, shape)
    images = {
        "uniform": anything,
        "bimodal": (bimodal * top).clip(0, top),
        "two levels": rng.choice(rng.integers(0, top + 1, 2), shape),
        "mostly black": np.where(rng.random(shape) < 0.05, anything, 0),
        "sparse": rng.choice(rng.integers(0, top + 1, 5), shape),
        "black": np.zeros(shape),
        "white": np.full(shape, top),
        "constant": np.full(shape, 1 + rng.integers(0, top)),
        "narrow": top // 3 + rng.integers(0, 40, shape),
    }
    return images[kind].astype(np.int64)


def image_of(kind: str, shape: tuple[int, int], rng: np.random.Generator, form: str) -> NDArray[Any]:
    """Draw an image of a kind as "rgb" (H, W, 3) uint8, "gray" (H, W) uint8 or "gray16" (H, W) uint16."""
    if form == "gray16":
        return draw(kind, shape, rng, int(rng.choice([300, 4095, 65535]))).astype(np.uint16)
    levels = draw(kind, shape, rng).astype(np.uint8)
    if form == "gray":
        return levels
    if kind in ("black", "white") or rng.random() < 0.4:
        return np.repeat(levels[..., None], 3, axis=2)
    return rng.integers(0, 256, (256, 3)).astype(np.uint8)[levels]


SIDES = st.one_of(st.integers(1, 60), st.sampled_from([1, 2, 15, 16, 17, 31, 33]))


@st.composite
def batches(draw_from: st.DrawFn, form: str, most: int = 3) -> NDArray[Any]:
    kinds = draw_from(st.lists(st.sampled_from(KINDS), min_size=1, max_size=most))
    shape, rng = (draw_from(SIDES), draw_from(SIDES)), np.random.default_rng(draw_from(st.integers(0, 2**32 - 1)))
    return np.stack([image_of(kind, shape, rng, form) for kind in kinds])


def _ght(counts: spec.Histogram, parameters: Sequence[float], found: float) -> float:
    """Return GHT's threshold as stated, or `found` if only the last bit of a logarithm decides between the two.

    The C library's and NumPy's logarithms may differ in the last bit. Where thresholds differ there must be several
    levels whose stated scores are within 1e-12 of the best, and `found`, a mean of such levels, lies between them.
    """
    stated, scores = spec.ght(counts, *parameters), spec.ght_scores(counts, *parameters)
    if found == stated:
        return stated
    near = np.flatnonzero(scores >= scores.max() - 1e-12 * abs(scores.max()))
    assert near.size > 1, f"threshold {found}, stated {stated}: no tie"
    assert near.min() <= found <= near.max()
    return found


def stated(
    image: NDArray[Any], polarity: str, ght: Sequence[float] | None, found: float
) -> tuple[spec.Gray, float, float]:
    """Return mask, threshold and separability as threshold.py states them; `found` only settles GHT's ties."""
    gray, low, span = spec.gray(image) if image.ndim == 3 else image, 0, spec.LEVELS
    if gray.min() == gray.max():
        return np.zeros(gray.shape, np.uint8), 0.0, 0.0
    if gray.dtype == np.uint16:
        gray, low, span = spec.bins(gray)
    counts = spec.histogram(gray)
    level: float = spec.otsu(counts)
    if ght:
        level = spec.ght(counts, *ght)
        stated_level = spec.level_of_bin(level, low, span) if image.dtype == np.uint16 else level
        if found != np.float32(stated_level):
            level = _ght(counts, ght, (int(found) - low) * 256 // span if image.dtype == np.uint16 else found)
    threshold = spec.level_of_bin(level, low, span) if image.dtype == np.uint16 else level
    share = spec.separability(counts, math.floor(level))
    return spec.foreground(gray > math.floor(level), polarity), threshold, share


def check(images: NDArray[Any], polarity: str, ght: Sequence[float] | None, result: Any) -> None:
    """Check that masks and thresholds are as stated, and separabilities within two units of a float32's last place."""
    for image, mask, threshold, share in zip(images, result.mask, result.threshold, result.separability, strict=True):
        wanted_mask, wanted_threshold, wanted_share = stated(image, polarity, ght, float(threshold))
        assert threshold == np.float32(wanted_threshold)
        assert abs(float(share) - wanted_share) <= 2 * np.spacing(np.float32(wanted_share))
        assert np.array_equal(mask, wanted_mask)


def label_and_check(
    images: NDArray[Any], polarity: str, ght: Sequence[float] | None = None, layout: tuple[int, bool] = (1, True)
) -> em.Result:
    result = em.label(images, polarity, ght, 0, layout[0], once=layout[1])
    check(images, polarity, ght, result)
    return result


def between_walls(images: NDArray[Any], last: bool) -> NDArray[Any]:
    """Copy to right before (`last`) or right after a page of memory that kills the process when it is read."""
    page, size = mmap.PAGESIZE, -(-images.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + 2 * page)
    everything = np.frombuffer(memory, np.uint8)
    for wall in (0, page + size):
        code = ctypes.CDLL(None).mprotect(ctypes.c_void_p(everything.ctypes.data + wall), ctypes.c_size_t(page), 0)
        assert code == 0
    start = page + (size - images.nbytes if last else 0)
    copy = everything[start : start + images.nbytes].view(images.dtype).reshape(images.shape)
    copy[:] = images
    return copy


def at_offset(images: NDArray[Any], offset: int) -> NDArray[Any]:
    """Copy to an address `offset` bytes after a 16-byte boundary."""
    buffer = np.zeros(images.nbytes + 32, np.uint8)
    start = -buffer.ctypes.data % 16 + offset
    copy = buffer[start : start + images.nbytes].view(images.dtype).reshape(images.shape)
    copy[:] = images
    assert copy.ctypes.data % 16 == offset
    return copy
