"""The kernels' own source, emulated on the CPU, against the NumPy statements in threshold.py and against OpenCV."""

import ctypes
import math
import mmap
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import cuda
from medsass.labels import threshold as spec
from tests import emulation as em

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")

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
    """(H, W) levels in [0, top]."""
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
    """An image of a kind as "rgb" (H, W, 3) uint8, "gray" (H, W) uint8 or "gray16" (H, W) uint16."""
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
    """GHT's threshold as stated, or `found` where it is one of several that the last bit of a logarithm decides between.

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
    """Mask, threshold and separability that threshold.py states; `found` settles GHT's ties only."""
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
    """Masks and thresholds equal what is stated, separabilities within two units of the last place of a float32."""
    for image, mask, threshold, share in zip(images, result.mask, result.threshold, result.separability, strict=True):
        wanted_mask, wanted_threshold, wanted_share = stated(image, polarity, ght, float(threshold))
        assert threshold == np.float32(wanted_threshold)
        assert abs(float(share) - wanted_share) <= 2 * np.spacing(np.float32(wanted_share))
        assert np.array_equal(mask, wanted_mask)


def _label_and_check(
    images: NDArray[Any], polarity: str, ght: Sequence[float] | None = None, layout: tuple[int, bool] = (1, True)
) -> em.Result:
    result = em.label(images, polarity, ght, 0, layout[0], once=layout[1])
    check(images, polarity, ght, result)
    assert not result.workspace.any()
    return result


@settings(deadline=None, max_examples=30)
@given(batches("rgb"), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
def test_otsu_of_rgb_is_as_stated(images: NDArray[np.uint8], polarity: str, layout: tuple[int, bool]) -> None:
    _label_and_check(images, polarity, layout=layout)


@settings(deadline=None, max_examples=30)
@given(batches("gray"), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
def test_otsu_of_gray_is_as_stated(images: NDArray[np.uint8], polarity: str, layout: tuple[int, bool]) -> None:
    _label_and_check(images, polarity, layout=layout)


@settings(deadline=None, max_examples=30)
@given(batches("gray16"), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
def test_otsu_of_16_bits_is_as_stated(images: NDArray[np.uint16], polarity: str, layout: tuple[int, bool]) -> None:
    _label_and_check(images, polarity, layout=layout)


@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
@pytest.mark.parametrize("parameters", GHT.values(), ids=GHT.keys())
def test_ght_is_as_stated(form: str, parameters: tuple[float, float, float, float]) -> None:
    @settings(deadline=None, max_examples=8)
    @given(batches(form, 2), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
    def holds(images: NDArray[Any], polarity: str, layout: tuple[int, bool]) -> None:
        _label_and_check(images, polarity, parameters, layout)

    holds()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_every_layout_of_blocks_is_as_stated(form: str, layout: tuple[int, bool]) -> None:
    rng = np.random.default_rng(4)
    images = np.stack([image_of(kind, (37, 53), rng, form) for kind in ("bimodal", "mostly black")])
    _label_and_check(images, "auto", layout=layout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_every_kind_of_image_is_as_stated(form: str, kind: str) -> None:
    _label_and_check(image_of(kind, (19, 34), np.random.default_rng(5), form)[None], "auto")


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 59), (59, 1), (2, 2), (3, 5), (16, 16), (31, 17)])
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_thin_and_odd_images_are_as_stated(form: str, shape: tuple[int, int]) -> None:
    _label_and_check(image_of("bimodal", shape, np.random.default_rng(6), form)[None], "auto")


@pytest.mark.parametrize("level", [0, 1, 254, 255])
@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("ght", [None, GHT["minimum error"]])
def test_constant_image_has_empty_mask(level: int, polarity: str, ght: tuple[float, ...] | None) -> None:
    result = em.label(np.full((1, 9, 11), level, np.uint8), polarity, ght)
    assert not result.mask.any()
    assert (result.threshold[0], result.separability[0]) == (0, 0)


@pytest.mark.parametrize("layout", [(1, True), (3, True), (2, False)])
def test_constant_16_bit_image_has_empty_mask(layout: tuple[int, bool]) -> None:
    result = em.label(np.full((1, 9, 11), 40_000, np.uint16), "dark", None, 0, layout[0], once=layout[1])
    assert not result.mask.any()
    assert (result.threshold[0], result.separability[0]) == (0, 0)


@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_batch_mates_do_not_matter(form: str) -> None:
    rng = np.random.default_rng(7)
    kinds = ("uniform", "black", "bimodal", "white", "mostly black")
    images = np.stack([image_of(kind, (21, 27), rng, form) for kind in kinds])
    together = em.label(images, "auto", None, 0, 2)
    for i, image in enumerate(images):
        alone = em.label(image[None], "auto", None, 0, 2)
        assert np.array_equal(alone.mask[0], together.mask[i])
        assert alone.threshold[0] == together.threshold[i]
        assert alone.separability[0] == together.separability[i]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 127), st.integers(1, 40), st.integers(1, 40))
def test_first_of_two_exact_maximisers_wins(distance: int, outer: int, inner: int) -> None:
    # levels 127 - d, 127, 127 + d, as many below as above: both cuts separate equally well
    levels = np.repeat([127 - distance, 127, 127 + distance], [outer, inner, outer]).astype(np.uint8)
    shuffled = np.random.default_rng(outer).permutation(levels)
    assert em.label(shuffled[None, None], "bright").threshold[0] == 127 - distance


@pytest.mark.parametrize("inner", [90_000 - 2 * 29_999, 90_000 - 2 * 44_999, 90_000 - 2 * 7])
def test_first_of_two_exact_maximisers_wins_with_large_counts(inner: int) -> None:
    outer = (90_000 - inner) // 2
    image = np.repeat(np.array([3, 128, 253], np.uint8), [outer, inner, outer]).reshape(1, 300, 300)
    result = em.label(image, "bright")
    assert result.threshold[0] == 3
    assert result.mask.sum() == inner + outer


@pytest.mark.parametrize("seed", range(6))
def test_first_maximiser_of_a_symmetric_histogram_wins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.integers(0, 30, 128) * (rng.random(128) < 0.1)
    half[0] += 1
    counts = np.concatenate([half, half[::-1]])
    image = np.repeat(np.arange(256), counts).astype(np.uint8)

    def between(t: int) -> Fraction:
        low, high = image[image <= t].astype(int), image[image > t].astype(int)
        if not low.size or not high.size:
            return Fraction(0)
        means = Fraction(int(low.sum()), low.size) - Fraction(int(high.sum()), high.size)
        return low.size * high.size * means**2

    values = [between(t) for t in range(256)]
    assert em.label(image[None, None], "bright").threshold[0] == values.index(max(values))


def test_ght_takes_the_mean_of_tied_maximisers() -> None:
    levels = np.repeat([99, 100, 101, 149, 150, 151], [10, 20, 10, 10, 20, 10]).astype(np.uint8)
    result = _label_and_check(levels.reshape(1, 8, 10), "bright", (100.0, 5.0, 0.0, 0.5))
    assert result.threshold[0] == (101 + 148) / 2


@pytest.mark.parametrize("span", [2, 4, 64, 128, 256])
def test_16_bit_otsu_equals_opencv_where_bins_are_levels(span: int) -> None:
    # 256 is a multiple of the span: bins are the levels, stretched evenly
    rng = np.random.default_rng(span)
    image = (900 + draw("bimodal", (48, 57), rng, span - 1)).astype(np.uint16)
    image[0, :2] = 900, 900 + span - 1
    level, above = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    result = em.label(image[None], "bright", None, 0, 2)
    assert result.threshold[0] == level
    assert np.array_equal(result.mask[0], above)


def test_16_bit_image_of_full_range_is_as_stated() -> None:
    image = np.random.default_rng(8).integers(0, 65_536, (1, 40, 41)).astype(np.uint16)
    image[0, 0, :2] = 0, 65_535
    for layout in ((1, True), (3, True), (3, False)):
        _label_and_check(image, "bright", layout=layout)


def _at_offset(images: NDArray[Any], offset: int) -> NDArray[Any]:
    """A copy whose address is `offset` bytes after a 16-byte boundary."""
    buffer = np.zeros(images.nbytes + 32, np.uint8)
    start = -buffer.ctypes.data % 16 + offset
    copy = buffer[start : start + images.nbytes].view(images.dtype).reshape(images.shape)
    copy[:] = images
    assert copy.ctypes.data % 16 == offset
    return copy


@pytest.mark.parametrize("offset", range(1, 16))
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_unaligned_images_are_as_stated(form: str, offset: int) -> None:
    image = image_of("bimodal", (13, 31), np.random.default_rng(offset), form)
    _label_and_check(_at_offset(image[None], offset), "auto")


@pytest.mark.parametrize("offset", range(2, 16, 2))
def test_unaligned_16_bit_images_are_as_stated(offset: int) -> None:
    image = image_of("bimodal", (13, 31), np.random.default_rng(offset), "gray16")
    _label_and_check(_at_offset(image[None], offset), "auto", layout=(2, True))


@pytest.mark.parametrize("layout", [(3, True), (2, False)])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_unaligned_parts_are_as_stated(form: str, layout: tuple[int, bool]) -> None:
    rng = np.random.default_rng(9)
    images = np.stack([image_of(kind, (23, 29), rng, form) for kind in ("bimodal", "uniform")])
    _label_and_check(_at_offset(images, 5), "auto", layout=layout)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("form", ["rgb", "gray"])
@pytest.mark.parametrize("offset", [0, 1, 7, 8, 15])
def test_nothing_is_written_beside_a_mask_that_lies_anywhere(form: str, offset: int, once: bool) -> None:
    images = image_of("bimodal", (11, 23), np.random.default_rng(offset), form)[None]
    n, h, w = images.shape[:3]
    buffer = np.full(n * h * w + 160, em.POISON, np.uint8)
    start = 64 + -(buffer.ctypes.data + 64) % 16 + offset
    results, workspace = np.zeros((2, n), np.float32), np.zeros(cuda.WORKSPACE_HEAD + n * cuda.SHARED_BYTES, np.uint8)
    library = em.library(cuda.Variant("label.cu", 3 if form == "rgb" else 1))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (images, buffer[start:], *results, workspace)]
    geometry, parameters = em.Geometry(h * w, h, w, 1, h * w, 0), np.zeros(4)
    tail = (ctypes.c_void_p(parameters.ctypes.data), ctypes.c_void_p(0), ctypes.c_void_p(0))
    (library.run_label if once else library.run_measure)(*pointers, n, geometry, *tail)
    mask = buffer[start : start + h * w].reshape(h, w)
    assert np.array_equal(mask, stated(images[0], "bright", None, 0)[0])
    assert (buffer[:start] == em.POISON).all()
    assert (buffer[start + h * w :] == em.POISON).all()


def _between_walls(images: NDArray[Any], last: bool) -> NDArray[Any]:
    """A copy right before (`last`) or right behind a page of memory that ends the process when it is read."""
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


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_nothing_is_read_beside_the_images(form: str, last: bool) -> None:
    images = image_of("bimodal", (17, 29), np.random.default_rng(10), form)[None]
    em.label(images, "auto")  # compiles
    child = os.fork()
    if child == 0:
        walled = _between_walls(images, last)
        for layout in ((1, True), (3, True), (2, False)):
            em.label(walled, "auto", None, 0, layout[0], once=layout[1])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def _input_bits(images: NDArray[np.uint8], kind: int) -> NDArray[Any]:
    """The bits of the normalised input as torch (bfloat16) and NumPy round it."""
    rgb = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
    values = spec.normalised(rgb, em.MEAN, em.STD)
    if kind == 1:
        return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return values.astype(np.float16).view(np.uint16) if kind == 2 else values.view(np.uint32)


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_input_is_normalised_and_rounded_as_stated(form: str, kind: int) -> None:
    @settings(deadline=None, max_examples=8)
    @given(batches(form, 2), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
    def holds(images: NDArray[np.uint8], polarity: str, layout: tuple[int, bool]) -> None:
        result = em.label(images, polarity, None, kind, layout[0], once=layout[1])
        assert result.input is not None
        wanted = _input_bits(images, kind)
        assert np.array_equal(result.input.view(wanted.dtype), wanted)
        check(images, polarity, None, result)
        assert not result.workspace.any()

    holds()


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_input_of_every_level_is_as_stated(form: str, kind: int) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    images = np.stack([levels, levels[:, ::-1], levels[:, :, ::-1]], axis=3) if form == "rgb" else levels
    for at in (images, _at_offset(images, 3)):
        result = em.label(at, "bright", GHT["minimum error"], kind)
        assert result.input is not None
        wanted = _input_bits(images, kind)
        assert np.array_equal(result.input.view(wanted.dtype), wanted)


@pytest.mark.parametrize(("kind", "base"), [(1, 256), (2, 2048)], ids=["bfloat16", "float16"])
def test_input_halfway_between_two_numbers_is_rounded_to_even(
    kind: int, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # x + base: every odd x lies halfway between two numbers of the type
    monkeypatch.setattr(em, "MEAN", (-base / 255,) * 3)
    monkeypatch.setattr(em, "STD", (1 / 255,) * 3)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    wanted = _input_bits(levels, kind)
    assert spec.normalised(levels[..., None].repeat(3, 3), em.MEAN, em.STD).max() == base + 255
    for at in (levels, _at_offset(levels, 3)):
        result = em.label(at, "bright", None, kind)
        assert result.input is not None
        assert np.array_equal(result.input.view(np.uint16), wanted)


def _share(gray: spec.Gray, above: NDArray[np.bool_]) -> float:
    """Between-class over total variance of the gray levels of two classes, in fractions."""
    levels = gray.astype(object)
    if above.all() or not above.any() or gray.min() == gray.max():
        return 0.0
    count, total = gray.size, int(levels.sum())
    variance = Fraction(int((levels**2).sum()), count) - Fraction(total, count) ** 2
    between = (
        sum(
            Fraction(int(side.sum()), count) ** 2 * Fraction(count, side.size)
            for side in (levels[above], levels[~above])
        )
        - Fraction(total, count) ** 2
    )
    return float(between / variance)


def _check_adaptive(images: NDArray[np.uint8], polarity: str, gaussian: bool, block: int, offset: float) -> None:
    result = em.adaptive(images, polarity, gaussian, block, offset)
    for i, image in enumerate(images):
        gray = spec.gray(image) if image.ndim == 3 else image
        above = (spec.adaptive_gaussian if gaussian else spec.adaptive_mean)(gray, block, offset).astype(bool)
        constant = gray.min() == gray.max()
        wanted = np.zeros(gray.shape, np.uint8) if constant else spec.foreground(above, polarity)
        assert np.array_equal(result.mask[i], wanted)
        share = _share(gray, above)
        assert abs(float(result.separability[i]) - share) <= 2 * np.spacing(np.float32(share))
        assert np.isnan(result.threshold[i])


@pytest.mark.parametrize("gaussian", [False, True], ids=["mean", "gaussian"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_adaptive_is_as_stated(form: str, gaussian: bool) -> None:
    @settings(deadline=None, max_examples=40)
    @given(batches(form), st.sampled_from(POLARITIES), st.integers(1, 25), st.floats(-40, 40))
    def holds(images: NDArray[np.uint8], polarity: str, half: int, offset: float) -> None:
        _check_adaptive(images, polarity, gaussian, 2 * half + 1, offset)

    holds()


@pytest.mark.parametrize("gaussian", [False, True], ids=["mean", "gaussian"])
@pytest.mark.parametrize("block", [3, 51, 255])
def test_adaptive_of_any_block_size_is_as_stated(block: int, gaussian: bool) -> None:
    image = image_of("bimodal", (35, 33), np.random.default_rng(block), "gray")
    _check_adaptive(image[None], "auto", gaussian, block, 2.0)


@pytest.mark.parametrize("offset", [-7.0, -0.3, 0.0, 0.5, 3.7])
@pytest.mark.parametrize("block", [3, 11, 51])
def test_adaptive_mean_equals_opencv(block: int, offset: float) -> None:
    image = image_of("bimodal", (45, 70), np.random.default_rng(block), "gray")
    above = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, offset)
    assert np.array_equal(em.adaptive(image[None], "bright", False, block, offset).mask[0], above)


REAL = {
    "chest X-ray": "covid19_radiography/**/images/*.png",
    "nuclei": "dsb2018/stage1_train/*/images/*.png",
    "skin": "isic2017/**/*_Data/**/*.jpg",
    "stained nuclei": "bitdepth_nucseg/images/*",
    "16-bit nuclei": "bitdepth_nucseg/images_16bit/*",
    "whole slide": "whole_slide/CMU-1-Small-Region.svs",
}


def _real_images(folder: Path, name: str) -> list[NDArray[Any]]:
    """Two images of a set, at most 256 x 256."""
    files = [path for path in sorted(folder.glob(REAL[name])) if path.is_file()]
    if not files:
        pytest.skip(f"{folder} has no {REAL[name]}")
    images = []
    for path in (files[0], files[-1])[: len(files)]:
        if path.suffix in (".svs", ".tif", ".tiff"):
            image = tifffile.imread(path)
        else:
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB) if image.ndim == 3 else image
        scale = min(1, 256 / max(image.shape[:2]))
        size = (int(image.shape[1] * scale), int(image.shape[0] * scale))
        images.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return images


@pytest.mark.parametrize("name", [name for name in REAL if name != "16-bit nuclei"])
def test_otsu_of_real_images_equals_opencv(name: str, real_data: Path) -> None:
    for image in _real_images(real_data, name):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        level, above = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        result = em.label(image[None], "bright", None, 0, 2)
        assert result.threshold[0] == level
        assert np.array_equal(result.mask[0], above)


def test_real_16_bit_images_are_as_stated(real_data: Path) -> None:
    for image in _real_images(real_data, "16-bit nuclei"):
        assert image.dtype == np.uint16
        _label_and_check(image[None], "auto", layout=(2, True))


@pytest.mark.parametrize("name", ["nuclei", "skin"])
def test_ght_of_real_images_is_as_stated(name: str, real_data: Path) -> None:
    for image in _real_images(real_data, name):
        _label_and_check(image[None], "auto", GHT["documents"])
