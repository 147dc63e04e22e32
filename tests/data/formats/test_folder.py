"""The files below a folder: links within it and out of it, circles, depth."""

import os
import subprocess
from pathlib import Path

import pytest
import zarr

from medsass.data.formats import folder
from medsass.data.formats.folder import OUTSIDE
from tests.data.formats.test_kinds import GRAY, written


def test_a_folder_is_searched_for_images_and_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    for name in ("b", "__MACOSX", ".cache", "loop"):
        (tmp_path / name).mkdir()
    images = [written(name, tmp_path) for name in ("x.tif", "b/y.png", "v.mhd", "w.hdr")]
    (tmp_path / "scan").write_bytes((tmp_path / "x.tif").read_bytes())
    (tmp_path / "broken.jpg").write_bytes(b"")
    for name in ("._x.tif", "__MACOSX/._x.tif", ".cache/thumb.png", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes((tmp_path / "b/y.png").read_bytes())
    for name in ("notes.txt", "b/list.csv", "b/more.csv", "README"):
        (tmp_path / name).write_text("a,b\n")
    (tmp_path / "loop/up").symlink_to(tmp_path)
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    group = zarr.open_group(tmp_path / "b/cells.ome.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=GRAY)
    found, passed, outside = folder.images(tmp_path)
    assert outside == []
    assert found == sorted(
        [*images, *(tmp_path / name for name in ("scan", "broken.jpg", "lost.png", "b/cells.ome.zarr"))]
    )
    assert passed == {
        ".txt": 1,
        ".csv": 2,
        "without a suffix": 1,
    }  # the voxels of v.mhd and w.hdr are no files of their own
    assert folder.told(passed) == (
        "4 files passed over, because they are no images that can be read: 2 .csv, 1 .txt, 1 without a suffix"
    )
    assert folder.told(type(passed)()) == ""


def paths(root: Path, **options: bool) -> list[str]:
    return sorted(found.path for found in folder.walk(root, **options))


def test_folders_linked_to_one_another_end_and_each_link_is_followed_where_it_stands(tmp_path: Path) -> None:
    for one in range(12):
        (tmp_path / str(one)).mkdir()
        (tmp_path / str(one) / "a.png").touch()
        for other in range(12):
            (tmp_path / str(one) / f"to {other}").symlink_to(f"../{other}")
    found = paths(tmp_path)
    assert len(found) == 12 + 12 * 11
    assert {"0/a.png", "0/to 1/a.png", "11/to 3/a.png"} < set(found)


def test_two_links_to_one_folder_are_two_folders(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/a.png").touch()
    (tmp_path / "train").symlink_to("pool")
    (tmp_path / "val").symlink_to(tmp_path / "pool")
    assert paths(tmp_path) == ["pool/a.png", "train/a.png", "val/a.png"]


@pytest.mark.parametrize("follow", [False, True])
def test_links_out_of_the_folder_are_followed_only_where_that_is_asked_for(follow: bool, tmp_path: Path) -> None:
    inside, far = tmp_path / "inside", tmp_path / "inside and more"
    for made in (inside, far):
        made.mkdir()
    (far / "a.png").touch()
    (far / "back").symlink_to(far)
    (inside / "folder").symlink_to(far)
    (inside / "b.png").symlink_to("../inside and more/a.png")
    (inside / "chain.png").symlink_to("b.png")
    (inside / "up").symlink_to("..")
    found = {each.path: each for each in folder.walk(inside, follow=follow)}
    if follow:
        assert set(found) == {"b.png", "chain.png", "folder/a.png"}
        return
    assert {path for path, each in found.items() if each.fault == OUTSIDE} == set(found)
    assert {path for path, each in found.items() if each.folder} == {"folder", "up"}
    assert folder.images(inside) == ([], {}, ["b.png", "chain.png", "folder", "up"])


def test_folders_deeper_than_any_recursion_are_listed_up_to_the_longest_path(tmp_path: Path) -> None:
    try:
        _check_deep(tmp_path)
    finally:  # at once, by a program of its own: pytest, which removes what tests leave, would meet its own limit of recursion
        subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)


def _check_deep(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for depth in range(2500):
        os.mkdir("a", dir_fd=here)
        if depth == 1500:
            os.close(os.open("b.png", os.O_CREAT, dir_fd=here))
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    found = list(folder.walk(tmp_path))
    assert [each.path.count("/") for each in found if each.status] == [1500]
    assert [each.fault for each in found if each.folder] == ["File name too long; move it further up"]
