"""DICOM series in shards: one volume, cut and mapped as `predict` reads it; slices with masks of their own stay alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.formats import depth
from medsass.data.formats.damage import REMEDY
from medsass.data.formats.dicom.grouping import grouped
from medsass.data.formats.dicom.series import Series
from medsass.data.formats.image import Selection
from medsass.data.sharding import shard
from tests.data.formats.dicom.dicoms import saved
from tests.data.formats.dicom.test_series import by_simpleitk, enhanced, save_series
from tests.data.formats.volumes.files import frames
from tests.data.sharding.test_shard_volumes import decoded, samples


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(3):
        save_series(tmp_path / "ct" / f"case {number}", slices=4 + number, RescaleSlope=1, RescaleIntercept=-1024)
        for path in (tmp_path / "ct" / f"case {number}").iterdir():
            made = pydicom.dcmread(path)
            made.PatientID = made.SeriesInstanceUID = f"1.2.{number + 1}"
            made.save_as(path)
    return tmp_path / "ct"


def made(source: Path, **options: Any) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Shard a folder; return its samples, and the notes."""
    out = source.parent / "out"
    found = shard.write(ShardConfig(source, out, overwrite=True, **options))
    return samples(out), found.notes


@pytest.mark.parametrize(("axis", "every"), [("", None), ("", 2), ("y", 5)])
def test_a_series_is_a_volume_in_the_order_of_its_places(axis: str, every: int | None, source: Path) -> None:
    found, notes = made(source, axis=axis or None, every=every)
    assert "15 DICOM slices are read as 3 volumes, one for each series" in notes
    expected = {}
    for number in range(3):
        (paths,) = grouped(sorted((source / f"case {number}").iterdir()))
        with Series(paths, Selection(axis=axis, every=every or 1)) as picture:
            limits = depth.limits(picture, 0, "minmax")
            for frame, pixels in enumerate(frames(picture)):
                expected[f"case_{number}-f{picture.indices[frame]:06d}"] = depth.scaled(pixels, limits, 8, None)
    told = {f"{key.partition('-f')[0]}-f{json.loads(one['json'])['frame']:06d}": one for key, one in found.items()}
    assert told.keys() == expected.keys()
    if axis == "":  # a frame names its slice
        for content in told.values():
            pixels = pydicom.dcmread(source / json.loads(content["json"])["source"]).pixel_array
            assert np.corrcoef(pixels.ravel(), decoded(content["png"]).ravel())[0, 1] > 0.99
    for key, content in told.items():
        np.testing.assert_array_equal(decoded(content["png"]), expected[key])


def test_a_damaged_slice_is_left_out_alone(source: Path) -> None:
    (paths,) = grouped(sorted((source / "case 1").iterdir()))
    paths[3].write_bytes(paths[3].read_bytes()[:-60])
    (source / "case 2" / "00.dcm").write_bytes(b"other")  # no DICOM file, so no slice
    found, _ = made(source)
    assert len(found) == 13
    lines = (source.parent / "out" / "rejected.jsonl").read_text().splitlines()
    other, slice_of = sorted(json.loads(line)["reason"] for line in lines)
    assert other.startswith("a DICOM file without an image")
    assert slice_of == f"slice {paths[3].name}: truncated DICOM file: 324 of 384 bytes of pixel data; {REMEDY}"


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("axis", [None, "z", "y"])
def test_a_volume_is_the_mask_of_a_series(plane: str, axis: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_series(tmp_path / "all" / "ct" / name, plane)
        image = by_simpleitk(tmp_path / "all" / "ct" / name)
        (tmp_path / "all" / "truth").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.Cast(image > 900, sitk.sitkUInt8), str(tmp_path / "all" / "truth" / f"{name}.nii.gz"))
    options = {"axis": axis, "window": "900,901"}  # what is above 900 is white
    found, _ = made(tmp_path / "all", images="ct/**/*.dcm", masks="truth/{folder}.nii.gz", **options)
    assert {key[0] for key in found} == {"a", "b"}
    for content in found.values():
        np.testing.assert_array_equal(decoded(content["png"]), decoded(content["mask.png"]))
    other = sitk.ReadImage(str(tmp_path / "all" / "truth" / "a.nii.gz"))
    other.SetOrigin((0, 0, 0))
    sitk.WriteImage(other, str(tmp_path / "all" / "truth" / "a.nii.gz"))
    found, _ = made(tmp_path / "all", images="ct/**/*.dcm", masks="truth/{folder}.nii.gz", **options)
    assert {key[0] for key in found} == {"b"}


@pytest.mark.parametrize(
    ("slices", "mask"), [("{}", "{}/seg.nii.gz"), ("images/{}", "masks/{}.nii.gz"), ("ct/{}", "ct/{}/mask.nrrd")]
)
def test_a_volume_beside_a_series_or_of_its_name_is_found(slices: str, mask: str, tmp_path: Path) -> None:
    for name in ("p0", "p1", "p2"):
        save_series(tmp_path / "all" / slices.format(name), slices=4, SeriesNumber=int(name[1]))
        path = tmp_path / "all" / mask.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = by_simpleitk(tmp_path / "all" / slices.format(name))
        sitk.WriteImage(sitk.Cast(image > 900, sitk.sitkUInt8), str(path))
    found, _ = made(tmp_path / "all", window="900,901")  # what is above 900 is white
    assert len(found) == 12
    for content in found.values():
        np.testing.assert_array_equal(decoded(content["png"]), decoded(content["mask.png"]))


def test_slices_with_masks_and_those_in_one_place_stay_alone(source: Path) -> None:
    for place, path in enumerate(sorted((source / "case 0").iterdir())):
        one = pydicom.dcmread(path)
        one.ImagePositionPatient = [0, 0, place // 2]
        one.save_as(path)
    masks = source.parent / "all"
    (masks / "images").mkdir(parents=True)
    (masks / "masks").mkdir()
    for path in (source / "case 1").iterdir():
        (masks / "images" / path.name).write_bytes(path.read_bytes())
        mask = pydicom.dcmread(path)
        mask.PixelData = (np.arange(192) < 90).astype(np.uint16).tobytes()
        mask.RescaleIntercept = 0
        (masks / "masks" / path.name).write_bytes(b"")
        mask.save_as(masks / "masks" / path.name)
    found, notes = made(source)
    assert len(found) == 15
    assert sorted(key for key in found if "case" not in key) == ["00", "01", "02", "03"]
    assert any(note.startswith("4 DICOM slices of series in which some lie in one place stay images") for note in notes)
    found, notes = made(masks, every=2)
    assert any(note.startswith("WARNING: 5 DICOM slices are images of their own, such as images/0") for note in notes)
    assert sorted(found) == ["00", "01", "02", "03", "04"]
    assert not any("are read as" in note for note in notes)
    assert all("mask.png" in content for content in found.values())


def test_slices_of_which_some_have_masks_and_those_in_colour_stay_alone(source: Path) -> None:
    (source / "masks").mkdir()
    for path in sorted((source / "case 0").iterdir())[1:]:
        pixels = np.where(pydicom.dcmread(path).pixel_array > 900, 255, 0).astype(np.uint8)
        Image.fromarray(pixels).save(source / "masks" / f"{path.stem}.png")
    for path in (source / "case 1").iterdir():
        one = pydicom.dcmread(path)
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit, one.PixelRepresentation = 7, 0
        one.PixelData = bytes(12 * 16 * 3)
        one.save_as(path)
    found, notes = made(source, images="case 0/*.dcm", masks="masks/{stem}.png")
    assert {key: "mask.png" in one for key, one in found.items()} == {"00": False, "01": True, "02": True, "03": True}
    found, notes = made(source, images="case 1/*.dcm")
    assert sorted(found) == ["00", "01", "02", "03", "04"]
    assert not any("are read as" in note for note in notes)


def test_two_tables_share_a_folder_and_a_damaged_slice_leaves_the_tiles_of_others(source: Path) -> None:
    """A recipe with the first slices of a series in one split, the others in another."""
    recipe = source.parent / "two.toml"
    tables = [
        f'[[images]]\npath = "case 2/0{which}.dcm"\nsplit = "{split}"'
        for which, split in (("[01]", "train"), ("[!01]", "val"))
    ]
    recipe.write_text("\n".join(['name = "two"', *tables]))
    found, _ = made(source, recipe=str(recipe))
    assert len(found) == 6
    (paths,) = grouped(sorted((source / "case 0").iterdir()))
    paths[1].write_bytes(paths[1].read_bytes()[:-60])
    found, _ = made(source, images="case 0/*.dcm", tile=8, min_foreground=0.01)
    assert {int(key[8:14]) for key in found} == {0, 2, 3}


def test_folders_of_like_names_are_told_before_slices_are_united(tmp_path: Path) -> None:
    for name in ("ct", "lesion"):
        save_series(tmp_path / "all" / name)
    _, notes = made(tmp_path / "all")
    assert any(note.startswith("WARNING: 'ct/*' and 'lesion/*' are files of the same names") for note in notes)


def test_pages_do_not_mask_frames_that_were_put_in_order(tmp_path: Path) -> None:
    array = np.arange(5 * 12 * 16).reshape(5, 12, 16).astype(np.int16)
    for name, order in (("up", range(5)), ("down", range(5)[::-1])):
        (tmp_path / "all" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / "masks").mkdir(exist_ok=True)
        (tmp_path / "all" / "images" / f"{name}.dcm").write_bytes(saved(enhanced(array, "axial", order)))
        tifffile.imwrite(
            tmp_path / "all" / "masks" / f"{name}.tif",
            (array[list(order)] > 400).astype(np.uint8),
            photometric="minisblack",
        )
    found, _ = made(tmp_path / "all", window="400,401")
    assert sorted(found) == [f"up-f{frame:06d}" for frame in range(5)]
    for content in found.values():
        np.testing.assert_array_equal(decoded(content["png"]), decoded(content["mask.png"]))


def test_damaged_and_unusable_slices_are_left_out_alone_and_named(source: Path) -> None:
    (paths,) = grouped(sorted((source / "case 2").iterdir()))
    one = pydicom.dcmread(paths[1])
    one.PhotometricInterpretation = "FOO"
    one.save_as(paths[1])
    found, _ = made(source)
    assert len(found) == 14
    line = json.loads((source.parent / "out" / "rejected.jsonl").read_text())
    assert (
        line["reason"]
        == f"slice {paths[1].name}: photometric interpretation FOO is not supported; save it as RGB or MONOCHROME2"
    )


def test_dots_in_names_hide_no_dicom_file(source: Path) -> None:
    whole, _ = made(source)
    for number in range(3):
        (source / f"case {number}").rename(source / f"1.3.6.1.4.{number}")
        for path in (source / f"1.3.6.1.4.{number}").iterdir():
            path.rename(path.with_name(f"CT.1.2.840.{path.stem}"))
    found, notes = made(source)
    assert "15 DICOM slices are read as 3 volumes, one for each series" in notes
    assert len(found) == len(whole) == 15
    groups = [json.loads(one["json"])["group"] for one in found.values()]
    assert len(set(groups)) == 3
    assert all(group.startswith("patient-") for group in groups)


@pytest.mark.parametrize("upward", [True, False])
def test_pages_are_the_masks_of_a_series_only_where_it_is_numbered_in_the_order_of_its_places(
    upward: bool, tmp_path: Path
) -> None:
    """Pages are made in the order of the InstanceNumbers, as viewers show a series; many are taken from head to feet."""
    save_series(tmp_path / "all" / "ct" / "a")
    files = [pydicom.dcmread(path) for path in (tmp_path / "all" / "ct" / "a").iterdir()]
    files.sort(key=lambda one: one.ImagePositionPatient[2], reverse=not upward)
    for number, one in enumerate(files, 1):
        one.InstanceNumber = number
        one.save_as(one.filename)
    pages = np.stack([one.pixel_array > 900 for one in files]).astype(np.uint8)
    (tmp_path / "all" / "truth").mkdir()
    tifffile.imwrite(tmp_path / "all" / "truth" / "a.tif", pages, photometric="minisblack")
    options = {"images": "ct/**/*.dcm", "masks": "truth/{folder}.tif", "window": "900,901"}
    if not upward:
        with pytest.raises(ValueError, match=r"one alone says where it lies.*save both as volumes"):
            made(tmp_path / "all", **options)
        return
    found, _ = made(tmp_path / "all", **options)
    assert len(found) == len(files)
    for content in found.values():
        np.testing.assert_array_equal(decoded(content["png"]), decoded(content["mask.png"]))


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_series_without_one_of_its_slices_is_warned_of(at: int, source: Path) -> None:
    (paths,) = grouped(sorted((source / "case 1").iterdir()))
    paths[at].unlink()
    plan, _ = shard.plan(ShardConfig(source, source.parent / "out"))
    around = [f"case 1/{path.name}" for path in (paths[at - 1], paths[(at + 1) % 5])]
    (note,) = [note for note in plan.notes if "missing" in note] or [""]
    first = "WARNING: slices may be missing in 1 of 3 series: two are further apart than the others, such as "
    assert note == (f"{first}{around[0]} and {around[1]}" if at == 2 else "")  # at an end nobody can tell
