"""The choice of channels, and the remedies that messages name: of an image's options, of a mask's keys of a recipe."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from medsass.data.formats.choice import pick_channels
from medsass.data.formats.image import Selection
from medsass.data.formats.mask import Foreground, selection
from medsass.data.formats.opening import open_image
from tests.data.formats.test_mask import read_mask
from tests.support.faults import open_files

TRUTH = np.random.default_rng(0).integers(0, 2, (7, 9), np.uint8)
HOT = np.stack([1 - TRUTH, TRUTH], axis=-1)
IN_RECIPE = r" in \[\[images\]\] of a recipe"


@pytest.mark.parametrize("chosen", [(0, 1), (-1,), (-1, -1, -1), (3,), (0, 1, -2), (0, 1, 2, 0)])
def test_other_choices_are_refused(chosen: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be one or three of the file's 3, numbered from 0; -1 is black"):
        pick_channels(Selection(channels=chosen), 3)


def test_one_or_three_channels_need_no_choice_and_others_name_the_remedy() -> None:
    assert pick_channels(Selection(), 1) == (0,)
    assert pick_channels(Selection(), 3) == (0, 1, 2)
    assert pick_channels(Selection(channels=(2, -1, 0)), 3) == (2, -1, 0)
    for count in (0, 2, 4):
        with pytest.raises(ValueError, match=rf"^{count} channels: .* --channels 0 for gray"):
            pick_channels(Selection(), count)


def written(path: Path) -> Path:
    """Write HOT, a layer for the ground and one for the objects, by the library of the format."""
    if path.suffix == ".npy":
        np.save(path, HOT)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["m"] = HOT
    elif path.suffix == ".nrrd":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(HOT[None], isVector=True), path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, np.moveaxis(HOT, -1, 0), photometric="minisblack")
    else:
        volume = HOT.transpose(1, 0, 2)[:, :, None]
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1, -1, 1, 1])), path)
    return path


@pytest.mark.parametrize("foreground", ["binary", "nonzero", "half", ("#ff0000",)])
@pytest.mark.parametrize("name", ["m.npy", "m.h5", "m.seg.nrrd", "m.nii.gz", "m.tif"])
def test_a_mask_of_two_layers_names_the_key_that_chooses_one(name: str, foreground: Foreground, tmp_path: Path) -> None:
    path = written(tmp_path / name)
    with pytest.raises(ValueError, match=r"mask_channels = \[(0|I)\]" + IN_RECIPE) as error:
        read_mask([path], foreground)
    assert "--channels" not in str(error.value)
    with pytest.raises(ValueError, match=r"--channels (0|I)\b") as error:
        open_image(path, Selection())
    if name != "m.npy":  # a memory map, which ends with the last array on it
        assert not open_files(tmp_path), error
    np.testing.assert_array_equal(read_mask([path], view=Selection(channels=(1,))), TRUTH)


def test_a_channel_that_a_mask_lacks_is_told_by_the_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^mask_channels = \[2\] must be one or three of the file's 2"):
        read_mask([written(tmp_path / "m.npy")], view=Selection(channels=(2,)))


@pytest.mark.parametrize("name", ["m.npz", "m.h5"])
def test_a_mask_file_of_several_arrays_names_the_key_that_chooses_one(name: str, tmp_path: Path) -> None:
    path, held = tmp_path / name, {"x": 1 - TRUTH, "y": TRUTH}
    if name == "m.npz":
        np.savez(path, **held)
    else:
        with h5py.File(path, "w") as file:
            file.update(held)
    for array in ("", "z"):
        with pytest.raises(ValueError, match='say which by mask_array = "NAME"' + IN_RECIPE + ": x"):
            open_image(path, selection(Selection(array=array), "binary"))
    np.testing.assert_array_equal(read_mask([path], view=Selection(array="y")), TRUTH)


def test_slices_or_channels_of_a_mask_are_told_by_the_key(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.zeros((5, 24, 40), np.uint8))
    with pytest.raises(ValueError, match=r"say which: --frames all, or mask_channels = \[0\]" + IN_RECIPE + "$"):
        read_mask([tmp_path / "m.npy"])
