"""Notes on files that are no entries."""

from pathlib import Path

import pytest

from medsass.config import ShardConfig
from medsass.data.sharding import recipe, shard
from tests.support.catalogued import find, make

FOLDER = recipe.load("folder")


@pytest.mark.parametrize(("files", "first", "taken"), [
    (("images/{}.png", "masks_liver/{}.png", "masks_kidney/{}.png"), "masks_liver/0.png", "masks_kidney/0.png"),
    (("c{}.png", "c{}_liver_mask.png", "c{}_kidney_mask.png"), "c0_kidney_mask.png", "c0_liver_mask.png"),
    (("a_{}_leftImg8bit.png", "a_{}_gt_color.png", "a_{}_gt.png"), "", ""),  # _color is no mask by its name
    (("images/{}.tif", "1st_manual/{}.gif", "mask/{}.gif"), "", ""),  # a field of view
    (("images/{}.png", "masks/{}.png", "masks/x{}.png"), "", ""),
])  # fmt: skip
def test_masks_that_fit_as_well_as_those_that_are_taken_are_warned_of(
    files: tuple[str, ...], first: str, taken: str, tmp_path: Path
) -> None:
    make(tmp_path, *(file.format(i) for file in files for i in range(6)))
    told = [note for note in find(tmp_path, FOLDER).notes if "and the like" in note]
    expected = f"WARNING: 6 more masks, such as '{first}', fit images that have '{taken}' and the like; --masks says which are meant"
    assert told == ([expected] if first else [])


@pytest.mark.parametrize(("files", "remedy"), [
    (("a/{}_with_mask.png", "b/{}_without_mask.png"), "--images '**/*' reads them"),
    (("gt/x/images/{}.tif", "gt/x/vessel/{}.png"), "if 'gt' holds the images too, give it as SOURCE"),
    (("gt/{}.tif", "gt/x/{}.png"), "if 'gt' holds the images too, rename it"),
    (("seg/{}.tif", "seg/x/{}.png"), "if 'seg' holds the images too, say --images 'seg/**/*'"),
])  # fmt: skip
def test_where_all_is_named_as_masks_are_the_images_can_be_said(
    files: tuple[str, ...], remedy: str, tmp_path: Path
) -> None:
    make(tmp_path, *(file.format(i) for file in files for i in range(6)))
    with pytest.raises(FileNotFoundError) as error:
        find(tmp_path, FOLDER)
    assert str(error.value).endswith(f"; {remedy}")
    if "SOURCE" in remedy:
        assert {entry.image for entry in find(tmp_path / "gt", FOLDER).entries} >= {
            f"x/images/{i}.tif" for i in range(6)
        }
    elif "--images" in remedy:
        chosen, _ = shard.resolve(ShardConfig(tmp_path, tmp_path, images=remedy.split("'")[-2]))
        assert len(find(tmp_path, chosen).entries) == 12
