"""Masks as their files store them: what alpha shows, indices, levels of any depth; against the arrays that were written."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass.data.formats import geometry
from medsass.data.formats.geometry import Box
from tests.data.formats.test_mask import read_mask

RNG = np.random.default_rng(0)
TRUTH = np.zeros((64, 96), bool)
TRUTH[10:30, 20:40] = True


def with_alpha(truth: np.ndarray, ground: int = 255, kind: str = "u1") -> np.ndarray:
    """White (h, w, 4), whose alpha alone is the mask."""
    array = np.full((*truth.shape, 4), ground, kind)
    array[..., 3] = truth * np.iinfo(kind).max
    return array


@pytest.mark.parametrize("options", [
    {}, {"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 8, "compression": "zlib"}, {"planarconfig": "separate"},
], ids=["flat", "tiles", "strips", "planes"])  # fmt: skip
@pytest.mark.parametrize("turn", [1, 6])
def test_each_box_of_a_mask_in_alpha_is_that_part_of_it(options: dict, turn: int, tmp_path: Path) -> None:
    array = with_alpha(TRUTH)
    if "planarconfig" in options:
        array = np.moveaxis(array, -1, 0)
    tags = [(274, 3, 1, turn, True)] if turn != 1 else []
    tifffile.imwrite(
        tmp_path / "m.tif", array, photometric="rgb", extrasamples=["unassalpha"], extratags=tags, **options
    )
    shown = np.asarray(geometry.upright(TRUTH, turn))
    for box in (Box(40, 48, 16, 16), Box(0, 0, 32, 32), Box(12, 22, 4, 4), None):
        expected = shown[box.slices] if box else shown
        np.testing.assert_array_equal(read_mask([tmp_path / "m.tif"], box=box), expected)


def test_each_page_of_masks_in_alpha_is_read(tmp_path: Path) -> None:
    pages = np.stack([with_alpha(TRUTH), with_alpha(~TRUTH), with_alpha(TRUTH & False)])
    tifffile.imwrite(tmp_path / "m.tif", pages, photometric="rgb", extrasamples=["unassalpha"])
    for frame, truth in enumerate((TRUTH, ~TRUTH, TRUTH & False)):
        np.testing.assert_array_equal(read_mask([tmp_path / "m.tif"], frame=frame), truth)


@pytest.mark.parametrize(("colour", "alpha", "foreground"), [(255, 0, 0), (255, 255, 1), (0, 255, 0), (0, 0, 0)])
def test_a_mask_of_one_colour_counts_unless_it_is_hidden(
    colour: int, alpha: int, foreground: int, tmp_path: Path
) -> None:
    for name in ("m.png", "m.tif"):
        Image.new("RGBA", (8, 8), (colour, colour, colour, alpha)).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask([tmp_path / name]), foreground)


@pytest.mark.parametrize("shape", [(0, 5, 4), (5, 0, 2)])
def test_no_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"a mask of {shape[1]}x{shape[0]} pixels"):
        geometry.without_alpha(np.zeros(shape, np.uint8))
