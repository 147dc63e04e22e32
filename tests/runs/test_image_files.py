"""Image files of a folder."""

from pathlib import Path

import pytest

from medsass.runs import image_files


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
