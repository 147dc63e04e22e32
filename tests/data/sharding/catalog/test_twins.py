"""Warnings of images that may be the masks of others, by their names alone, and none for plain sets of images."""

from pathlib import Path

import pytest

from medsass.data.sharding import recipe
from tests.support.catalogued import by_image, find, make, plain

FOLDER = recipe.load("folder")

TWINS = {
    "two splits": (
        [f"data/{split}/{kind}/pos{i}.tif" for split in ("train", "test") for kind in ("source", "target") for i in range(4)],
        "'**/source/*' --masks '**/target/*'",
    ),
    "one split": ([f"train/{kind}/pos{i}.tif" for kind in ("source", "target") for i in range(4)], "'train/source/*' --masks 'train/target/*'"),
    "three folders": ([f"{kind}/{i}.png" for kind in ("edge", "in", "out") for i in range(4)], "'edge/*' --masks 'in/*'"),
    "three folders a patient": (
        [f"MR/{p}/{kind}/{p}-{i}.png" for p in (1, 2, 5) for kind in ("InPhase", "OutPhase", "Filled") for i in range(4)], "'**/Filled/*' --masks '**/InPhase/*'"
    ),
    "two kinds and their contours": (
        [f"{kind}/{i}.png" for kind in ("T2SPIR", "T1DUAL/InPhase", "T1DUAL/OutPhase", "Filled") for i in range(4)], "'Filled/*' --masks 'T1DUAL/InPhase/*'"
    ),
    "two series of a patient": (
        [f"MR/{p}/{kind}/{p}-{i}.png" for p in (1, 2, 5) for kind in ("T2/DICOM", "T2/Filled", "T1/DICOM/In", "T1/DICOM/Out", "T1/Filled") for i in range(4)],
        "'**/DICOM/*' --masks '**/Filled/*'",
    ),
    "masks by a word of their folder": (
        [f"{p}/{kind}/i_{i}.png" for p in (1, 2, 3) for kind in ("LABELLED_X", "PATIENT_X") for i in range(4)], "'**/PATIENT_X/*' --masks '**/LABELLED_X/*'"
    ),
    "labelled and not": ([f"{kind}/{i}.png" for kind in ("labeled", "unlabeled") for i in range(4)], "'labeled/*' --masks 'unlabeled/*'"),
    "numbered objects": (
        [f"{kind}/{i}{end}.bmp" for i in range(106, 110) for kind, ends in (("x", ("",)), ("y", ("_1", "_2"))) for end in ends], "'x/*' --masks 'y/{stem}_*'"
    ),
    "numbered objects in two splits": (
        [f"{s}/{kind}/{i}{end}.bmp" for s in ("train", "val") for i in range(106, 110) for kind, end in (("x", ""), ("y", "_1"))],
        "'**/x/*' --masks '{dir}/../y/{stem}_*'",
    ),
    "masks of some": ([f"{kind}/s{i}.png" for kind, ids in (("x", range(20)), ("y", (2, 5, 11, 17))) for i in ids], "'x/*' --masks 'y/*'"),
    "masks of some beside their images": (
        [f"{i}.jpg" for i in range(9)] + [f"{i}.png" for i in range(6)], "'*.jpg' --masks '*.png'"
    ),
    "suffixes of another case": ([f"c/149{i}-00{end}" for i in range(4) for end in (".BMP", "-d.bmp")], "'c/*.BMP' --masks 'c/*-d.bmp'"),
    "suffixes of another case in classes": (
        [f"{c}/{c}49{i}-00{end}" for c in "ab" for i in range(4) for end in (".BMP", "-d.bmp")], "'**/*.BMP' --masks '**/*-d.bmp'"
    ),
}  # fmt: skip
PLAIN = {
    "splits": [f"{split}/{i}.png" for split in ("train", "val", "test") for i in range(5)],
    "splits and patients": [f"{split}/p{p}/{i}.png" for split in ("train", "test") for p in (1, 2) for i in range(5)],
    "two classes": [f"{c}/{c}_{i}.png" for c in ("benign", "malignant") for i in range(5)],
    "two classes in splits": [f"{s}/{c}/{c}_{i}.png" for s in ("train", "test") for c in ("benign", "malignant") for i in range(5)],
    "two classes that are counted": [f"train/{c}/{i}.png" for c, count in (("benign", 9), ("malignant", 6)) for i in range(count)],
    "a small class": [f"{c}/im{i}.png" for c, count in (("benign", 19), ("malignant", 6)) for i in range(1, count)],
    "a few of the same names": [f"x/{i}.png" for i in range(20)] + ["y/3.png", "y/7.png"],
    "many classes": [f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("a", "b", "c", "d") for i in range(5)],
    "slices": [f"x/case_{c}_slice_{i}.png" for c in (1, 2, 3) for i in range(5)],
    "slices in folders": [f"case_{c}/case_{c}_slice_{i}.png" for c in (1, 2, 3) for i in range(5)],
    "two parts": [f"0{part}/t{i:03}.tif" for part in (1, 2) for i in range(5)],
    "patients of any names": [f"{p}/{kind}.png" for p in ("0RZ", "4498", "A7X") for kind in ("scan", "late", "wall")],
    "sites and patients": [f"{site}/{p}/pre/{kind}.png" for site in ("Utrecht", "Singapore") for p in (0, 1) for kind in ("FLAIR", "T1")],
    "numbers in two folders": [f"x/{i}.png" for i in range(5)] + [f"y/{i}_{k}.png" for i in range(10, 15) for k in (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_files_that_may_be_masks_of_others_are_warned_of(name: str, tmp_path: Path) -> None:
    files, globs = TWINS[name]
    notes = [note for note in find(make(tmp_path, *files), FOLDER).notes if note.startswith("WARNING: '")]
    assert [note.partition("--images ")[2] for note in notes] == [globs]
    images, masks = globs[1:-1].split("' --masks '")
    assert any(entry.masks for entry in by_image(tmp_path, plain(images, masks)).values())


@pytest.mark.parametrize("name", PLAIN)
def test_plain_images_are_not_warned_of(name: str, tmp_path: Path) -> None:
    notes = find(make(tmp_path, *PLAIN[name]), FOLDER).notes
    assert not [note for note in notes if note.startswith("WARNING: '")]
