"""Patients and series from the headers of DICOM files."""

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from medsass.data.sharding import recipe
from tests.support.catalogued import find, plain

FOLDER = recipe.load("folder")


def dicom(path: Path, **tags: str | int | list[str]) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.{abs(hash(path.name)) % 10**6}"
    for name, value in tags.items():
        setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("suffix", [".dcm", ".IMA", ""])
def test_slices_of_a_patient_stay_in_one_split(suffix: str, tmp_path: Path) -> None:
    for i in range(60):
        dicom(tmp_path / f"{i % 7}/IM{i}{suffix}", PatientID=f"Doe {i % 6}", SeriesInstanceUID=f"1.2.{i % 12}")
    found, where = find(tmp_path, FOLDER), defaultdict(set)
    for entry in found.entries:
        where[int(entry.image.partition("IM")[2].partition(".")[0]) % 6].add((entry.group, entry.split))
    assert all(len(places) == 1 for places in where.values())
    assert len({entry.split for entry in found.entries}) == 3
    assert not any("Doe" in entry.group for entry in found.entries)  # an ID is not passed on
    assert Counter(entry.group for entry in find(tmp_path, FOLDER, "series").entries).most_common()[-1][1] == 5


def test_spaces_around_an_id_do_not_count(tmp_path: Path) -> None:
    for i, patient in enumerate(["P1", " P1", "P1 ", "P2"]):
        dicom(tmp_path / f"{i}/a.dcm", PatientID=patient, SeriesInstanceUID=f"1.2.{i}")
    assert len({entry.group for entry in find(tmp_path, FOLDER).entries}) == 2


def test_files_without_an_id_count_by_their_study(tmp_path: Path) -> None:
    for i in range(12):
        dicom(tmp_path / f"{i}.dcm", StudyInstanceUID=f"1.3.{i % 3}", SeriesInstanceUID=f"1.2.{i % 6}")
    (tmp_path / "broken.dcm").write_bytes(b"text")
    groups = Counter(entry.group for entry in find(tmp_path, FOLDER).entries)
    assert sorted(groups.values()) == [1, 4, 4, 4]


def test_patient_in_two_splits_is_warned_of_where_images_are_their_own_groups(tmp_path: Path) -> None:
    for i in range(30):
        dicom(tmp_path / f"{i}.dcm", PatientID=f"{i % 2}")
    assert any(
        note.startswith("WARNING: 2 of 2 groups have images in several splits")
        for note in find(tmp_path, FOLDER, "image").notes
    )


def test_of_a_slide_the_highest_resolution_is_taken_and_neither_label_nor_overview(tmp_path: Path) -> None:
    for series in ("1.2.1", "1.2.2"):
        for i, (side, kind) in enumerate(
            [(512, "VOLUME"), (2048, "VOLUME"), (300, "LABEL"), (4000, "OVERVIEW"), (100, "THUMBNAIL")]
        ):
            tags = {
                "TotalPixelMatrixRows": side,
                "TotalPixelMatrixColumns": side,
                "ImageType": ["ORIGINAL", "PRIMARY", kind, "NONE"],
            }
            dicom(tmp_path / series / f"{i}.dcm", SeriesInstanceUID=series, PatientID=series, **tags)
    dicom(tmp_path / "ct.dcm", SeriesInstanceUID="1.2.1", PatientID="3")
    found = find(tmp_path, FOLDER)
    assert sorted(entry.image for entry in found.entries) == ["1.2.1/1.dcm", "1.2.2/1.dcm", "ct.dcm"]
    assert "passed over: 8 labels, overviews and smaller resolutions of DICOM slides" in found.notes


def test_a_slice_without_an_id_is_the_patients_whom_its_study_or_series_names(tmp_path: Path) -> None:
    for patient in range(20):
        for i in range(4):
            ids = {"PatientID": f"Doe {patient}"} if i == 2 else {}
            place = {"StudyInstanceUID": f"1.{patient}"} if patient % 2 else {"SeriesInstanceUID": f"2.{patient}"}
            dicom(tmp_path / f"{patient}/{i}.dcm", **ids, **place)
    where = defaultdict(set)
    for entry in find(tmp_path, FOLDER).entries:
        where[entry.image.partition("/")[0]].add((entry.group, entry.split))
    assert all(len(places) == 1 and next(iter(places))[0].startswith("patient-") for places in where.values())


def test_a_patient_named_by_a_folder_is_warned_of_where_headers_name_none(tmp_path: Path) -> None:
    for patient in range(8):
        for i in range(8):
            dicom(tmp_path / f"patient_{patient:02d}/{i}.dcm")
    assert any("images in several splits, such as 'patient_0" in note for note in find(tmp_path, FOLDER, "image").notes)


@pytest.mark.parametrize(("folder", "tags", "way", "groups"), [
    ("patient_{}", {}, "name", 6), ("{}", {"StudyInstanceUID": "1.3.{}"}, "study", 6), ("{}", {"StudyInstanceUID": "1.3"}, "series", 6),
    ("{}", {"SeriesInstanceUID": "1.2"}, "", 1),
])  # fmt: skip
def test_one_id_of_all_files_is_no_patient(folder: str, tags: dict, way: str, groups: int, tmp_path: Path) -> None:
    for p in range(6):
        ids = {name: value.format(p) for name, value in ({"SeriesInstanceUID": "1.2.{}"} | tags).items()}
        for i in range(3):
            dicom(tmp_path / folder.format(p) / f"{i}.dcm", PatientID="ANONYMOUS", **ids)
    found = find(tmp_path, FOLDER)
    assert len({entry.group for entry in found.entries}) == groups
    told = [note for note in found.notes if note.startswith("all 18 DICOM files have one PatientID")]
    assert ([f"their {way} is" in note for note in told]) == [True] * bool(way)
    assert {entry.group for entry in find(tmp_path, FOLDER, "patient").entries} == {found.entries[0].group} or way


def test_files_without_preamble_and_suffix_are_their_patients_too(tmp_path: Path) -> None:
    for i in range(6):
        dicom(tmp_path / f"IM{i}", PatientID=f"{i % 2}", SeriesInstanceUID=f"1.2.{i}", Modality="CT")
        (tmp_path / f"IM{i}").write_bytes((tmp_path / f"IM{i}").read_bytes()[132:])
    assert sorted(Counter(entry.group for entry in find(tmp_path, FOLDER).entries).values()) == [3, 3]


RTSTRUCT, SEG = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4"


def test_dicom_files_without_an_image_are_passed_over(tmp_path: Path) -> None:
    for patient in ("p1", "p2", "p3"):
        dicom(tmp_path / patient / "1-NA/1.dcm", PatientID=patient, Rows=4)
        dicom(tmp_path / patient / "3-NA/1.dcm", PatientID=patient, SOPClassUID=RTSTRUCT)
    found = find(tmp_path, FOLDER)
    assert {entry.image for entry in found.entries} == {f"p{i}/1-NA/1.dcm" for i in (1, 2, 3)}
    assert any("3 DICOM files without an image" in note for note in found.notes)
    with pytest.raises(ValueError, match=r"none of its 3 DICOM files holds an image, such as p1/3-NA/1\.dcm"):
        find(tmp_path, plain("*/3-NA/*"))


def test_a_folder_of_contours_is_not_that_of_the_images(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for i in range(3):
            dicom(tmp_path / patient / f"0-NA/{i}.dcm", PatientID=patient, Rows=4)
        dicom(tmp_path / patient / "3-NA/1.dcm", PatientID=patient, SOPClassUID=RTSTRUCT)
        dicom(tmp_path / patient / "300-Segmentation/1.dcm", PatientID=patient, SOPClassUID=SEG, Rows=4)
    assert {entry.image.split("/")[1] for entry in find(tmp_path, FOLDER).entries} == {"0-NA"}


@pytest.mark.parametrize("storage", ["1.2.840.10008.5.1.4.1.1.7.0.8", "1.2.840.10008.5.1.4.1.1.2", "1.3.6.1.4.1.5"])
def test_a_damaged_image_is_no_report(storage: str, tmp_path: Path) -> None:
    dicom(tmp_path / "0.dcm", PatientID="a", SOPClassUID=storage)
    assert [entry.image for entry in find(tmp_path, FOLDER).entries] == ["0.dcm"]
