"""Recipe and source folder -> entries of the catalog. Only names count, so that the files here are empty."""

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.sharding import recipe
from medsass.data.sharding.recipe import Images, Recipe
from tests.support.catalogued import SHARES, find, make, masks, plain
from tests.support.effort import examples


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such folder; SOURCE is the folder that holds the dataset"):
        find(tmp_path / "gone", plain())


def test_source_that_is_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        NotADirectoryError, match=r"a.png: a file; SOURCE is .*: give the folder that it is in, or unpack it"
    ):
        find(make(tmp_path, "a.png") / "a.png", plain())


def test_source_without_a_matching_image_names_the_glob(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt", "images/a.csv")
    with pytest.raises(
        FileNotFoundError,
        match=r"no image matches 'images/\*' of recipe 'mine' \(passed over: 1 '.csv' files\); check SOURCE",
    ) as caught:
        find(tmp_path, plain("images/*"))
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(
        FileNotFoundError, match=r"'scans/\*' .*; it holds 'images/a.csv' and 'notes.txt'; check SOURCE"
    ):
        find(tmp_path, plain("scans/*"))
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="it is empty"):
        find(tmp_path / "none", plain())


def test_images_pair_with_masks_by_stem(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "images/sub/b.tif", "images/c.png", "masks/a.png", "masks/sub/b.png", "masks/d.png")
    chosen = plain("images/**/*", "masks/**/*.png")
    assert masks(tmp_path, chosen) == {
        "images/a.jpg": ("masks/a.png",), "images/sub/b.tif": ("masks/sub/b.png",), "images/c.png": (),
    }  # fmt: skip
    assert find(tmp_path, chosen).orphans == ["masks/d.png"]


def test_masks_are_not_images_when_one_glob_holds_both(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "masks/a.png")
    assert masks(tmp_path, plain("**/*", "masks/*.png")) == {"images/a.jpg": ("masks/a.png",)}


def test_masks_beside_their_images_are_not_images(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a_mask.png", "b.png", "b_mask.png")
    assert masks(tmp_path, plain("*.png", "{stem}_mask.png")) == {"a.png": ("a_mask.png",), "b.png": ("b_mask.png",)}


def test_stem_placeholder(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "images/ab.jpg", "truth/a_seg.png", "truth/ab_seg.png", "truth/c_seg.png")
    chosen = plain("images/*", "truth/{stem}_seg.png")
    assert masks(tmp_path, chosen) == {"images/a.jpg": ("truth/a_seg.png",), "images/ab.jpg": ("truth/ab_seg.png",)}
    assert find(tmp_path, chosen).orphans == ["truth/c_seg.png"]


def test_name_and_dir_placeholders(tmp_path: Path) -> None:
    make(tmp_path, "x/images/a.png", "x/masks/a.png", "y/images/a.png", "y/masks/a.png", "y/masks/lost.png")
    chosen = plain("*/images/*.png", "{dir}/../masks/{name}")
    assert masks(tmp_path, chosen) == {"x/images/a.png": ("x/masks/a.png",), "y/images/a.png": ("y/masks/a.png",)}
    assert find(tmp_path, chosen).orphans == ["y/masks/lost.png"]


def test_several_masks_of_one_image(tmp_path: Path) -> None:
    make(tmp_path, "i/images/i.png", "i/masks/2.png", "i/masks/1.png", "j/images/j.png", "j/masks/3.png")
    assert masks(tmp_path, recipe_of("dsb2018", tmp_path, "stage1_train")) == {
        "stage1_train/i/images/i.png": ("stage1_train/i/masks/1.png", "stage1_train/i/masks/2.png"),
        "stage1_train/j/images/j.png": ("stage1_train/j/masks/3.png",),
    }


def recipe_of(name: str, folder: Path, below: str) -> Recipe:
    """Load the bundled recipe, and move everything in `folder` into its folder `below`."""
    held = list(folder.iterdir())
    (folder / below).mkdir()
    for path in held:
        path.rename(folder / below / path.name)
    return recipe.load(name)


@pytest.mark.parametrize(
    "name", ["a[1].png", "what?.png", "st*r.png", "{stem}.png", "it's.png", 'say "é".png', "a.b.c.png"]
)
def test_odd_names_find_their_mask(name: str, tmp_path: Path) -> None:
    make(tmp_path, f"d[0]/images/{name}", f"d[0]/masks/{name}", "d[0]/images/a1.png", "d[0]/masks/a1.png")
    for pattern in ("{dir}/../masks/{name}", "{dir}/../masks/{stem}.png", "*/masks/*.png"):
        assert masks(tmp_path, plain("*/images/*", pattern))[f"d[0]/images/{name}"] == (f"d[0]/masks/{name}",)


def test_two_masks_with_one_stem_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "masks/x/a.png", "masks/y/a.png")
    with pytest.raises(ValueError, match=r"masks 'masks/x/a.png' and 'masks/y/a.png' have one stem; .* \{dir\}"):
        find(tmp_path, plain("images/*", "masks/**/*.png"))


def test_masks_outside_the_source_are_refused_with_the_rule(tmp_path: Path) -> None:
    make(tmp_path, "source/a.png", "masks/a.png")
    with pytest.raises(ValueError, match="SOURCE"):
        find(tmp_path / "source", plain("*.png", "../masks/*.png"))


def test_keys_are_unique_and_safe_for_any_names(tmp_path: Path) -> None:
    names = [
        "a b.png",
        "a_b.png",
        "a.b.png",
        "é.png",
        "è.png",
        'it\'s "x".png',
        "x/a b.png",
        "日本.tif",
        "n" * 150 + ".png",
    ]
    entries = find(make(tmp_path, *names), plain()).entries
    assert sorted(entry.image for entry in entries) == sorted(names)
    assert len({entry.key for entry in entries}) == len(names)
    for entry in entries:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", entry.key)


def test_key_of_a_plain_name_is_its_stem(tmp_path: Path) -> None:
    make(tmp_path, "images/ISIC_0012-a.jpg")
    assert [entry.key for entry in find(tmp_path, plain()).entries] == ["ISIC_0012-a"]


def test_images_of_one_stem_get_two_keys_that_begin_with_it(tmp_path: Path) -> None:
    make(tmp_path, "x/a.png", "y/a.png")
    keys = [entry.key for entry in find(tmp_path, plain()).entries]
    assert len(set(keys)) == 2
    assert all(key.startswith("a-") for key in keys)


@given(st.sets(st.from_regex(r"[a-zA-Z0-9 ._'é\[\]-]{1,100}", fullmatch=True), min_size=1, max_size=30))
@examples(25)
def test_keys_of_generated_names_are_unique_and_safe(stems: set[str]) -> None:
    names = {f"x{stem}.png" for stem in stems}
    with tempfile.TemporaryDirectory() as folder:
        entries = find(make(Path(folder), *names), plain()).entries
    assert {entry.image for entry in entries} == names
    assert len({entry.key for entry in entries}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", entry.key) for entry in entries)


def test_image_outside_of_the_groups_pattern_is_noted(tmp_path: Path) -> None:
    make(tmp_path, "p1/a.png", "p1/b.png", "c.png")
    notes = find(tmp_path, plain(groups={"patient": r"(?P<group>p\d)/"})).notes
    assert any(note.startswith("1 images do not match the pattern of their group") for note in notes)


def test_image_of_two_tables_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png")
    twice = Recipe("mine", (Images("images/*"), Images("**/*.png")), splits=SHARES)
    with pytest.raises(ValueError, match=r"images/a.png is matched by two \[\[images\]\] of recipe 'mine'"):
        find(tmp_path, twice)


def test_masks_in_the_images_own_file(tmp_path: Path) -> None:
    make(tmp_path, "a.npz")
    own = Recipe("mine", (Images("*.npz", array="X", mask_array="y"),), splits=SHARES)
    assert masks(tmp_path, own) == {"a.npz": ("a.npz",)}


def test_order_is_split_by_split_and_stable(tmp_path: Path) -> None:
    make(tmp_path, *(f"img{i}.png" for i in range(80)))
    entries = find(tmp_path, plain()).entries
    splits = [entry.split for entry in entries]
    assert splits == sorted(splits, key=list(SHARES).index)
    assert entries == find(tmp_path, plain()).entries
    assert [entry.image for entry in entries] != sorted(entry.image for entry in entries)
