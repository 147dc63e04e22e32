"""Slides by OpenSlide against the arrays that tifffile wrote, and against tifffile on a real slide."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.virtual_slide import VirtualSlide

pytest.importorskip("openslide")

RGB = np.random.default_rng(0).integers(0, 256, (300, 410, 3), np.uint8)


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for level in range(2):
            array = np.ascontiguousarray(RGB[:: 1 << level, :: 1 << level])
            writer.write(array, photometric="rgb", tile=(64, 64), subfiletype=level, metadata=None, compression="zlib")
    return tmp_path / "a.tif"


def test_regions_of_all_levels_are_the_arrays(pyramid: Path) -> None:
    for level in range(2):
        truth = RGB[:: 1 << level, :: 1 << level]
        with VirtualSlide(pyramid, Selection(level=level)) as slide:
            assert slide.levels == ((300, 410), (150, 205))
            assert (slide.colour, slide.dtype, slide.streams, slide.frames) == (True, np.uint8, True, 1)
            np.testing.assert_array_equal(slide.read(), truth)
            np.testing.assert_array_equal(slide.read(0, Box(11, 37, 50, 101)), truth[11:61, 37:138])
    with pytest.raises(ValueError, match="no pyramid level 2: the file has levels 0 to 1"):
        VirtualSlide(pyramid, Selection(level=2))


def test_a_real_slide_equals_tifffile(real_data: Path) -> None:
    path = real_data / "whole_slide/CMU-1-Small-Region.svs"
    with VirtualSlide(path, Selection()) as slide, open_image(path) as other:
        box = Box(700, 900, 300, 200)
        np.testing.assert_array_equal(slide.read(0, box), other.read(0, box))


@pytest.mark.parametrize(("name", "content"), [
    ("a.mrxs", b"\xff\xd8\xff" + bytes(99)), ("a.vms", b"[Virtual Microscope Specimen]\n"), ("a.svslide", b"SQLite format 3\0"),
    ("a.txt", b"[Uncompressed Virtual Microscope Specimen]\n"),
])  # fmt: skip
def test_its_formats_are_refused_with_the_remedy_where_openslide_is_missing(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"\w+ \w+"):  # the file is none
        open_image(tmp_path / name)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ValueError, match="need OpenSlide: pip install openslide-python openslide-bin"):
        open_image(tmp_path / name)


def test_true_bif_goes_to_openslide_and_other_tiff_of_that_name_does_not(tmp_path: Path) -> None:
    xmp = [(700, "B", 8, b"<iScan/>", True)]
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    tifffile.imwrite(tmp_path / "true.bif", RGB, software="ScanOutputManager 1.1", extratags=xmp, **options)
    tifffile.imwrite(tmp_path / "other.bif", RGB, **options)
    with open_image(tmp_path / "other.bif") as picture:
        np.testing.assert_array_equal(picture.read(), RGB)
    with tifffile.TiffFile(tmp_path / "true.bif") as file:
        assert file.is_bif
    with pytest.raises(ValueError, match=r"(?i)slide|ventana|iscan|format|xml"):
        open_image(tmp_path / "true.bif")
