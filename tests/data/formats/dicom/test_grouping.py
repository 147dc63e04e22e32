"""Which DICOM files are slices of one volume."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medsass.data.formats.dicom.grouping import grouped
from medsass.data.formats.dicom.series import Series
from medsass.data.formats.image import Selection
from tests.data.formats.dicom.dicoms import RNG, dataset, saved
from tests.data.formats.dicom.test_series import changed, save_series
from tests.data.formats.volumes.files import frames


def test_slices_whose_directions_differ_a_little_are_one_volume(tmp_path: Path) -> None:
    save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    changed(paths, ImageOrientationPatient=lambda at: [1, 0.0004995 + at % 2 * 1e-6, 0, 0, 1, 0])
    assert [len(group) for group in grouped(paths)] == [6]
    changed(paths, ImageOrientationPatient=lambda at: [1, at % 2 * 0.1, 0, 0, 1, 0])
    assert sorted(len(group) for group in grouped(paths)) == [3, 3]


def test_slices_of_pixels_of_other_sizes_are_volumes_of_their_own(tmp_path: Path) -> None:
    save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    changed(paths, PixelSpacing=lambda at: [0.75, 0.5 + at % 2 * 1e-6])
    assert [len(group) for group in grouped(paths)] == [6]
    changed(paths, PixelSpacing=lambda at: [0.75, 0.5] if at < 4 else [0.9, 0.6])
    for group, spacing in zip(grouped(paths), ((0.5, 0.75), (0.6, 0.9)), strict=True):
        with Series(group, Selection()) as picture:
            (tmp_path / "m.nii.gz").write_bytes(picture.encode(frames(picture)))
        assert sitk.ReadImage(str(tmp_path / "m.nii.gz")).GetSpacing()[:2] == pytest.approx(spacing)
        assert sitk.ReadImage([str(path) for path in group]).GetSpacing()[:2] == pytest.approx(spacing)


def test_only_slices_of_one_volume_come_together(tmp_path: Path) -> None:
    save_series(tmp_path / "a")
    save_series(tmp_path / "b", "sagittal", slices=2, SeriesNumber=7)
    (tmp_path / "x.dcm").write_bytes(saved(dataset(RNG.integers(0, 9, (8, 8), np.uint8), SeriesInstanceUID="1.2.9")))
    (tmp_path / "t.png").write_bytes(b"\x89PNG and no more")
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [len(group) for group in grouped(paths)] == [6, 2, 1, 1]
    shutil.copy(tmp_path / "a" / "00.dcm", tmp_path / "a" / "copy.dcm")
    with pytest.warns(UserWarning, match="7 slices of one series, of which some lie in one place; each is an image"):
        assert [len(group) for group in grouped(sorted((tmp_path / "a").iterdir()))] == [1] * 7


def test_a_header_that_means_nothing_leaves_its_file_alone(tmp_path: Path) -> None:
    save_series(tmp_path)
    paths = sorted(tmp_path.iterdir())
    changed(paths, SamplesPerPixel=lambda at: [1, 1] if at == 2 else 1)
    assert sorted(map(len, grouped(paths))) == [1, 5]


def test_doubts_about_the_places_of_pixels_are_told(tmp_path: Path) -> None:
    save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    changed(paths, ImagePositionPatient=lambda at: [-40.5 + 3 * (at == 2), 11, 200 + 2.5 * at])
    with pytest.warns(UserWarning, match="a slice lies 3 mm beside the line from the first to the last"):
        Series(paths, Selection()).close()
    changed(paths, ImagePositionPatient=lambda at: [-40.5, 11, 200 + 2.5 * at], PixelSpacing=lambda at: [1 + at, 1])
    with pytest.warns(UserWarning, match="slices of pixels of several sizes; the volume's are 1 mm wide"):
        Series(paths, Selection()).close()
    changed(paths, PixelSpacing=lambda _: None)
    assert [len(group) for group in grouped(paths)] == [6]
    with pytest.warns(UserWarning, match="without PixelSpacing, of which pixels are taken as 1 mm wide"):
        Series(paths, Selection()).close()
