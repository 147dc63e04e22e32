"""DICOM series as volumes: pixels, order and geometry against what SimpleITK reads."""

import gzip
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset

from medsass.data.formats import depth
from medsass.data.formats.dicom.grouping import grouped
from medsass.data.formats.dicom.series import Series
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.dicom.dicoms import RNG, dataset, saved
from tests.data.formats.volumes.files import frames

CT = "1.2.840.10008.5.1.4.1.1.2"
PLANES = {  # directions of rows and columns
    "axial": [1, 0, 0, 0, 1, 0],
    "coronal": [1, 0, 0, 0, 0, -1],
    "sagittal": [0, 1, 0, 0, 0, -1],
    "oblique": [0.8, 0.6, 0, -0.6, 0.8, 0],
}


def save_series(
    folder: Path, plane: str = "axial", slices: int = 6, placed: bool = True, **elements: Any
) -> np.ndarray:
    """Write slices (n, 12, 16) int16 whose names say nothing of their order, and return them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 2000, (slices, 12, 16)).astype(np.int16)
    turned = np.array(PLANES[plane], float)
    normal = np.cross(turned[:3], turned[3:])
    for place in range(slices):
        made = dataset(
            array[place], SeriesInstanceUID="1.2.9", Modality="CT", InstanceNumber=slices - place, **elements
        )
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CT
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{place + 1}"
        made.PixelSpacing, made.SliceThickness = [0.75, 0.5], 3
        if placed:
            made.ImageOrientationPatient = turned.tolist()
            made.ImagePositionPatient = (np.array([-40.5, 11, 200]) + 2.5 * place * normal).tolist()
        (folder / f"{(place * 7) % slices:02d}.dcm").write_bytes(saved(made))
    return array


def enhanced(array: np.ndarray, plane: str, order: Sequence[int]) -> Any:
    """An enhanced CT of slices (n, 12, 16), whose frames come in another order than their places."""
    turned, groups, shared = np.array(PLANES[plane], float), [], Dataset()
    for place in order:
        group, position = Dataset(), Dataset()
        away = 2.5 * place * np.cross(turned[:3], turned[3:])
        position.ImagePositionPatient = (np.array([-40.5, 11, 200]) + away).tolist()
        group.PlanePositionSequence = [position]
        groups.append(group)
    direction, measures = Dataset(), Dataset()
    direction.ImageOrientationPatient, measures.PixelSpacing = turned.tolist(), [0.75, 0.5]
    measures.SpacingBetweenSlices = 2.5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [direction], [measures]
    own = {"PerFrameFunctionalGroupsSequence": groups, "SharedFunctionalGroupsSequence": [shared]}
    made = dataset(array[list(order)], frames=len(order), Modality="CT", **own)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = f"{CT}.1"
    return made


def by_simpleitk(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


@pytest.mark.parametrize("plane", PLANES)
def test_a_series_is_what_simpleitk_reads(plane: str, tmp_path: Path) -> None:
    array = save_series(tmp_path / "s", plane, RescaleSlope=1, RescaleIntercept=-1024)
    (paths,) = grouped(sorted((tmp_path / "s").iterdir()))
    theirs = by_simpleitk(tmp_path / "s")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), array - 1024)
    lps = sitk.GetArrayFromImage(sitk.DICOMOrient(theirs, "LPS"))
    for axis, truth in (("z", lps), ("y", lps.transpose(1, 0, 2)[:, ::-1]), ("x", lps.transpose(2, 0, 1)[:, ::-1])):
        with Series(paths, Selection(axis=axis)) as picture:
            np.testing.assert_array_equal(frames(picture), truth)
            (tmp_path / "mask.nii.gz").write_bytes(picture.encode((frames(picture) > 0).astype(np.uint8)))
        mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(theirs) > 0)
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(mask, name)(), getattr(theirs, name)(), rtol=1e-5, atol=1e-5)


def test_each_nth_slice_keeps_its_place(tmp_path: Path) -> None:
    save_series(tmp_path, "coronal")
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    theirs = by_simpleitk(tmp_path)[:, :, ::2]
    with Series(paths, Selection(axis="y", every=2)) as picture:
        image = nib.Nifti1Image.from_bytes(gzip.decompress(picture.encode(frames(picture))))
    affine = np.diag([-1, -1, 1, 1]) @ image.affine
    np.testing.assert_allclose(affine[:3, 3], theirs.GetOrigin(), atol=1e-4)
    assert image.shape == theirs.GetSize()


def test_window_padding_and_range_are_those_of_the_series(tmp_path: Path) -> None:
    array = save_series(tmp_path / "a")
    save_series(tmp_path / "b", WindowCenter=40.5, WindowWidth=401)
    (a,), (b,) = (grouped(sorted((tmp_path / name).iterdir())) for name in "ab")
    with Series(a, Selection()) as picture:
        assert depth.limits(picture, 3, "minmax") == [(array.min(), array.max())]
        assert picture.padding is None
    with Series(b, Selection()) as picture:
        assert depth.limits(picture, 3, "minmax") == [(-160, 240)]


def test_slices_without_positions_follow_their_numbers(tmp_path: Path) -> None:
    array = save_series(tmp_path, placed=False)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    with pytest.warns(UserWarning, match="without positions, taken in the order of their InstanceNumber"):
        picture = Series(paths, Selection())
    with picture:
        np.testing.assert_array_equal(frames(picture), array[::-1])  # the last has number 1


def test_a_gap_between_slices_is_told(tmp_path: Path) -> None:
    save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    with pytest.warns(UserWarning, match=r"slices lie 2\.5 to 5 mm apart; the volume's are 3\.125 mm apart"):
        Series([*paths[:2], *paths[3:]], Selection()).close()


def test_a_tilted_gantry_is_told(tmp_path: Path) -> None:
    save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    for place, path in enumerate(paths):
        made = pydicom.dcmread(path)
        made.ImagePositionPatient = [-40.5, 11 + 0.5 * place, 200 + 2.5 * place]
        made.save_as(path)
    with pytest.warns(UserWarning, match=r"askew, 0\.5 mm aside from one to the next"):
        picture = Series(paths, Selection())
    with picture:
        np.testing.assert_allclose(picture.affine[:3, 2], [0, -0.5, 2.5])


@pytest.mark.parametrize("plane", PLANES)
def test_an_enhanced_file_is_the_volume_that_simpleitk_reads(plane: str, tmp_path: Path) -> None:
    array, path, mask = RNG.integers(0, 2000, (6, 12, 16)).astype(np.int16), tmp_path / "e.dcm", tmp_path / "m.nii.gz"
    path.write_bytes(saved(enhanced(array, plane, range(6))))
    theirs = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), array)
    for order in (range(6), [3, 0, 5, 1, 4, 2]):  # of the frames in the file, which SimpleITK does not sort
        path.write_bytes(saved(enhanced(array, plane, order)))
        with open_image(path, Selection(axis="z")) as picture:
            mask.write_bytes(picture.encode((frames(picture) > 900).astype(np.uint8)))
        made = sitk.ReadImage(str(mask))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(made), array > 900)
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(made, name)(), getattr(theirs, name)(), rtol=1e-5, atol=1e-5)


def test_a_header_without_sizes_is_a_reason(tmp_path: Path) -> None:
    save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    made = pydicom.dcmread(paths[0])
    made.PixelSpacing = 0.5  # one value
    made.save_as(paths[0])
    with pytest.raises(ValueError, match="damaged, or of an unknown sort"):
        Series(paths, Selection())


def changed(paths: Sequence[Path], **elements: Callable[[int], Any]) -> None:
    """Set elements of slices, each by the number of the slice."""
    for place, path in enumerate(paths):
        made = pydicom.dcmread(path)
        for name, value in elements.items():
            setattr(made, name, value(place))
        made.save_as(path)


def test_an_oblique_series_is_cut_as_it_was_taken(tmp_path: Path) -> None:
    """A direction whose largest part is not the patient's axis that nibabel gives it."""
    array = save_series(tmp_path)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    turned = np.array([0.757, 0.498, -0.423, 0.0396, 0.6085, 0.7926])
    normal = np.cross(turned[:3], turned[3:])
    changed(
        paths,
        ImageOrientationPatient=lambda _: turned.tolist(),
        ImagePositionPatient=lambda at: (8 * at * normal).tolist(),
    )
    with Series(paths, Selection()) as picture:
        assert picture.frames == len(array)
        assert sorted(map(np.sum, frames(picture))) == sorted(map(np.sum, array))


def test_a_series_of_inverted_slices_keeps_its_order_of_brightness(tmp_path: Path) -> None:
    array = save_series(tmp_path, PhotometricInterpretation="MONOCHROME1")
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    changed(
        paths,
        RescaleSlope=lambda at: at + 1,
        RescaleIntercept=lambda _: 0,
        WindowCenter=lambda _: 500,
        WindowWidth=lambda _: 1001,
    )
    values = array.astype(int) * np.arange(1, 7)[:, None, None]
    with Series(paths, Selection()) as picture:
        shown, (low, high) = frames(picture).astype(int), picture.limits or (0, 0)
    top = (shown + values).max()
    np.testing.assert_array_equal(shown, top - values)
    assert (top - high, top - low) == (-0.5, 999.5)


def test_frames_in_one_place_are_a_stack(tmp_path: Path) -> None:
    array, path = RNG.integers(0, 2000, (4, 12, 16)).astype(np.int16), tmp_path / "e.dcm"
    path.write_bytes(saved(enhanced(array, "axial", [0, 1, 1, 2])))
    with open_image(path) as picture:
        np.testing.assert_array_equal(frames(picture), array[[0, 1, 1, 2]])
        assert picture.suffix == ".tif"


@pytest.mark.parametrize("plane", ["axial", "sagittal"])  # which is shown in the order of the files, or against it
def test_a_damaged_slice_is_named_and_others_are_read(plane: str, tmp_path: Path) -> None:
    save_series(tmp_path, plane)
    (paths,) = grouped(sorted(tmp_path.iterdir()))
    with Series(paths, Selection()) as picture:
        whole = frames(picture)
    at = 2 if plane == "axial" else 3
    paths[2].write_bytes(paths[2].read_bytes()[:-100])
    with Series(paths, Selection()) as picture:
        seen = [picture.read(frame) for frame in range(6) if frame != at]
        np.testing.assert_array_equal(seen, np.delete(whole, at, axis=0))
        with pytest.raises(ValueError, match=f"slice {paths[2].name}: truncated"):
            picture.read(at)
        assert depth.limits(picture, 0, "minmax") == [(np.min(seen), np.max(seen))]
    with Series(paths, Selection(axis="y")) as picture, pytest.raises(ValueError, match=f"slice {paths[2].name}: "):
        picture.read()
    for path in paths:
        path.write_bytes(path.read_bytes()[:-100])
    with Series(paths, Selection()) as picture, pytest.raises(ValueError, match=f"slice {paths[0].name}: "):
        depth.limits(picture, 0, "minmax")


@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_those_that_were_taken_unless_an_axis_is_chosen(plane: str, tmp_path: Path) -> None:
    array = save_series(tmp_path / "s", plane)
    (paths,) = grouped(sorted((tmp_path / "s").iterdir()))
    with Series(paths, Selection()) as series:
        assert series.frames == len(array)
        taken = [series.read(frame) for frame in range(len(array))]
    for own in array:
        assert any(np.array_equal(own, shown) for turned in taken for shown in (turned, turned[:, ::-1], turned[::-1]))
    with Series(paths, Selection(axis="z")) as series:
        assert series.frames == (12 if plane in ("coronal", "sagittal") else len(array))


def test_padding_of_other_values_in_each_slice_is_padding_in_all(tmp_path: Path) -> None:
    for place in range(3):
        (tmp_path / str(place)).mkdir()
        array = save_series(tmp_path / str(place), slices=3, RescaleSlope=1 + place, RescaleIntercept=-1024)
        path = sorted((tmp_path / str(place)).iterdir())[0]
        made = pydicom.dcmread(path)
        pixels = made.pixel_array.copy()
        pixels[:4] = -2000
        made.PixelData = pixels.tobytes()
        made.add_new(0x00280120, "SS", -2000)
        made.ImagePositionPatient = [0, 0, 3.0 * place]
        made.save_as(tmp_path / f"{place}.dcm")
        shutil.rmtree(tmp_path / str(place))
        assert len(array) == 3
    (paths,) = grouped(sorted(tmp_path.glob("*.dcm")))
    with Series(paths, Selection()) as series:
        for frame in range(3):
            out = depth.outside(series.read(frame), series.padding)
            assert out[:4].all()
            assert not out[4:].any()
        low, high = depth.limits(series, 0, "minmax")[0]
    assert low >= -1024
    assert high <= 3 * 2000 - 1024
