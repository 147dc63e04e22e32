"""Which split an image goes to: shares, groups, and that others do not move it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from medsass.data.sharding.catalog import splits
from medsass.data.sharding.recipe import Classes, Images, Recipe
from tests.support.catalogued import SHARES, by_image, find, make, plain


def exact(source: Path, chosen: Recipe, group_by: str = "") -> Counter[str]:
    return Counter(entry.split for entry in find(source, replace(chosen, exact_splits=True), group_by).entries)


def test_exact_shares_of_the_papers_198_slides(tmp_path: Path) -> None:
    """The paper's 1656/240/480 tiles are 138, 20 and 40 slides of 12."""
    make(tmp_path, *(f"q{i % 7}/{i}.tif" for i in range(198)))
    assert exact(tmp_path, plain()) == {"train": 138, "val": 20, "test": 40}


def test_exact_shares_keep_groups_whole_and_give_each_split_one(tmp_path: Path) -> None:
    make(tmp_path, *(f"p{i % 5}/{i}.tif" for i in range(70)))
    chosen = replace(plain(groups={"patient": r"(?P<group>p\d)/"}), exact_splits=True)
    entries = find(tmp_path, chosen).entries
    where = {(entry.group, entry.split) for entry in entries}
    assert len(where) == 5
    assert Counter(split for _, split in where) == {"train": 3, "val": 1, "test": 1}


def test_group_by_chooses_the_grouping(tmp_path: Path) -> None:
    make(tmp_path, *(f"q{i % 7}/{i}.tif" for i in range(198)))
    chosen = plain(groups={"patient": r"(?P<group>q\d)/", "slide": "(?P<group>.+)"})
    assert len({entry.group for entry in find(tmp_path, chosen).entries}) == 7
    assert len({entry.group for entry in find(tmp_path, chosen, "patient").entries}) == 7
    for name in ("slide", "image"):
        assert exact(tmp_path, chosen, name) == {"train": 138, "val": 20, "test": 40}
    with pytest.raises(
        ValueError,
        match=r"--group-by must be one of patient, slide, image, folder, series for recipe 'mine', .*; got 'eye'",
    ):
        find(tmp_path, chosen, "eye")


def test_split_that_gets_nothing_is_noted(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    notes = find(tmp_path, plain()).notes
    assert sum("got no image" in note for note in notes) == 2


def test_other_files_do_not_move_an_image(tmp_path: Path) -> None:
    make(tmp_path, *(f"img{i}.png" for i in range(60)))
    before = by_image(tmp_path, plain())
    make(tmp_path, *(f"later/other{i}.png" for i in range(60)))
    after = by_image(tmp_path, plain())
    assert {image: after[image].split for image in before} == {image: before[image].split for image in before}


def test_files_of_the_same_names_elsewhere_do_not_move_an_image(tmp_path: Path) -> None:
    make(tmp_path, *(f"x/{i}.png" for i in range(60)))
    before = by_image(tmp_path, plain())
    make(tmp_path, *(f"y/{i}.png" for i in range(60)))
    after = by_image(tmp_path, plain())
    assert {image: after[image].split for image in before} == {image: before[image].split for image in before}


@pytest.mark.parametrize("prefix", ["", "case", "ISIC_00"])
def test_shares_are_near_those_of_the_recipe(prefix: str) -> None:
    counts = Counter(splits.by_hash(f"{prefix}{i}", plain()) for i in range(10_000))
    for split, share in SHARES.items():
        assert abs(counts[split] / 10_000 - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_more_groups_than_are_counted_go_by_hash(tmp_path: Path) -> None:
    source = make(tmp_path, *(f"{i}.png" for i in range(1100)))
    recipe = plain()
    assert {entry.split for entry in find(source, recipe).entries} == set(SHARES)
    assert all(entry.split == splits.by_hash(entry.image, recipe) for entry in find(source, recipe).entries)


def test_groups_stay_together(tmp_path: Path) -> None:
    make(tmp_path, *(f"p{patient}_{i}.png" for patient in range(40) for i in range(5)))
    entries = find(tmp_path, plain(groups={"patient": r"(?P<group>p\d+)_"})).entries
    splits: dict[str, set[str]] = {}
    for entry in entries:
        assert entry.group == entry.image.split("_")[0]
        splits.setdefault(entry.group, set()).add(entry.split)
    assert len(splits) == 40
    assert all(len(where) == 1 for where in splits.values())
    assert len(set.union(*splits.values())) > 1


def test_official_splits_and_shares_can_stand_side_by_side(tmp_path: Path) -> None:
    make(tmp_path, "given/a.png", *(f"free/{i}.png" for i in range(30)))
    chosen = Recipe("mine", (Images("given/*", split="test"), Images("free/*")), splits={"train": 0.5, "val": 0.5},
                    classes=Classes(pattern="(?P<class>given|free)/"))  # fmt: skip
    found = by_image(tmp_path, chosen)
    assert found["given/a.png"].split == "test"
    assert {found[f"free/{i}.png"].split for i in range(30)} == {"train", "val"}
    assert Counter(entry.label for entry in found.values()) == {"given": 1, "free": 30}
