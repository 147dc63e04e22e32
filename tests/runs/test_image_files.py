"""Image files of a folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from medsass.config import LabelConfig, PredictConfig
from medsass.runs import image_files, label


def test_images_of_sub_folders_are_listed_sorted_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "b" / "folder.png").mkdir(parents=True)
    for name in ("b/x.PNG", "a.jpg", "c.txt"):
        (tmp_path / name).touch()
    assert [one.path for one in image_files.in_folder(tmp_path)] == [tmp_path / "a.jpg", tmp_path / "b" / "x.PNG"]


def test_a_folder_without_images_is_answered_with_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no image in this folder; known: .*\.png"):
        image_files.in_folder(tmp_path)


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    for name in ("a.jpg", "notes.txt", "._a.jpg"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"1 files passed over, because they are no images that can be read: 1 \.txt$"):
        assert [one.path for one in image_files.in_folder(tmp_path)] == [tmp_path / "a.jpg"]


def test_masks_among_the_images_are_passed_over_and_said_and_read_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("a.jpg", "a_mask.png", "masks/a.png"):
        (tmp_path / name).touch()
    with pytest.warns(
        UserWarning, match=r"2 files passed over, because they are masks by their names: a_mask\.png, \.\.\.; name"
    ):
        assert [one.path for one in image_files.in_folder(tmp_path)] == [tmp_path / "a.jpg"]
    assert [one.path for one in image_files.in_folder(tmp_path / "masks")] == [tmp_path / "masks" / "a.png"]


def test_a_zarr_folder_is_an_image_with_levels(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    for name, size in (("0", 64), ("1", 32)):
        group.create_array(name, data=np.ones((size, size), np.uint8))
    group.attrs["multiscales"] = [{"axes": ["y", "x"], "datasets": [{"path": "0"}, {"path": "1"}]}]
    for given in (tmp_path / "a.ome.zarr", tmp_path):
        (made,) = image_files.to_predict(PredictConfig(tmp_path / "run", (given,), out=tmp_path / "out", level=1))
        assert (made.image, made.view.level, made.form) == (tmp_path / "a.ome.zarr", 1, "image")
        assert made.mask == tmp_path / "out/a.ome.png"


def test_names_of_numbers_and_dots_are_no_suffixes(tmp_path: Path) -> None:
    """DICOM files are often named by their UID, without a suffix."""
    for name in ("1.2.840.55.1", "1.2.840.55.2", "b.v2.dcm"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    made = image_files.to_label(LabelConfig(tmp_path, tmp_path / "out"), None)
    assert [item.mask.name for item in made] == ["1.2.840.55.1.png", "1.2.840.55.2.png", "b.v2.png"]


@pytest.mark.parametrize("harm", ["tar", "first", "index"])
def test_damaged_shards_are_told_with_the_remedy(harm: str, shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    path = folder / ("train-000000.idx" if harm == "index" else "train-000000.tar")
    data = bytearray(path.read_bytes())
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    if harm == "index":
        data = data[: len(data) // 2]
    else:
        data[headers[0 if harm == "first" else 3] + 150] ^= 1  # in its checksum
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.*; run: medsass verify"):
        label.label(LabelConfig(folder, tmp_path / "out"))


def test_further_images_of_a_file_are_told(tmp_path: Path) -> None:
    for at in range(3):
        tifffile.imwrite(tmp_path / "a.tif", np.full((24, 32), 9 * at, np.uint8), append=at > 0)
    with pytest.warns(UserWarning, match=r"a\.tif: other images in the file left out") as told:
        (item,) = image_files.to_label(LabelConfig(tmp_path, tmp_path / "out"), None)
    assert len(told) == 1
    assert item.mask == tmp_path / "out/a.png"
