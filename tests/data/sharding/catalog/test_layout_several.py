"""Layouts with several masks an image, several sites, several raters, or pictures that are made of others: nothing is united, and
nothing is paired, that does not belong together.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from medsass.data.sharding import recipe
from tests.support.catalogued import by_image, find, make

FOLDER = recipe.load("folder")
NUMBERS = (0, 1)


def pairs(source: Path, *names: str) -> dict[str, tuple[str, ...]]:
    return {image: entry.masks for image, entry in by_image(make(source, *names), FOLDER).items()}


def test_objects_of_another_sites_image_are_not_united(tmp_path: Path) -> None:
    own = {"A": (1, 2, 3), "B": (4, 5, 6)}
    images = [f"{site}/images/{i}.png" for site, held in own.items() for i in held]
    masks = [f"A/masks/{i}/{k}.png" for i in own["A"] for k in NUMBERS]
    masks += [f"B/masks/{i}/{k}.png" for i in range(1, 7) for k in NUMBERS]  # those of 1 to 3 without an image
    expected = {
        f"{s}/images/{i}.png": tuple(f"{s}/masks/{i}/{k}.png" for k in NUMBERS) for s, held in own.items() for i in held
    }
    assert pairs(tmp_path, *images, *masks) == expected


def test_equal_numbers_of_two_sites_pair_within_each(tmp_path: Path) -> None:
    names = [f"{site}/images/im{i}.png" for site in "AB" for i in range(3)]
    masks = [f"{site}/masks/im{i}_{k}.png" for site in "AB" for i in range(3) for k in NUMBERS]
    expected = {
        f"{s}/images/im{i}.png": tuple(f"{s}/masks/im{i}_{k}.png" for k in NUMBERS) for s in "AB" for i in range(3)
    }
    assert pairs(tmp_path, *names, *masks) == expected


def test_objects_are_numbered_by_digits_alone(tmp_path: Path) -> None:
    names = [f"images/x{i}.png" for i in (1, 2, 3)]
    masks = [f"masks/x{i}_{k}.png" for i in (1, 2, 3) for k in NUMBERS]
    others = [f"masks/x1_2_{k}.png" for k in NUMBERS] + ["masks/x2_1b.png"]
    found = pairs(tmp_path, *names, *masks, *others)
    assert found == {f"images/x{i}.png": tuple(f"masks/x{i}_{k}.png" for k in NUMBERS) for i in (1, 2, 3)}


def test_numbered_masks_beside_their_images_are_united_and_no_others(tmp_path: Path) -> None:
    names = [f"P{i}{end}.png" for i in range(1, 5) for end in ("", "_mask")]
    found = pairs(tmp_path, *names, "P1_mask_1.png", "P2_mask2.png", "P1_mask_old.png")
    assert found["P1.png"] == ("P1_mask.png", "P1_mask_1.png")
    assert found["P2.png"] == ("P2_mask.png", "P2_mask2.png")
    assert found["P3.png"] == ("P3_mask.png",)
    assert "P1_mask_old.png" not in found


@pytest.mark.parametrize(("image", "mask"), [
    ("case_{}/image.png", "case_{}/masks/rater{}.png"),
    ("images/x{}.png", "GT/GT_rater{1}/x{0}.png"),
    ("case{}/ct.nii.gz", "case{}/segmentations/reader{}.nii.gz"),
    ("images/x{}.png", "masks/x{}_rater{}.png"),
])  # fmt: skip
def test_masks_of_several_raters_are_never_united(image: str, mask: str, tmp_path: Path) -> None:
    names = [image.format(i) for i in range(4)] + [mask.format(i, rater) for i in range(4) for rater in (1, 2, 3)]
    assert pairs(tmp_path, *names) == {image.format(i): (mask.format(i, 1),) for i in range(4)}


@pytest.mark.parametrize("folders", [
    ("images", "contours"), ("images", "a"), ("frames", "depth"), ("Frame", "Edge"), ("tissue images", "distance maps"), ("flowers", "overlays"),
])  # fmt: skip
def test_pictures_that_are_made_of_others_are_not_the_images(folders: tuple[str, str], tmp_path: Path) -> None:
    images, others = folders
    names = [f"{images}/a{i}.png" for i in range(9)]
    names += [f"{folder}/a{i}.png" for folder in (others, "masks") for i in range(10)]  # one has lost its image
    assert pairs(tmp_path, *names) == {f"{images}/a{i}.png": (f"masks/a{i}.png",) for i in range(9)}


def test_pictures_in_a_folder_of_masks_are_not_the_images(tmp_path: Path) -> None:
    names = [f"Radiographs/{i}.png" for i in range(5)]
    names += [f"Segmentation/{kind}/{i}.png" for kind in ("teeth_mask", "maxillomandibular") for i in range(5)]
    assert pairs(tmp_path, *names) == {f"Radiographs/{i}.png": (f"Segmentation/teeth_mask/{i}.png",) for i in range(5)}


def test_one_image_in_the_first_folder_alone_does_not_make_all_masks_its_own(tmp_path: Path) -> None:
    held = [(0, 0), *((p, k) for p in (1, 2) for k in range(3))]
    names = [f"p{p}/{kind}/{k}.png" for p, k in held for kind in ("images", "masks")]
    assert pairs(tmp_path, *names) == {f"p{p}/images/{k}.png": (f"p{p}/masks/{k}.png",) for p, k in held}


def test_folders_of_test_images_that_a_wildcard_reads_are_not_read_again(tmp_path: Path) -> None:
    names = [
        f"ROSE-1/{view}/{split}/{kind}/{i:02}.png"
        for view in ("SVC", "DVC") for split, numbers in (("train", range(1, 5)), ("test", range(5, 7)))
        for i in numbers for kind in ("img", "gt")
    ]  # fmt: skip
    entries = by_image(make(tmp_path, *names), FOLDER)
    assert len(entries) == 12
    assert all(entry.masks == (image.replace("/img/", "/gt/"),) for image, entry in entries.items())
    assert {image for image, entry in entries.items() if entry.split == "test"} == {
        image for image in entries if "/test/" in image
    }


def test_images_and_masks_in_folders_of_their_folders_pair(tmp_path: Path) -> None:
    names = [f"Training/Images/GLAUCOMA/d_{i:03}.png" for i in range(3)]
    masks = [f"Training/GT/d_{i:03}/SoftMap/d_{i:03}_cup.png" for i in range(3)]
    assert pairs(tmp_path, *names, *masks) == {name: (mask,) for name, mask in zip(names, masks, strict=True)}


def test_files_beside_masks_that_are_no_images_are_no_masks(tmp_path: Path) -> None:
    names = [f"subset{i % 2}/u{i}.mhd" for i in range(4)] + [f"subset{i % 2}/u{i}.zraw" for i in range(4)]
    masks = [f"seg-lungs/u{i}.{end}" for i in range(4) for end in ("mhd", "zraw", "txt")]
    assert pairs(tmp_path, *names, *masks) == {f"subset{i % 2}/u{i}.mhd": (f"seg-lungs/u{i}.mhd",) for i in range(4)}


def test_instances_in_a_folder_beside_do_not_hide_the_pairs(tmp_path: Path) -> None:
    own = [f"case_{i:05}/{name}.nii.gz" for i in range(4) for name in ("imaging", "segmentation")]
    instances = [f"case_{i:05}/instances/kidney_instance-1_annotation-{k}.nii.gz" for i in range(4) for k in (1, 2)]
    expected = {f"case_{i:05}/imaging.nii.gz": (f"case_{i:05}/segmentation.nii.gz",) for i in range(4)}
    assert pairs(tmp_path, *own, *instances) == expected


def test_a_number_in_a_pattern_stands_for_digits(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b[1].png", *(f"m/a-{end}.png" for end in ("1", "02", "x", "1x", "")), "m/b[1]-7.png")
    table = recipe.Images("*.png", masks="m/{stem}-{number}.png")
    found = find(tmp_path, replace(FOLDER, images=(table,)))
    assert {entry.image: entry.masks for entry in found.entries} == {
        "a.png": ("m/a-02.png", "m/a-1.png"),
        "b[1].png": ("m/b[1]-7.png",),
    }


def test_masks_that_are_united_are_told(tmp_path: Path) -> None:
    names = [f"case{i}/ct.nii.gz" for i in range(3)] + [
        f"case{i}/segmentations/{organ}.nii.gz" for i in range(3) for organ in ("liver", "aorta")
    ]
    told = "3 images have several mask files, up to 2, which are united (first: 'case0/ct.nii.gz')"
    assert told in find(make(tmp_path, *names), FOLDER).notes
