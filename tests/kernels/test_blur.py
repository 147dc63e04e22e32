"""blur.cu, emulated on the CPU, against OpenCV's filter and the sum of shifted images."""

import ctypes
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import blur
from tests.kernels.labelled import between_walls
from tests.support import emulation as em
from tests.support.effort import examples

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")
SIGMAS = (0.01, 0.5, 1.0, 3.0, 9.0)


def _noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@examples(100)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.sampled_from(SIGMAS), st.integers(0, 99))
def test_random_batches_are_smoothed_as_stated(count: int, height: int, width: int, sigma: float, seed: int) -> None:
    gray = _noise((count, height, width), seed)
    assert np.array_equal(em.blur(gray, sigma), blur.by_shifts(torch.from_numpy(gray), sigma).numpy())


@pytest.mark.parametrize("level", [0, 255])
def test_a_constant_image_stays_as_it_is(level: int) -> None:
    gray = np.full((1, 21, 34), level, np.uint8)
    assert np.array_equal(em.blur(gray, 3.0), gray)


def test_nothing_is_read_beside_the_images() -> None:
    gray = _noise((1, 17, 29))
    em.blur(gray, 4.0)  # compiles
    for last in (True, False):
        child = os.fork()
        if child == 0:
            em.blur(between_walls(gray, last), 4.0)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_sizes_lie_as_the_kernel_expects_them() -> None:
    assert {name: blur._SIZES.fields[name][1] for name in blur._SIZES.names} == {
        name: getattr(em.Blur, name).offset for name, _ in em.Blur._fields_
    }
    assert blur._SIZES.itemsize == ctypes.sizeof(em.Blur)
