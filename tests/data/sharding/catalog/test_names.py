"""What the names of folders and files say of masks and images."""

from pathlib import Path

import pytest

from medsass.data.sharding import recipe
from medsass.data.sharding.catalog import names
from tests.support.catalogued import by_image, find, make

FOLDER = recipe.load("folder")


@pytest.mark.parametrize(("folder", "masks"), [
    ("Lung_and_Infection_Mask", True), ("nuclei_and_cell_masks", True), ("DiscAndCupLabels", True), ("masks_and_labels", True),
    ("images_and_masks", False), ("masks_and_images", False), ("ct_and_lung_masks", False), ("images_and_cell_masks", False), ("cells_and_masks", False),
    ("no_mask", False), ("without_labels", False), ("photos_with_masks", False), ("nuclei_and_cells_without_masks", False), ("masks_and_features", False),
])  # fmt: skip
def test_a_folder_of_masks_of_two_things_holds_masks(folder: str, masks: bool) -> None:
    assert (names.rank(folder) is not None) == masks


TASKS = {
    "a task and masks": (["CT-Seg_20cases", "Infection_Mask", "Lung_and_Infection_Mask"], ["CT-Seg_20cases"]),
    "below": (["x/CT_Seg_v1_cases/p1", "x/masks/p1"], ["x/CT_Seg_v1_cases"]),
    "a file beside them": (["", "polyp_segmentation_dataset", "polyp_masks"], ["polyp_segmentation_dataset"]),
    "a task at the end": (["polyp-segmentation", "polyp_masks"], ["polyp-segmentation"]),
    "images below masks": (["", "liver_seg", "tumor_masks"], []),
    "images elsewhere": (["scans", "out/liver_seg", "out/tumor_masks"], []),
    "images beside": (["ct", "Seg_v1_cases", "lung_mask"], []),
    "a word alone": (["segmentation", "masks"], []),
    "classes": (["annotations/liver_seg_v1", "annotations/lung_masks", "ct"], []),
    "no masks": (["Seg_v1_cases", "tumor_seg", "ct"], []),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_folder_named_after_a_task_holds_images_beside_plain_masks(name: str) -> None:
    folders, tasks = TASKS[name]
    assert names.task_folders(folders) == set(tasks)


def test_images_in_a_folder_named_after_a_task_pair_with_the_masks_beside_it(tmp_path: Path) -> None:
    folders = ("COVID-19-CT-Seg_20cases", "Infection_Mask", "Lung_and_Infection_Mask")
    make(tmp_path, *(f"{folder}/c{i}.png" for folder in folders for i in range(4)))
    found = {image: entry.masks for image, entry in by_image(tmp_path, FOLDER).items()}
    assert found == {f"COVID-19-CT-Seg_20cases/c{i}.png": (f"Infection_Mask/c{i}.png",) for i in range(4)}


@pytest.mark.parametrize(("stem", "mask"), [
    ("A1-instancemask", True), ("a_cellmasks", True), ("binarymask_3", True), ("instancemask", True), ("x.lungmask", True),
    ("segm", True), ("a_segm", True), ("IBSR_segTRI", True), ("labelsforall", False), ("Labelsmith", False), ("segment_1", False),
    ("a_facemask", False), ("unmask", False), ("instance_3", False), ("celltracks", False),
])  # fmt: skip
def test_words_that_end_in_mask_are_of_masks(stem: str, mask: bool) -> None:
    assert bool(names.mask_word(stem)) == mask
    assert (names.rank(stem) is not None) == mask


def test_labels_for_training_are_masks_beside_their_images(tmp_path: Path) -> None:
    make(tmp_path, *(f"{i}/{name}.nii" for i in (1, 2) for name in ("T1", "LabelsForTraining", "LabelsForTesting")))
    assert {*by_image(tmp_path, FOLDER)} == {"1/T1.nii", "2/T1.nii"}


def test_images_pair_with_the_mask_beside_an_instance_mask(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(
            f"{site}/{i}/{i}-{end}.tif"
            for site in "ab"
            for i in ("A1", "B2")
            for end in ("img", "mask", "instancemask")
        ),
    )
    found = {image: entry.masks for image, entry in by_image(tmp_path, FOLDER).items()}
    assert found == {f"{site}/{i}/{i}-img.tif": (f"{site}/{i}/{i}-mask.tif",) for site in "ab" for i in ("A1", "B2")}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["images/a.png"], ["masks/a.png", "GroundTruth/a_seg.png", "Ground/a.png"]),
        (["a/b.png", "a/c.png"], ["a/b_mask.png", "a/c_mask_2.png"]),
        (["BraTS_001/BraTS_001_t1.nii.gz"], ["BraTS_001/BraTS_001_seg.nii.gz"]),
        (["labels_of_mice_not/a.png"], []),
        (["x_mask.png", "y.png"], []),  # a mask of nothing here
        (["mask.png", "image.png"], []),
        (["lung-segmentation/images/1.png"], ["lung-segmentation/masks/1.png"]),
        (["CT/1/DICOM/i1.dcm"], ["CT/1/Ground/liver_1.png"]),
        (["ground/images/1.png"], []),
    ],
)  # fmt: skip
def test_masks_among_images_are_told_by_their_names(images: list[str], masks: list[str]) -> None:
    assert names.masks_among([*images, *masks]) == {*masks}


@pytest.mark.parametrize(
    "name", ["masks", "labelsTr", "GroundTruth", "annotations", "Ground", "train_masks", "trainannot", "lbl", "GTs", "lung_masks"]
)  # fmt: skip
def test_a_source_of_masks_by_its_name_is_refused(name: str, tmp_path: Path) -> None:
    made = make(tmp_path / name, "a.png", "site/b.png")
    with pytest.raises(
        ValueError, match=f"SOURCE is named '{name}', as folders of masks are, .* the folder above it, or rename"
    ):
        find(made, FOLDER)
    find(make(tmp_path / "1" / name, "images/a.png", "b.png"), FOLDER)  # a dataset of that name
    find(make(tmp_path / "2" / name, "images/a.png", "masks/a.png"), FOLDER)


@pytest.mark.parametrize(
    "name", ["segmentation", "masks_dataset", "images", "brain_mask_data", "a_study_of_many_masks"]
)
def test_a_source_of_other_names_is_read(name: str, tmp_path: Path) -> None:
    find(make(tmp_path / name, "a.png", "b.png"), FOLDER)


@pytest.mark.parametrize("form", ["{}annot", "{}labels", "{}_lbl", "{}masks", "{}_GTs", "{}_segs"])
def test_masks_beside_the_folders_of_splits_are_no_images(form: str, tmp_path: Path) -> None:
    files = [
        f"{folder}/{at}.png" for split in ("train", "val") for folder in (split, form.format(split)) for at in range(3)
    ]
    found = by_image(make(tmp_path / "s", *files), FOLDER)
    assert {image.partition("/")[0] for image in found} == {"train", "val"}


def test_superpixels_are_no_images(tmp_path: Path) -> None:
    files = [f"Data/{at}{end}" for at in range(3) for end in (".jpg", "_superpixels.png")]
    assert {*by_image(make(tmp_path / "s", *files), FOLDER)} == {f"Data/{at}.jpg" for at in range(3)}
