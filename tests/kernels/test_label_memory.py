"""Images and masks that lie anywhere in memory: nothing beside them is read or written."""

import ctypes
import os

import numpy as np
import pytest

from medsass.labels import cuda
from tests.kernels.labelled import (
    at_offset,
    between_walls,
    image_of,
    label_and_check,
    stated,
)
from tests.support import emulation as em

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


@pytest.mark.parametrize("offset", range(1, 16))
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_unaligned_images_are_as_stated(form: str, offset: int) -> None:
    image = image_of("bimodal", (13, 31), np.random.default_rng(offset), form)
    label_and_check(at_offset(image[None], offset), "auto")


@pytest.mark.parametrize("offset", range(2, 16, 2))
def test_unaligned_16_bit_images_are_as_stated(offset: int) -> None:
    image = image_of("bimodal", (13, 31), np.random.default_rng(offset), "gray16")
    label_and_check(at_offset(image[None], offset), "auto", layout=(2, True))


@pytest.mark.parametrize("layout", [(3, True), (2, False)])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_unaligned_parts_are_as_stated(form: str, layout: tuple[int, bool]) -> None:
    rng = np.random.default_rng(9)
    images = np.stack([image_of(kind, (23, 29), rng, form) for kind in ("bimodal", "uniform")])
    label_and_check(at_offset(images, 5), "auto", layout=layout)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("form", ["rgb", "gray"])
@pytest.mark.parametrize("offset", [0, 1, 7, 8, 15])
def test_nothing_is_written_beside_a_mask_that_lies_anywhere(form: str, offset: int, once: bool) -> None:
    images = image_of("bimodal", (11, 23), np.random.default_rng(offset), form)[None]
    n, h, w = images.shape[:3]
    buffer = np.full(n * h * w + 160, em.POISON, np.uint8)
    start = 64 + -(buffer.ctypes.data + 64) % 16 + offset
    results, workspace = np.zeros((2, n), np.float32), np.zeros(n * cuda.SHARED_BYTES, np.uint8)
    library = em.library(cuda.Variant("label.cu", 3 if form == "rgb" else 1))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (images, buffer[start:], *results, workspace)]
    geometry, parameters = em.Geometry(n, h * w, h, w, 1, h * w, 0), np.zeros(4)
    tail = (ctypes.c_void_p(parameters.ctypes.data), ctypes.c_void_p(0), ctypes.c_void_p(0))
    (library.run_label if once else library.run_measure)(*pointers, n, geometry, *tail)
    mask = buffer[start : start + h * w].reshape(h, w)
    assert np.array_equal(mask, stated(images[0], "bright", None, 0)[0])
    assert (buffer[:start] == em.POISON).all()
    assert (buffer[start + h * w :] == em.POISON).all()


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_nothing_is_read_beside_the_images(form: str, last: bool) -> None:
    images = image_of("bimodal", (17, 29), np.random.default_rng(10), form)[None]
    em.label(images, "auto")  # compiles
    child = os.fork()
    if child == 0:
        walled = between_walls(images, last)
        for layout in ((1, True), (3, True), (2, False)):
            em.label(walled, "auto", None, 0, layout[0], once=layout[1])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
