"""Class labels, from CSV files and from paths."""

from pathlib import Path

import pytest

from medsass.data.sharding import recipe
from tests.support.catalogued import find, make


def isic(folder: Path, rows: str, header: str = "image_id,melanoma,seborrheic_keratosis") -> Path:
    for stem in ("ISIC_1", "ISIC_2", "ISIC_3"):
        make(folder, f"ISIC-2017_Training_Data/{stem}.jpg")
        make(folder, f"ISIC-2017_Training_Part1_GroundTruth/{stem}_segmentation.png")
    (folder / "ISIC-2017_Training_Part3_GroundTruth.csv").write_text(f"{header}\n{rows}", "utf-8-sig")
    return folder


def test_class_labels_come_from_the_csv_file(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0,0.0\nISIC_2,0.0,1.0\nISIC_3,0.0,0.0\n")
    found = find(tmp_path, recipe.load("isic2017")).entries
    labels = {entry.key: (entry.split, entry.label) for entry in found}
    assert labels == {
        "ISIC_1": ("train", "melanoma"), "ISIC_2": ("train", "seborrheic_keratosis"), "ISIC_3": ("train", "nevus"),
    }  # fmt: skip
    assert {entry.masks for entry in found} == {
        (f"ISIC-2017_Training_Part1_GroundTruth/ISIC_{i}_segmentation.png",) for i in (1, 2, 3)
    }


def test_image_that_the_csv_file_lacks_has_no_label(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0,0.0\n")
    labels = {entry.key: entry.label for entry in find(tmp_path, recipe.load("isic2017")).entries}
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
    labels = {entry.key: entry.label for entry in find(tmp_path, recipe.load("isic2017")).entries}
    assert labels == {"ISIC_1": "melanoma", "ISIC_2": "nevus", "ISIC_3": None}


def test_missing_official_split_gives_a_note(tmp_path: Path) -> None:
    isic(tmp_path, "ISIC_1,1.0,0.0\n")
    found = find(tmp_path, recipe.load("isic2017"))
    assert found.notes == [
        "no file matches 'ISIC-2017_Validation_Data/*.jpg': split 'val' left out",
        "no file matches 'ISIC-2017_Test_v2_Data/*.jpg': split 'test' left out",
    ]
    assert {entry.split for entry in found.entries} == {"train"}


def test_class_labels_come_from_the_path(tmp_path: Path) -> None:
    for label in ("Viral Pneumonia", "Normal"):
        for kind in ("images", "masks"):
            make(tmp_path, f"COVID-19_Radiography_Dataset/{label}/{kind}/{label}-1.png")
    found = find(tmp_path, recipe.load("covid19_radiography"))
    assert {entry.image.split("/")[1]: entry.label for entry in found.entries} == {
        "Viral Pneumonia": "Viral Pneumonia", "Normal": "Normal",
    }  # fmt: skip
    assert {entry.key for entry in found.entries} == {"Viral_Pneumonia-1", "Normal-1"}
    assert all(entry.masks == (entry.image.replace("/images/", "/masks/"),) for entry in found.entries)
    assert found.orphans == []
