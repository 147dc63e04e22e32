"""HDF5 and Zarr against the arrays that h5py and zarr wrote, and chunks written by hand; axes against NumPy's."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.support.faults import open_files

RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 60_000, (5, 24, 40), np.uint16)


def hdf5(path: Path, **arrays: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name.replace("_", "/"), data=array, chunks=True, compression="gzip")
    return path


def ome(path: Path, arrays: list[np.ndarray], axes: str, version: int = 3) -> Path:
    """Write an OME-Zarr image as NGFF 0.4 (Zarr 2) or 0.5 (Zarr 3) says."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for level, array in enumerate(arrays):
        group.create_array(str(level), data=array, chunks=tuple(min(16, side) for side in array.shape))
    named = [{"name": axis.lower(), "type": "space"} for axis in axes]
    described = {"multiscales": [{"axes": named, "datasets": [{"path": str(i)} for i in range(len(arrays))]}]}
    group.attrs.update(described if version == 2 else {"ome": {"version": "0.5", **described}})
    return path


def test_the_only_image_of_an_hdf5_file_is_read(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", raw_pixels=VOLUME[0], times=np.arange(5.0), name=np.array([b"x"]))
    with open_image(path) as picture:
        np.testing.assert_array_equal(picture.read(), VOLUME[0])
        np.testing.assert_array_equal(picture.read(0, Box(3, 5, 7, 9)), VOLUME[0, 3:10, 5:14])
        assert (picture.streams, picture.dtype, picture.converted) == (True, np.uint16, "")


def test_one_of_several_datasets_must_be_named(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.hdf5", raw=VOLUME[0], labels_cells=VOLUME[1])
    with pytest.raises(
        ValueError, match=r"2 datasets that can be images in the file; .*: labels/cells \(24, 40\), raw \(24, 40\)"
    ):
        open_image(path)
    with pytest.raises(ValueError, match=r"no dataset 'masks' in the file"):
        open_image(path, Selection(array="masks"))
    for name in ("labels/cells", "/labels/cells"):
        with open_image(path, Selection(array=name)) as picture:
            np.testing.assert_array_equal(picture.read(), VOLUME[1])
    with pytest.raises(ValueError, match="no datasets that can be images"):
        open_image(hdf5(tmp_path / "b.h5", times=np.arange(5.0)))


COLOURS = RNG.integers(0, 60_000, (5, 24, 40, 3), np.uint16)


@pytest.mark.parametrize(("stored", "frames", "view"), [
    (VOLUME[0], VOLUME[:1], Selection()),
    (np.moveaxis(VOLUME[:3], 0, 2), np.moveaxis(VOLUME[None, :3], 1, 3), Selection(channels=(0, 1, 2))),
    (COLOURS[0], COLOURS[:1], Selection()),
    (VOLUME.transpose(1, 2, 0), VOLUME, Selection(frames="all")),
    (VOLUME.transpose(1, 2, 0), VOLUME[3:4], Selection(channels=(3,))),
    (VOLUME.transpose(1, 2, 0), VOLUME.transpose(1, 0, 2), Selection(frames="all", axis="y")),
    (COLOURS.transpose(1, 2, 3, 0), COLOURS, Selection()),
    (COLOURS, COLOURS, Selection()),
], ids=["H W", "H W C, chosen", "H W C", "H W N", "one of H W C", "H W N across", "H W C N", "N H W C"])  # fmt: skip
def test_matlab_stores_axes_in_reverse_order_and_counts_frames_by_the_last(
    stored: np.ndarray, frames: np.ndarray, view: Selection, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["m"] = stored.T
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    with open_image(tmp_path / "a.mat", view) as picture:
        np.testing.assert_array_equal([picture.read(frame) for frame in range(picture.frames)], frames)
        np.testing.assert_array_equal(picture.read(0, Box(1, 5, 2, 9)), frames[0, 1:3, 5:14])


def test_the_zeros_that_fill_the_chunks_of_imaris_are_no_part_of_the_image(tmp_path: Path) -> None:
    name = "DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"
    with h5py.File(tmp_path / "a.ims", "w") as file:
        padded = np.pad(VOLUME, ((0, 3), (0, 8), (0, 24)))
        file.create_dataset(name, data=padded, chunks=(8, 16, 16), compression="gzip")
        for axis, size in zip("ZYX", VOLUME.shape, strict=True):
            file[name].parent.attrs[f"ImageSize{axis}"] = np.array(list(str(size)), "S1")
    for view, truth in ((Selection(frames="all"), VOLUME), (Selection(axis="x"), VOLUME.transpose(2, 0, 1))):
        with open_image(tmp_path / "a.ims", view) as picture:
            np.testing.assert_array_equal([picture.read(frame) for frame in range(picture.frames)], truth)
            np.testing.assert_array_equal(picture.read(1, Box(1, 2, 3, 4)), truth[1, 1:4, 2:6])


def test_what_is_no_array_of_numbers_is_refused_and_its_file_closed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["null"], file["text"] = h5py.Empty("f"), "hello"
        file["pairs"] = np.zeros((4, 4), [("x", "u1"), ("y", "f4")])
    for name, message in (
        ("null", r"an array of shape \(\)"), ("text", r"an array of shape \(\)"), ("pairs", "pixels of type .* are not supported"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            open_image(tmp_path / "a.h5", Selection(array=name))
        assert not open_files(tmp_path)
    with open_image(hdf5(tmp_path / "b.h5", raw=VOLUME[0])):
        assert open_files(tmp_path)
    assert not open_files(tmp_path)


@pytest.mark.parametrize(("shapes", "message"), [
    ([(24, 40), None], "a group, not an array, at 1, where a level of the pyramid should be"),
    ([None], "a group, not an array, at 0,"),
    ([(24, 40), (12,)], r"axes YX for an array of shape \(12,\)"),
])  # fmt: skip
def test_levels_that_are_no_images_are_refused(
    shapes: list[tuple[int, ...] | None], message: str, tmp_path: Path
) -> None:
    path = ome(tmp_path / "a.zarr", [np.zeros(shape or (4, 4), np.uint8) for shape in shapes], "YX")
    for level, shape in enumerate(shapes):
        if shape is None:
            zarr.open_group(path / str(level), mode="w")
    with pytest.raises(ValueError, match=message):
        open_image(path)


def test_a_damaged_hdf5_file_is_refused(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", raw=VOLUME[0])
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"\w+"):
        open_image(path)


@pytest.mark.parametrize("axis", ["z", "y", "x"])
@pytest.mark.parametrize("kind", ["h5", "npy", "zarr"])
def test_a_stack_is_cut_along_any_axis(kind: str, axis: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "h5":
        hdf5(path, raw=VOLUME)
    elif kind == "npy":
        np.save(path, VOLUME)
    else:
        ome(path, [VOLUME], "ZYX")
    slices = np.moveaxis(VOLUME, {"z": 0, "y": 1, "x": 2}[axis], 0)[::3]
    with open_image(path, Selection(frames="all", axis=axis, every=3)) as picture:
        assert (picture.frames, picture.height, picture.width) == slices.shape
        for frame, truth in enumerate(slices):
            np.testing.assert_array_equal(picture.read(frame), truth)
        np.testing.assert_array_equal(picture.read(1, Box(1, 2, 3, 4)), slices[1, 1:4, 2:6])
        assert picture.common == (axis != "z" or kind == "zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_levels_of_ome_zarr_are_a_pyramid(version: int, tmp_path: Path) -> None:
    levels = [VOLUME[None, :, :: 1 << i, :: 1 << i] for i in range(3)]  # C, Z, Y, X
    path = ome(tmp_path / "a.ome.zarr", levels, "CZYX", version)
    for level, truth in enumerate(levels):
        with open_image(path, Selection(level=level)) as picture:
            assert picture.levels == tuple(one.shape[2:] for one in levels)
            assert (picture.frames, picture.common, picture.stack) == (5, True, True)
            np.testing.assert_array_equal(picture.read(3), truth[0, 3])
    with open_image(path) as picture:
        np.testing.assert_allclose(picture.small(2, most=20), levels[1][0, 2], atol=0.5)
    with pytest.raises(ValueError, match="no pyramid level 3"):
        open_image(path, Selection(level=3))


def test_channels_of_ome_zarr_are_chosen(tmp_path: Path) -> None:
    path = ome(tmp_path / "two.zarr", [VOLUME[:2]], "CYX")
    with pytest.raises(ValueError, match="2 channels: say which to read: --channels 0"):
        open_image(path)
    with open_image(path, Selection(channels=(1,))) as picture:
        np.testing.assert_array_equal(picture.read(), VOLUME[1])
    with open_image(ome(tmp_path / "three.zarr", [VOLUME[:3]], "CYX")) as picture:
        np.testing.assert_array_equal(picture.read(), np.moveaxis(VOLUME[:3], 0, -1))
        assert picture.per_channel


def test_old_metadata_and_chunks_written_by_hand_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "a.zarr"
    (folder / "0").mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]}))
    header = {"zarr_format": 2, "shape": [1, 1, 2, 24, 40], "chunks": [1, 1, 1, 24, 40], "dtype": "<u2", "order": "C",
              "compressor": None, "filters": None, "fill_value": 0}  # fmt: skip
    (folder / "0/.zarray").write_text(json.dumps(header))
    for z in range(2):
        (folder / f"0/0.0.{z}.0.0").write_bytes(VOLUME[z].tobytes())
    with open_image(folder) as picture:
        assert picture.frames == 2
        np.testing.assert_array_equal(picture.read(1), VOLUME[1])


def test_group_of_a_single_array_is_that_image(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=VOLUME[None, :1, None], chunks=(1, 1, 1, *VOLUME.shape[1:]))
    with open_image(tmp_path / "a.zarr") as picture:
        np.testing.assert_array_equal(picture.read(), VOLUME[0])


def test_folders_that_are_no_one_image_are_refused(tmp_path: Path) -> None:
    for name, attributes, message in (
        ("a", {}, "a Zarr group without an image"), ("b", {"plate": {}}, "a plate of wells; name an image in it"),
        ("c", {"bioformats2raw.layout": 3}, "several images in one folder; name one of them, such as c.zarr/0"),
    ):  # fmt: skip
        group = zarr.open_group(tmp_path / f"{name}.zarr", mode="w", zarr_format=2)
        group.attrs.update(attributes)
        for child in ("0", "1"):
            group.create_group(child)
        with pytest.raises(ValueError, match=message):
            open_image(tmp_path / f"{name}.zarr")
    with pytest.raises(ValueError, match="not an image file that can be read"):
        open_image(tmp_path)


def test_the_only_array_of_a_group_without_metadata_is_read(tmp_path: Path) -> None:
    for name, array, truth in (("a", VOLUME[None, None], VOLUME), ("b", VOLUME[0], VOLUME[:1])):
        zarr.open_group(tmp_path / f"{name}.zarr", mode="w", zarr_format=2).create_array("0", data=array)
        with open_image(tmp_path / f"{name}.zarr") as picture:
            assert picture.frames == len(truth)
            np.testing.assert_array_equal(picture.read(picture.frames - 1), truth[-1])


def test_a_bare_zarr_array_follows_the_rule_of_numpy_files(tmp_path: Path) -> None:
    zarr.save_array(tmp_path / "a.zarr", VOLUME[0])
    with open_image(tmp_path / "a.zarr") as picture:
        np.testing.assert_array_equal(picture.read(), VOLUME[0])
