"""DICOM slides against the arrays of which their tiles were cut."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.dicom.dicoms import dataset, saved

pytest.importorskip("pydicom")
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

SLIDE = np.random.default_rng(0).integers(0, 256, (150, 210, 3), np.uint8)
TILE = 64
PLACES = [(y, x) for y in range(0, 150, TILE) for x in range(0, 210, TILE)]


def tile(slide: np.ndarray, y: int, x: int) -> np.ndarray:
    part = slide[y : y + TILE, x : x + TILE]
    return np.pad(part, ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]), *[(0, 0)] * (part.ndim - 2)))


def slide(tiles: list[np.ndarray], syntax: str = "", fragments: int = 1, **elements: Any) -> bytes:
    made = dataset(
        np.stack(tiles), frames=len(tiles), TotalPixelMatrixRows=150, TotalPixelMatrixColumns=210, **elements
    )
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    if syntax:
        made.file_meta.TransferSyntaxUID = syntax
        coded = [imagecodecs.jpeg2k_encode(one, level=0, codecformat="j2k", reversible=True) for one in tiles]
        made.PixelData = encapsulate(coded, fragments_per_frame=fragments)
        made["PixelData"].is_undefined_length = True
    return saved(made)


def position(y: int, x: int, z: float = 0) -> Dataset:
    group, at = Dataset(), Dataset()
    at.RowPositionInTotalImagePixelMatrix, at.ColumnPositionInTotalImagePixelMatrix = y + 1, x + 1
    at.ZOffsetInSlideCoordinateSystem = z
    group.PlanePositionSlideSequence = [at]
    return group


def check(data: bytes, truth: np.ndarray, folder: Path, frames: int = 1) -> None:
    (folder / "a.dcm").write_bytes(data)
    for path, content in ((Path("a"), data), (folder / "a.dcm", None)):
        with open_image(path, data=content) as picture:
            assert (picture.height, picture.width, picture.frames, picture.streams) == (150, 210, frames, True)
            np.testing.assert_array_equal(picture.read(), truth)
            for box in (Box(0, 0, 5, 7), Box(60, 100, 70, 101), Box(149, 209, 1, 1), Box(64, 64, 64, 64)):
                np.testing.assert_array_equal(picture.read(0, box), truth[box.slices])


@pytest.mark.parametrize("channels", ["rgb", "gray", "16 bit"])
@pytest.mark.parametrize("syntax", ["", "1.2.840.10008.1.2.4.90"])
def test_a_full_grid_of_tiles_is_the_slide(syntax: str, channels: str, tmp_path: Path) -> None:
    truth = {"rgb": SLIDE, "gray": SLIDE[..., 0], "16 bit": SLIDE[..., 0].astype(np.uint16) * 200}[channels]
    tiles = [tile(truth, *place) for place in PLACES]
    check(slide(tiles, syntax, DimensionOrganizationType="TILED_FULL"), truth, tmp_path)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_slide_keeps_the_depth_the_window_and_the_padding_of_its_header(kind: str) -> None:
    truth = (SLIDE[..., 0].astype(np.uint16) << 4) | 5
    data = slide(
        [tile(truth, *place) for place in PLACES], DimensionOrganizationType="TILED_FULL", BitsStored=12, HighBit=11,
        PhotometricInterpretation=kind, WindowCenter=1000, WindowWidth=501, PixelPaddingValue=5,
    )  # fmt: skip
    inverted = kind == "MONOCHROME1"
    with open_image(Path("a"), data=data) as picture:
        np.testing.assert_array_equal(picture.read(), 4095 - truth if inverted else truth)
        assert (picture.span, picture.padding) == ((0, 4095), (4090, 4090) if inverted else (5, 5))
        assert picture.limits == ((2845.5, 3345.5) if inverted else (749.5, 1249.5))
        assert (picture.per_channel, picture.common, picture.levels) == (False, False, ((150, 210),))


def test_tiles_in_several_fragments_are_put_together(tmp_path: Path) -> None:
    tiles = [tile(SLIDE, *place) for place in PLACES]
    check(slide(tiles, "1.2.840.10008.1.2.4.90", 3, DimensionOrganizationType="TILED_FULL"), SLIDE, tmp_path)


def test_tiles_are_where_their_frames_say_and_white_where_there_is_none(tmp_path: Path) -> None:
    rng, truth = np.random.default_rng(1), np.full_like(SLIDE, 255)
    places = [PLACES[i] for i in rng.permutation(len(PLACES))[:8]] + [(30, 100)]  # the last lies across the grid
    for y, x in places[:-1]:
        truth[y : y + TILE, x : x + TILE] = SLIDE[y : y + TILE, x : x + TILE]
    truth[30 : 30 + TILE, 100 : 100 + TILE] = SLIDE[:TILE, :TILE]
    tiles = [*(tile(SLIDE, *place) for place in places[:-1]), SLIDE[:TILE, :TILE]]
    groups = [position(*place) for place in places]
    check(
        slide(tiles, DimensionOrganizationType="TILED_SPARSE", PerFrameFunctionalGroupsSequence=groups), truth, tmp_path
    )


@pytest.mark.parametrize("sparse", [False, True])
def test_focal_planes_are_frames(sparse: bool, tmp_path: Path) -> None:
    planes = [SLIDE, SLIDE[::-1]]
    tiles = [tile(plane, *place) for plane in planes for place in PLACES]
    groups = [position(*place, z) for z in (0.0, 1.5) for place in PLACES]
    options = {"PerFrameFunctionalGroupsSequence": groups} if sparse else {"DimensionOrganizationType": "TILED_FULL"}
    data = slide(tiles, **options)
    check(data, SLIDE, tmp_path, frames=2)
    with open_image(Path("a"), Selection(frames=1), data) as picture:
        np.testing.assert_array_equal(picture.read(), planes[1])
        assert picture.converted == "frame 1 of 2"


def test_a_slide_that_was_cut_off_is_refused() -> None:
    data = slide([tile(SLIDE, *place) for place in PLACES], DimensionOrganizationType="TILED_FULL")
    with pytest.raises(ValueError, match="tiles in 12 frames, of which the file holds 11"):
        open_image(Path("a"), data=data[:-500])
