"""Volumes into shards: each slice a sample, cut, windowed and masked as the options and the recipe say."""

import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.formats.depth import scaled
from medsass.data.sharding import shard
from medsass.data.shards import tar
from medsass.data.shards.manifest import load
from tests.data.formats.volumes.files import affine, reoriented, save, save_itk, shown

RNG = np.random.default_rng(0)
SHAPE = (20, 24, 6)
RECIPE = """
name = "ct"
window = [-160, 240]
[[images]]
path = "images/*"
masks = "masks/*"
axis = "y"
every = 4
[splits]
train = 1.0
"""


def samples(out: Path) -> dict[str, dict[str, bytes]]:
    files = [out / item.file for split in load(out).splits.values() for item in split.shards]
    return {key: content for path in files for key, content in tar.read(path)}


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder with one CT volume, and its mask in another orientation of the grid."""
    array = RNG.integers(-1000, 1000, SHAPE).astype(np.int16)
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    save(tmp_path / "source" / "images" / "a.nii.gz", array, "RAS")
    turned = reoriented((array > 500).astype(np.uint8), "LPS", affine("RAS"))
    values = np.asarray(turned.dataobj).transpose(2, 1, 0)
    save_itk(tmp_path / "source" / "masks" / "a.nrrd", values, place=turned.affine)
    return tmp_path / "source", array


def test_slices_are_cut_windowed_and_paired_with_those_of_the_mask(
    source: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, array = source
    (tmp_path / "ct.toml").write_text(RECIPE)
    shard.write(ShardConfig(folder, tmp_path / "out", recipe=str(tmp_path / "ct.toml"), workers=1))
    found, truth = samples(tmp_path / "out"), shown(array, "RAS", "y")[::4]
    assert sorted(found) == [f"a-f{frame:06d}" for frame in range(len(truth))]
    for frame, slice_ in enumerate(truth):
        content = found[f"a-f{frame:06d}"]
        np.testing.assert_array_equal(decoded(content["png"]), scaled(slice_, [(-160, 240)], 8))
        np.testing.assert_array_equal(decoded(content["mask.png"]) > 0, slice_ > 500)
        assert json.loads(content["json"])["range"] == [[-160, 240]]
    options = load(tmp_path / "out").options
    assert (options.axis, options.every, options.window) == ("y", 4, "-160,240")
    assert (options.channels, options.frames) == (None, "auto")


def test_options_go_before_the_recipe_and_the_range_is_that_of_the_volume(
    source: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, array = source
    (tmp_path / "ct.toml").write_text(RECIPE.replace("window = [-160, 240]\n", ""))
    config = ShardConfig(
        folder, tmp_path / "out", recipe=str(tmp_path / "ct.toml"), axis="z", every=1, frames="middle", workers=1
    )
    shard.write(config)
    ((key, content),) = samples(tmp_path / "out").items()
    assert key == "a"
    np.testing.assert_array_equal(
        decoded(content["png"]), scaled(shown(array, "RAS", "z")[3], [(array.min(), array.max())], 8)
    )
    with pytest.raises(ValueError, match="recipe differs"):
        shard.write(ShardConfig(**{**vars(config), "axis": "x", "resume": True}))


def test_options_go_for_a_layout_that_is_recognised_too(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    config = ShardConfig(source[0], tmp_path / "out", axis="x", every=5, window="-160,240")
    found = shard.write(config)
    assert any(note.startswith("layout: --images 'images/*'") for note in found.notes)
    assert sorted(samples(tmp_path / "out")) == [f"a-f{number:06d}" for number in range(4)]
    assert all("mask.png" in content for content in samples(tmp_path / "out").values())
    shard.write(replace(config, resume=True))


def test_pages_of_a_tiff_have_one_range(tmp_path: Path) -> None:
    stack = RNG.integers(0, 4000, (5, 32, 32)).astype(np.uint16)
    stack[1] //= 8
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", stack, photometric="minisblack")
    shard.write(ShardConfig(tmp_path / "in", tmp_path / "out", images="*", workers=1))
    found = samples(tmp_path / "out")
    for frame in range(5):
        levels = scaled(stack[frame], [(stack.min(), stack.max())], 8)
        np.testing.assert_array_equal(decoded(found[f"a-f{frame:06d}"]["png"]), levels)


def test_a_vector_volume_needs_channels(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (4, 20, 24, 2)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    save_itk(tmp_path / "in" / "a.mha", array, vector=True)
    with pytest.raises(ValueError, match=r"2 channels: .*--channels"):
        shard.write(ShardConfig(tmp_path / "in", tmp_path / "out", images="*", workers=1))
    shard.write(ShardConfig(tmp_path / "in", tmp_path / "out", images="*", channels="1", workers=1))
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "in" / "a.mha")))[..., 1]
    np.testing.assert_array_equal(decoded(samples(tmp_path / "out")["a-f000002"]["png"]), theirs[2])


@pytest.mark.parametrize(("change", "reason"), [
    ("same", ""), ("eye", "by its header it lies"), ("shifted", "by its header it lies 12 mm from its image"),
])  # fmt: skip
def test_masks_that_lie_elsewhere_by_their_header_are_left_out(change: str, reason: str, tmp_path: Path) -> None:
    array = RNG.integers(-1000, 1000, SHAPE).astype(np.int16)
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    place = affine("LPS")
    for number in range(2):
        save(tmp_path / f"source/images/{number}.nii.gz", array + np.int16(number), "LPS")
    other = np.eye(4) if change == "eye" else place.copy()
    other[:3, 3] += 12 * (change == "shifted") * np.array([1, 0, 0])
    mask = (array > 500).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, place), tmp_path / "source/masks/0.nii.gz")
    nib.save(nib.Nifti1Image(mask, other), tmp_path / "source/masks/1.nii.gz")
    shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", workers=1))
    found = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [item["file"] for item in found] == ["images/1.nii.gz"] * bool(reason)
    assert all(reason in item["reason"] and "copy the image's affine into it" in item["reason"] for item in found)


def test_a_mask_of_coarser_voxels_in_the_same_place_is_resized(tmp_path: Path) -> None:
    array = np.zeros((20, 24, 6), np.int16)
    array[4:12, 6:18] = 500
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    coarse = np.diag([2.0, 2, 1, 1])
    coarse[:3, 3] = 0.5, 0.5, 0
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "source/images/a.nii.gz")
    nib.save(nib.Nifti1Image((array[::2, ::2] > 0).astype(np.uint8), coarse), tmp_path / "source/masks/a.nii.gz")
    shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", workers=1, resize_masks=True))
    held = samples(tmp_path / "out")
    assert len(held) == 6
    for files in held.values():
        np.testing.assert_array_equal(decoded(files["mask.png"]) > 0, decoded(files["png"]) > 99)


def test_two_files_of_hounsfield_units_without_a_window_are_told(tmp_path: Path) -> None:
    told = {}
    for low in (-1000, 0):  # of CT, and of anything else
        (tmp_path / str(low)).mkdir()
        for name in "ab":
            save(tmp_path / str(low) / f"{name}.nii", RNG.integers(low, 1000, SHAPE).astype(np.int16), "RAS")
            found = shard.write(ShardConfig(tmp_path / str(low), tmp_path / "out", overwrite=True))
            told[low, name] = [
                note for note in found.notes if note.startswith("2 files in physical units, such as a-f000000")
            ]
    assert [bool(notes) for notes in told.values()] == [False, True, False, False]
    found = shard.write(ShardConfig(tmp_path / "-1000", tmp_path / "out", overwrite=True, window="-160,240"))
    assert not any("physical units" in note for note in found.notes)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LPI"])
@pytest.mark.parametrize("turned", ["images", "masks"])
@pytest.mark.parametrize("slices", [1, 6])
def test_pictures_and_volumes_are_pairs_only_where_none_is_turned(
    codes: str, turned: str, slices: int, tmp_path: Path
) -> None:
    """A file without places holds the voxels as SimpleITK gives them; a volume is turned by its header, unless it is LPS."""
    array = RNG.integers(0, 2, (20, 24, slices)).astype(np.uint8)
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
        values = array * np.uint8(200 if name == "images" else 1)
        if name == turned:
            save(tmp_path / "source" / name / "a.nii.gz", values, codes)
        else:
            pages = values.T if slices > 1 else values.T[0]
            tifffile.imwrite(tmp_path / "source" / name / "a.tif", pages, photometric="minisblack")
    config = ShardConfig(tmp_path / "source", tmp_path / "out", workers=1)
    if codes != "LPS" and (slices > 1 or codes == "RAS"):
        with pytest.raises(ValueError, match="one alone says where it lies"):
            shard.write(config)
        return
    shard.write(config)
    found = samples(tmp_path / "out")
    assert len(found) == slices
    for content in found.values():
        np.testing.assert_array_equal(decoded(content["png"]) > 100, decoded(content["mask.png"]) > 0)
