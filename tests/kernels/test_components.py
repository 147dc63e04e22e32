"""components.cu, emulated on the CPU, against OpenCV and scikit-image."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given
from skimage import measure

from medsass.labels.components import components
from tests.kernels.labelled import between_walls
from tests.labels.test_components import by_first_pixel
from tests.support import emulation as em
from tests.support.effort import examples
from tests.support.masks import KINDS, SHAPES, Mask, batches, make

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


def check(masks: Mask, connectivity: int) -> None:
    expected = components(torch.from_numpy(masks), connectivity).numpy()
    assert np.array_equal(em.components(masks, connectivity), expected)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_random_batches_are_connected_as_by_opencv(connectivity: int) -> None:
    @examples(80)
    @given(batches())
    def holds(masks: Mask) -> None:
        check(masks, connectivity)

    holds()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_mask_is_connected_as_by_opencv(kind: str, shape: tuple[int, int]) -> None:
    for connectivity in (4, 8):
        check(make(kind, shape)[None], connectivity)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_every_mask_of_three_by_three_pixels_is_connected_as_by_scikit_image(connectivity: int) -> None:
    # Side by side, an empty column and row between, shifted so that the seam of two segments cuts some of them.
    every = (np.arange(512)[:, None] >> np.arange(9) & 1).astype(np.uint8).reshape(32, 16, 3, 3)
    tiles = np.pad(every, ((0, 0), (0, 0), (0, 1), (0, 1)))
    image = np.pad(tiles.transpose(0, 2, 1, 3).reshape(128, 64), ((0, 0), (2, 0)))
    expected = by_first_pixel(measure.label(image, connectivity=connectivity // 4))
    assert np.array_equal(em.components(image[None], connectivity)[0], expected)


def test_nothing_is_read_beside_the_masks() -> None:
    masks = make("dense", (17, 45))[None]
    em.components(masks, 8)  # compiles
    for last in (True, False):
        child = os.fork()
        if child == 0:
            em.components(between_walls(masks, last), 8)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
