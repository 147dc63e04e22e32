"""Masks whose frames are not their image's, by the numbers, the pages or the axes that both files name."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.data.sharding.test_shard_volumes import decoded
from tests.support.faults import samples

RNG = np.random.default_rng(0)


def blobs(count: int) -> np.ndarray:
    """Return masks (count, 24, 32) of 0 and 255 of which no two are alike."""
    held = np.zeros((count, 24, 32), np.uint8)
    for k in range(count):
        held[k, k : k + 6, 2 * k : 2 * k + 8] = 255
    return held


def folders(source: Path) -> Path:
    for name in ("images", "masks"):
        (source / name).mkdir(parents=True)
    return source


def reasons(out: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (out / "rejected.jsonl").read_text().splitlines()]


def append(path: Path, pages: np.ndarray) -> None:
    for at, page in enumerate(pages):
        tifffile.imwrite(path, page, append=at > 0)


def animate(path: Path, pages: np.ndarray) -> None:
    first, *others = map(Image.fromarray, pages)
    first.save(path, save_all=True, append_images=others, duration=100)


@pytest.mark.parametrize("name", ["append.tif", "animation.gif", "animation.png"])
def test_further_pages_of_a_mask_are_never_left_out(name: str, tmp_path: Path) -> None:
    source, masks = folders(tmp_path / "source"), blobs(4)
    for i in range(4):
        Image.fromarray(RNG.integers(0, 255, (24, 32), np.uint8)).save(source / f"images/{i}.png")
        many = i == 1
        path = source / f"masks/{i}{Path(name).suffix}"
        (append if name.startswith("append") else animate)(path, masks if many else masks[i : i + 1])
    manifest = shard.write(ShardConfig(source, tmp_path / "out"))
    assert sorted(samples(tmp_path / "out", manifest)) == ["0", "2", "3"]
    (reason,) = reasons(tmp_path / "out")
    assert reason.startswith("mask masks/1")
    assert reason.endswith("as a file of its own, which are united")


@pytest.mark.parametrize("form", ["tif", "zarr"])
@pytest.mark.parametrize("axes", ["ZTYX", "TZYX", "QQYX"])
def test_frames_are_paired_by_axes_that_both_name_alike(form: str, axes: str, tmp_path: Path) -> None:
    source, masks = folders(tmp_path / "source"), blobs(6).reshape(2, 3, 24, 32)
    swapped = axes == "ZTYX"
    mask = masks.swapaxes(0, 1) if swapped else masks
    if form == "zarr" and axes == "QQYX":
        axes = "TZYX"
    for i in range(3):
        image = masks // 255 * 200 + RNG.integers(0, 40, masks.shape, np.uint8)
        write(source / f"images/c{i}", form, image, "TZYX")
        write(source / f"masks/c{i}", form, mask, axes)
    config = ShardConfig(source, tmp_path / "out", frames="all")
    if swapped:
        with pytest.raises(
            ValueError, match=r"its frames are 3 \(Z\) x 2 \(T\) in this order, and its image's 2 \(T\) x 3 \(Z\)"
        ):
            shard.write(config)
        return
    held = samples(tmp_path / "out", shard.write(config))
    assert len(held) == 18
    for content in held.values():
        np.testing.assert_array_equal(decoded(content["mask.png"]) > 0, decoded(content["png"]) >= 200)


def write(path: Path, form: str, array: np.ndarray, axes: str) -> None:
    if form == "tif" and axes == "QQYX":
        tifffile.imwrite(path.with_suffix(".tif"), array, photometric="minisblack")
    elif form == "tif":
        tifffile.imwrite(path.with_suffix(".ome.tif"), array, photometric="minisblack", metadata={"axes": axes})
    else:
        root: Any = zarr.open_group(path.with_suffix(".zarr"), mode="w", zarr_format=2)
        root.create_array("0", data=array)
        named = [{"name": letter.lower(), "type": "space"} for letter in axes]
        root.attrs["multiscales"] = [{"version": "0.4", "axes": named, "datasets": [{"path": "0"}]}]


@pytest.mark.parametrize("options", [{"frames": "middle"}, {"frames": "8"}, {"every": 2}], ids=str)
def test_a_stack_of_another_length_masks_no_chosen_slice(options: dict[str, Any], tmp_path: Path) -> None:
    source = folders(tmp_path / "source")
    nibabel.save(
        nibabel.Nifti1Image(RNG.integers(0, 255, (32, 24, 10), np.uint8), np.diag([-1, -1, 1, 1])),
        source / "images/a.nii",
    )
    tifffile.imwrite(source / "masks/a.tif", blobs(9), photometric="minisblack")
    with pytest.raises(ValueError, match=r"it has 9 pages or slices, and its image has 10; save"):
        shard.write(ShardConfig(source, tmp_path / "out", images="images/*", masks="masks/*", **options))


def test_slices_of_the_first_of_several_volumes_are_those_of_their_mask(tmp_path: Path) -> None:
    source = folders(tmp_path / "source")
    for name, shape in (("images", (32, 30, 8, 3)), ("masks", (32, 30, 8))):
        array = RNG.integers(0, 2, shape).astype(np.uint8) * 255
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-1, -1, 1, 1])), source / name / "a.nii")
    for frames, wrong in (("first", False), ("3", False), ("middle", True)):
        config = ShardConfig(source, tmp_path / frames, images="images/*", masks="masks/*", frames=frames)
        if wrong:
            with pytest.raises(ValueError, match="it has 8 pages or slices, and its image has 24"):
                shard.write(config)
        else:
            assert "mask.png" in samples(tmp_path / frames, shard.write(config))["a"]
