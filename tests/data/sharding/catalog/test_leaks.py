"""Notes on groups that could be: of names and folders that may be those of patients."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from medsass.data.sharding import recipe
from tests.data.sharding.catalog.test_headers import dicom
from tests.support.catalogued import find, make

FOLDER = recipe.load("folder")


@pytest.mark.parametrize(
    "folder",
    [
        "training/training0{}",
        "training/training0{}/preprocessed",
        "test/site/{}",
        "BraTS20_Training_00{}",
        "Training-{}",
    ],
)
def test_folders_in_one_that_names_a_split_may_be_patients(folder: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"{folder.format(p)}/{kind}.png" for p in (1, 2, 3, 4) for kind in ("flair", "t2")))
    notes = find(tmp_path, FOLDER).notes
    assert any("if the 4 folders with several images are patients, --group-by folder" in note for note in notes)


@pytest.mark.parametrize("folder", ["{}", "Training400/{}", "x/{}_set", "{}/one", "{0}/{0}/a"])
def test_folders_that_name_splits_are_no_patients(folder: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"{folder.format(split)}/{split}{i}.png" for split in ("train", "val", "test") for i in range(4)))
    assert not any(note.startswith("no patients") for note in find(tmp_path, FOLDER).notes)


BEGINNINGS = {
    "CHUM-00{}__{}.nii.gz": ("CT", "PT"), "{}_{}.tif": (1, 2), "pt{}_img{}.png": (1, 2), "x/scan 1{} ({}).png": ("a", "b"), "{}{}.png": ("", "_b"),
    "Image_0{}{}.jpg": "LR", "x/100{}{}.png": ("OD", "OS"), "BR{}{}.png": "AB", "S{}R{}.png": "12", "P0{}V{}.png": "12",
    "00{}/{}/scan.png": "12", "y/1{}_{}/scan.png": "12", "z{}/{}/a/b.png": "cd", "Calc_P_{}_{}/x/y.png": ("LEFT", "RIGHT"), "{}{}/x.png": ("OD", "OS"),
}  # fmt: skip


@pytest.mark.parametrize("pattern", BEGINNINGS)
def test_names_that_go_on_after_a_number_may_be_of_one_patient(pattern: str, tmp_path: Path) -> None:
    make(tmp_path, *(pattern.format(p, end) for p in (1, 2, 3) for end in BEGINNINGS[pattern]))
    (note,) = [note for note in find(tmp_path, FOLDER).notes if note.startswith("no patients")]
    one, other = sorted(pattern.format(1, end) for end in BEGINNINGS[pattern])
    assert f"if images such as '{one}' and '{other}' are of one patient, --group-by '" in note
    group_by = note.split("'")[5]
    groups = defaultdict(set)
    for entry in find(tmp_path, FOLDER, group_by).entries:
        groups[entry.group].add(entry.image)
    assert [len(images) for images in groups.values()] == [2, 2, 2]


@pytest.mark.parametrize("files", [
    [f"IMG_{i:03}.png" for i in range(9)], [f"CHNCXR_{i:04}_0.png" for i in range(9)], [f"1.3.6.{i}.png" for i in range(9)],
    [f"{i}a{i}-{i}.png" for i in range(9)], [f"x_{i % 4}_{i}.png" for i in range(2)], [f"{c}/1_{c}{i}.png" for c in "ab" for i in range(4)],
    [f"2020-01-{d:02}_{i}.png" for d in (1, 2, 3) for i in (1, 2)], [f"2020010{d}/{i}/a.png" for d in (1, 2, 3) for i in (1, 2)],
    [f"slice_{i:03}.png" for i in range(9)], [f"img{i}.png" for i in range(9)], [f"{i}0x_{k}.png" for i in (1, 2) for k in range(5)],
    [f"{i % 3}a{i * 7919:x}.png" for i in range(1, 12)],
    [f"train/{p}_{i}.png" for p in (1, 2) for i in (1, 2)] + ["val/9.png", "test/10.png"],
])  # fmt: skip
def test_names_of_one_file_a_number_are_not_told_of(files: list[str], tmp_path: Path) -> None:
    assert not any(note.startswith("no patients") for note in find(make(tmp_path, *files), FOLDER).notes)


def test_names_are_told_of_where_each_image_is_a_group_by_its_header(tmp_path: Path) -> None:
    for i in range(6):
        dicom(tmp_path / f"P_{i // 2}_{i % 2}" / "1.dcm", PatientID=str(i), Rows=4)
    (note,) = [
        note
        for note in find(tmp_path, FOLDER).notes
        if note.startswith("each image is a group of its own by its header")
    ]
    assert len({entry.group for entry in find(tmp_path, FOLDER, note.split("'")[5]).entries}) == 3
    make(tmp_path / "names", *(f"x{i % 2}/patient{i}.png" for i in range(6)))
    assert not any("of its own" in note for note in find(tmp_path / "names", FOLDER).notes)


def test_images_that_name_no_patient_beside_others_are_counted(tmp_path: Path) -> None:
    make(tmp_path, *(f"patient_{i % 4}/{i}.png" for i in range(12)), "more/a.png", "more/b.png")
    told = "12 images are grouped by their names or headers: 4 groups, such as 'patient_0'; 2 others, such as 'more/a.png', name none: each is its own group"
    assert told in find(tmp_path, FOLDER).notes


@pytest.mark.parametrize("folders", ["T1 T2", "x/flair x/t2", "a b c"])
def test_namesakes_in_sister_folders_may_be_of_one_patient(folders: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"{folder}/{i:03}.png" for folder in folders.split() for i in range(8)))
    (note,) = [note for note in find(tmp_path, FOLDER).notes if note.startswith("no patients")]
    groups = Counter(entry.group for entry in find(tmp_path, FOLDER, note.split("'")[5]).entries)
    assert {*groups.values()} == {len(folders.split())}


@pytest.mark.parametrize("names", [("01", "02"), ("seq1", "seq2")])
@pytest.mark.parametrize("own", [False, True])  # unlike those of the Cell Tracking Challenge
def test_two_numbered_folders_may_be_patients(own: bool, names: tuple[str, str], tmp_path: Path) -> None:
    make(tmp_path, *(f"{folder}/{folder if own else ''}{i}.png" for folder in names for i in range(8)))
    assert any("if the 2 folders with several images are patients" in note for note in find(tmp_path, FOLDER).notes)
