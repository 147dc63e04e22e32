"""Which files of DICOM slides are taken: of a folder the images alone, of named files whatever has no larger one beside it."""

from pathlib import Path

import numpy as np
import pytest

from medsass.data.formats.dicom.grouping import grouped
from tests.data.formats.dicom.dicoms import dataset, saved

FILES = {"small": (8, "VOLUME"), "large": (16, "VOLUME"), "label": (9, "LABEL"), "over": (90, "OVERVIEW")}


@pytest.fixture
def slide(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.dcm" for name in FILES}
    for name, (side, kind) in FILES.items():
        own = {
            "TotalPixelMatrixRows": side,
            "TotalPixelMatrixColumns": side,
            "ImageType": ["ORIGINAL", "PRIMARY", kind],
        }
        paths[name].write_bytes(saved(dataset(np.zeros((4, 4), np.uint8), SeriesInstanceUID="1.2.9", **own)))
    return paths


@pytest.mark.parametrize("named", [False, True])
def test_the_highest_resolution_is_the_slide(slide: dict[str, Path], named: bool) -> None:
    with pytest.warns(UserWarning, match="3 labels, overviews and smaller resolutions of DICOM slides are passed over"):
        assert grouped([*slide.values()], named=named) == [(slide["large"],)]


def test_a_label_alone_is_read_where_it_is_named(slide: dict[str, Path]) -> None:
    assert grouped([slide["label"]], named=True) == [(slide["label"],)]
    with pytest.warns(UserWarning, match="1 labels"):
        assert grouped([slide["label"]]) == []
