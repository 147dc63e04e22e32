"""Recipe and source folder -> samples. Only names count, so that the files here are empty."""

import re
import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsass.data import catalog, recipe
from medsass.data.catalog import Catalog, Sample
from medsass.data.recipe import Classes, Images, Recipe

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@dataclass(frozen=True)
class Found:
    samples: list[Sample]
    orphans: list[str]
    notes: list[str]


def find(source: Path, chosen: Recipe, group_by: str = "") -> Found:
    made = Catalog(sqlite3.connect(":memory:"))
    made.fill(source, chosen, group_by)
    assert [rank for rank, _ in made.samples()] == list(range(len(made)))
    return Found([sample for _, sample in made.samples()], list(made.orphans()), made.notes())


def plain(images: str = "**/*", masks: str = "", **more: object) -> Recipe:
    return Recipe("mine", (Images(images, masks),), splits=SHARES, **more)  # type: ignore[arg-type]


def by_image(source: Path, chosen: Recipe) -> dict[str, Sample]:
    return {sample.image: sample for sample in find(source, chosen).samples}


def masks(source: Path, chosen: Recipe) -> dict[str, tuple[str, ...]]:
    return {image: sample.masks for image, sample in by_image(source, chosen).items()}


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such folder; SOURCE is the folder that holds the dataset"):
        find(tmp_path / "gone", plain())


def test_source_that_is_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a.png: no such folder"):
        find(make(tmp_path, "a.png") / "a.png", plain())


def test_source_without_a_matching_image_names_the_glob(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt", "images/a.csv")
    with pytest.raises(
        FileNotFoundError, match=r"no image matches 'images/\*' of recipe 'mine'; check SOURCE"
    ) as caught:
        find(tmp_path, plain("images/*"))
    assert str(tmp_path) in str(caught.value)


def test_images_pair_with_masks_by_stem(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "images/sub/b.tif", "images/c.png", "masks/a.png", "masks/deep/b.png", "masks/d.png")
    chosen = plain("images/**/*", "masks/**/*.png")
    assert masks(tmp_path, chosen) == {
        "images/a.jpg": ("masks/a.png",), "images/sub/b.tif": ("masks/deep/b.png",), "images/c.png": (),
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
    """The bundled recipe, with all that `folder` holds moved into `below`."""
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
    samples = find(make(tmp_path, *names), plain()).samples
    assert sorted(sample.image for sample in samples) == sorted(names)
    assert len({sample.key for sample in samples}) == len(names)
    for sample in samples:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", sample.key)


def test_key_of_a_plain_name_is_its_stem(tmp_path: Path) -> None:
    make(tmp_path, "images/ISIC_0012-a.jpg")
    assert [sample.key for sample in find(tmp_path, plain()).samples] == ["ISIC_0012-a"]


def test_images_of_one_stem_get_two_keys_that_begin_with_it(tmp_path: Path) -> None:
    make(tmp_path, "x/a.png", "y/a.png")
    keys = [sample.key for sample in find(tmp_path, plain()).samples]
    assert len(set(keys)) == 2
    assert all(key.startswith("a-") for key in keys)


@given(st.sets(st.from_regex(r"[a-zA-Z0-9 ._'é\[\]-]{1,100}", fullmatch=True), min_size=1, max_size=30))
@settings(deadline=None, max_examples=25)
def test_keys_of_generated_names_are_unique_and_safe(stems: set[str]) -> None:
    names = {f"x{stem}.png" for stem in stems}
    with tempfile.TemporaryDirectory() as folder:
        samples = find(make(Path(folder), *names), plain()).samples
    assert {sample.image for sample in samples} == names
    assert len({sample.key for sample in samples}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", sample.key) for sample in samples)


def exact(source: Path, chosen: Recipe, group_by: str = "") -> Counter[str]:
    return Counter(sample.split for sample in find(source, replace(chosen, exact_splits=True), group_by).samples)


def test_exact_shares_of_the_papers_198_slides(tmp_path: Path) -> None:
    """The paper's 1656/240/480 tiles are 138, 20 and 40 slides of 12."""
    make(tmp_path, *(f"p{i % 7}/{i}.tif" for i in range(198)))
    assert exact(tmp_path, plain()) == {"train": 138, "val": 20, "test": 40}


def test_exact_shares_keep_groups_whole_and_give_each_split_one(tmp_path: Path) -> None:
    make(tmp_path, *(f"p{i % 5}/{i}.tif" for i in range(70)))
    chosen = replace(plain(groups={"patient": r"(?P<group>p\d)/"}), exact_splits=True)
    samples = find(tmp_path, chosen).samples
    where = {(sample.group, sample.split) for sample in samples}
    assert len(where) == 5
    assert Counter(split for _, split in where) == {"train": 3, "val": 1, "test": 1}


def test_group_by_chooses_the_grouping(tmp_path: Path) -> None:
    make(tmp_path, *(f"p{i % 7}/{i}.tif" for i in range(198)))
    chosen = plain(groups={"patient": r"(?P<group>p\d)/", "slide": "(?P<group>.+)"})
    assert len({sample.group for sample in find(tmp_path, chosen).samples}) == 7
    assert len({sample.group for sample in find(tmp_path, chosen, "patient").samples}) == 7
    for name in ("slide", "image"):
        assert exact(tmp_path, chosen, name) == {"train": 138, "val": 20, "test": 40}
    with pytest.raises(
        ValueError, match="--group-by must be one of patient, slide, image for recipe 'mine'; got 'eye'"
    ):
        find(tmp_path, chosen, "eye")


def test_split_that_gets_nothing_is_noted(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    notes = find(tmp_path, plain()).notes
    assert sum("got no image" in note for note in notes) == 2


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
    counts = Counter(catalog._split(f"mine/{prefix}{i}", plain()) for i in range(10_000))
    for split, share in SHARES.items():
        assert abs(counts[split] / 10_000 - share) < 4 * (share * (1 - share) / 10_000) ** 0.5


def test_order_is_split_by_split_and_stable(tmp_path: Path) -> None:
    make(tmp_path, *(f"img{i}.png" for i in range(80)))
    samples = find(tmp_path, plain()).samples
    splits = [sample.split for sample in samples]
    assert splits == sorted(splits, key=list(SHARES).index)
    assert samples == find(tmp_path, plain()).samples
    assert [sample.image for sample in samples] != sorted(sample.image for sample in samples)


def test_groups_stay_together(tmp_path: Path) -> None:
    make(tmp_path, *(f"p{patient}_{i}.png" for patient in range(40) for i in range(5)))
    samples = find(tmp_path, plain(groups={"patient": r"(?P<group>p\d+)_"})).samples
    splits: dict[str, set[str]] = {}
    for sample in samples:
        assert sample.group == sample.image.split("_")[0]
        splits.setdefault(sample.group, set()).add(sample.split)
    assert len(splits) == 40
    assert all(len(where) == 1 for where in splits.values())
    assert len(set.union(*splits.values())) > 1


def isic(folder: Path, rows: str, header: str = "image_id,melanoma,seborrheic_keratosis") -> Path:
    for stem in ("ISIC_1", "ISIC_2", "ISIC_3"):
        make(folder, f"ISIC-2017_Training_Data/{stem}.jpg")
        make(folder, f"ISIC-2017_Training_Part1_GroundTruth/{stem}_segmentation.png")
    (folder / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(f"{header}\n{rows}", "utf-8-sig")
    return folder


def test_class_labels_come_from_the_csv_file(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0,0.0\nISIC_2,0.0,1.0\nISIC_3,0.0,0.0\n")
    found = find(tmp_path, recipe.load("isic2017")).samples
    labels = {sample.key: (sample.split, sample.label) for sample in found}
    assert labels == {
        "ISIC_1": ("train", "melanoma"), "ISIC_2": ("train", "seborrheic_keratosis"), "ISIC_3": ("train", "nevus"),
    }  # fmt: skip
    assert {sample.masks for sample in found} == {
        (f"ISIC-2017_Training_Part1_GroundTruth/ISIC_{i}_segmentation.png",) for i in (1, 2, 3)
    }


def test_image_that_the_csv_file_lacks_has_no_label(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0,0.0\n")
    labels = {sample.key: sample.label for sample in find(tmp_path, recipe.load("isic2017")).samples}
    assert labels == {"ISIC_1": "melanoma", "ISIC_2": None, "ISIC_3": None}


def test_missing_column_is_named(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0\n", header="image_id,melanoma")
    with pytest.raises(ValueError, match=r"Part3_GroundTruth.csv: column 'seborrheic_keratosis' is missing"):
        find(tmp_path, recipe.load("isic2017"))


def test_csv_value_that_is_no_number_names_the_file(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,yes,0.0\n")
    with pytest.raises(ValueError, match=r"Part3_GroundTruth\.csv"):
        find(tmp_path, recipe.load("isic2017"))


def test_csv_row_that_is_short_counts_as_zeros(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0\nISIC_2,\n")
    labels = {sample.key: sample.label for sample in find(tmp_path, recipe.load("isic2017")).samples}
    assert labels == {"ISIC_1": "melanoma", "ISIC_2": "nevus", "ISIC_3": None}


def test_missing_official_split_gives_a_note(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0,0.0\n")
    found = find(tmp_path, recipe.load("isic2017"))
    assert found.notes == [
        "no file matches 'ISIC-2017_Validation_Data/*.jpg': split 'val' left out",
        "no file matches 'ISIC-2017_Test_v2_Data/*.jpg': split 'test' left out",
    ]
    assert {sample.split for sample in found.samples} == {"train"}


def test_class_labels_come_from_the_path(tmp_path: Path) -> None:
    for label in ("Viral Pneumonia", "Normal"):
        for kind in ("images", "masks"):
            make(tmp_path, f"COVID-19_Radiography_Dataset/{label}/{kind}/{label}-1.png")
    found = find(tmp_path, recipe.load("covid19_radiography"))
    assert {sample.image.split("/")[1]: sample.label for sample in found.samples} == {
        "Viral Pneumonia": "Viral Pneumonia", "Normal": "Normal",
    }  # fmt: skip
    assert {sample.key for sample in found.samples} == {"Viral_Pneumonia-1", "Normal-1"}
    assert all(sample.masks == (sample.image.replace("/images/", "/masks/"),) for sample in found.samples)
    assert found.orphans == []


def test_official_splits_and_shares_can_stand_side_by_side(tmp_path: Path) -> None:
    make(tmp_path, "given/a.png", *(f"free/{i}.png" for i in range(30)))
    chosen = Recipe("mine", (Images("given/*", split="test"), Images("free/*")), splits={"train": 0.5, "val": 0.5},
                    classes=Classes(pattern="(?P<class>given|free)/"))  # fmt: skip
    found = by_image(tmp_path, chosen)
    assert found["given/a.png"].split == "test"
    assert {found[f"free/{i}.png"].split for i in range(30)} == {"train", "val"}
    assert Counter(sample.label for sample in found.values()) == {"given": 1, "free": 30}
