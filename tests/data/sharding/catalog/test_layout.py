"""The usual layouts, as datasets are published, recognised without any option: only names count."""

from dataclasses import replace
from pathlib import Path

import pytest

from medsass.data.sharding import recipe
from tests.support.catalogued import by_image, find, make

FOLDER = recipe.load("folder")


def product(pattern: str, *values: str) -> list[str]:
    return [pattern.format(value) for value in values]


def pairs(source: Path, *names: str) -> dict[str, tuple[str, ...]]:
    return {image: entry.masks for image, entry in by_image(make(source, *names), FOLDER).items()}


LAYOUTS = {
    "images and masks": (product("images/{}.jpg", "a", "b") + product("masks/{}.png", "a", "b"), {"images/a.jpg": ("masks/a.png",)}),
    "images and labels": (product("x/images/{}.jpg", "a", "b") + product("x/labels/{}.png", "a", "b"), {"x/images/b.jpg": ("x/labels/b.png",)}),
    "CVC-ClinicDB": (product("Original/{}.tif", "1", "2") + product("Ground Truth/{}.tif", "1", "2"), {"Original/1.tif": ("Ground Truth/1.tif",)}),
    "masks below the images": (product("{}.png", "1", "2") + product("masks/{}.png", "1", "2"), {"1.png": ("masks/1.png",), "2.png": ("masks/2.png",)}),
    "nnU-Net": (
        product("imagesTr/c_{}_0000.nii.gz", "01", "02") + product("imagesTr/c_{}_0001.nii.gz", "01", "02") + product("labelsTr/c_{}.nii.gz", "01", "02")
        + ["imagesTs/c_03_0000.nii.gz", "dataset.json"],
        {"imagesTr/c_01_0000.nii.gz": ("labelsTr/c_01.nii.gz",), "imagesTr/c_02_0000.nii.gz": ("labelsTr/c_02.nii.gz",), "imagesTs/c_03_0000.nii.gz": ()},
    ),
    "some slices beside their masks": (
        [f"c{c}/z{i}.png" for c in (0, 1) for i in range(5)] + [f"c{c}/z{i}_mask.png" for c in (0, 1) for i in (2, 3)],
        {**{f"c0/z{i}.png": (f"c0/z{i}_mask.png",) for i in (2, 3)}, "c0/z0.png": (), "c1/z4.png": ()},
    ),
    "two masks of nine": (
        [f"{i}.png" for i in range(1, 10)] + ["mask_4.png", "mask_5.png"],
        {"4.png": ("mask_4.png",), "5.png": ("mask_5.png",), "1.png": (), "9.png": ()},
    ),
    "DRIVE": (
        product("training/images/{}_training.tif", "21", "22") + product("training/1st_manual/{}_manual1.gif", "21", "22")
        + product("training/mask/{}_training_mask.gif", "21", "22") + product("test/images/{}_test.tif", "01", "02"),
        {"training/images/21_training.tif": ("training/1st_manual/21_manual1.gif",), "test/images/01_test.tif": ()},
    ),
    "three patients": (
        [f"{kind}/p{patient}/{i}.png" for kind in ("images", "masks") for patient in range(3) for i in range(2)],
        {f"images/p{patient}/{i}.png": (f"masks/p{patient}/{i}.png",) for patient in range(3) for i in range(2)},
    ),
    "a folder a patient": (
        [f"p{patient}/{kind}/{i}.png" for kind in ("images", "masks") for patient in range(3) for i in range(2)],
        {f"p{patient}/images/{i}.png": (f"p{patient}/masks/{i}.png",) for patient in range(3) for i in range(2)},
    ),
    "Data Science Bowl": (
        [f"s/{case}/images/{case}.png" for case in "abc"] + [f"s/{case}/masks/{i}.png" for case in "abc" for i in range(3)],
        {"s/a/images/a.png": ("s/a/masks/0.png", "s/a/masks/1.png", "s/a/masks/2.png")},
    ),
    "MoNuSeg": (["images/A.tif", "images/B.tif", "masks/A/1.png", "masks/A/2.png", "masks/B/1.png"], {"images/A.tif": ("masks/A/1.png", "masks/A/2.png")}),
    "numbered objects": (
        product("images/im{}.png", "1", "2") + [f"masks/im{i}_{k}.png" for i in (1, 2) for k in range(3)],
        {"images/im1.png": ("masks/im1_0.png", "masks/im1_1.png", "masks/im1_2.png")},
    ),
    "Cellpose": (product("{}_img.tif", "01", "02") + product("{}_masks.tif", "01", "02"), {"01_img.tif": ("01_masks.tif",)}),
    "BUSI": (
        product("benign/benign ({}).png", "1", "2") + product("benign/benign ({})_mask.png", "1", "2") + ["benign/benign (1)_mask_1.png"],
        {"benign/benign (1).png": ("benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png"), "benign/benign (2).png": ("benign/benign (2)_mask.png",)},
    ),
    "CHASE": (
        product("Image_{}.jpg", "01L", "01R") + product("Image_{}_1stHO.png", "01L", "01R") + product("Image_{}_2ndHO.png", "01L", "01R"),
        {"Image_01L.jpg": ("Image_01L_1stHO.png",), "Image_01R.jpg": ("Image_01R_1stHO.png",)},
    ),
    "a folder a case": (product("c{}/image.png", "1", "2") + product("c{}/mask.png", "1", "2"), {"c1/image.png": ("c1/mask.png",), "c2/image.png": ("c2/mask.png",)}),
    "HRF": (
        product("images/{}.JPG", "01_h", "02_g") + product("manual1/{}.tif", "01_h", "02_g") + product("mask/{}_mask.tif", "01_h", "02_g"),
        {"images/01_h.JPG": ("manual1/01_h.tif",), "images/02_g.JPG": ("manual1/02_g.tif",)},
    ),
    "STARE": (product("stare-images/{}.ppm", "im1", "im2") + product("labels-ah/{}.ah.ppm", "im1", "im2") + product("labels-vk/{}.vk.ppm", "im1", "im2"), {"stare-images/im1.ppm": ("labels-ah/im1.ah.ppm",)}),
    "Montgomery": (
        product("M/CXR_png/{}.png", "1_0", "2_1") + product("M/ManualMask/leftMask/{}.png", "1_0", "2_1") + product("M/ManualMask/rightMask/{}.png", "1_0", "2_1"),
        {"M/CXR_png/1_0.png": ("M/ManualMask/leftMask/1_0.png", "M/ManualMask/rightMask/1_0.png")},
    ),
    "GlaS": (product("train_{}.bmp", "1", "2") + product("train_{}_anno.bmp", "1", "2") + ["testA_1.bmp", "testA_1_anno.bmp"], {"train_1.bmp": ("train_1_anno.bmp",), "testA_1.bmp": ("testA_1_anno.bmp",)}),
    "TNBC": (
        [f"{kind}_{slide}/{i}.png" for kind in ("Slide", "GT") for slide in ("01", "02") for i in "123"],
        {f"Slide_{slide}/{i}.png": (f"GT_{slide}/{i}.png",) for slide in ("01", "02") for i in "123"},
    ),
    "Cell Tracking Challenge": (
        product("01/t{}.tif", "000", "001") + product("02/t{}.tif", "000", "001") + product("01_GT/SEG/man_seg{}.tif", "000", "001") + product("01_GT/TRA/man_track{}.tif", "000", "001")
        + product("02_GT/SEG/man_seg{}.tif", "000", "001"),
        {"01/t000.tif": ("01_GT/SEG/man_seg000.tif",), "02/t001.tif": ("02_GT/SEG/man_seg001.tif",)},
    ),
    "VOC": (product("JPEGImages/{}.jpg", "1", "2") + product("SegmentationClass/{}.png", "1", "2") + product("SegmentationObject/{}.png", "1", "2"), {"JPEGImages/1.jpg": ("SegmentationClass/1.png",)}),
    "HAM10000": (
        [f"HAM10000_images_part_{1 + i % 2}/ISIC_{i}.jpg" for i in range(6)] + [f"HAM10000_segmentations_lesion_x/ISIC_{i}_segmentation.png" for i in range(6)],
        {f"HAM10000_images_part_{1 + i % 2}/ISIC_{i}.jpg": (f"HAM10000_segmentations_lesion_x/ISIC_{i}_segmentation.png",) for i in range(6)},
    ),
    "LiTS": (product("B 1/volume-{}.nii", "0", "10") + product("B 1/segmentation-{}.nii", "0", "10"), {"B 1/volume-0.nii": ("B 1/segmentation-0.nii",), "B 1/volume-10.nii": ("B 1/segmentation-10.nii",)}),
    "KiTS": (product("case_{}/imaging.nii.gz", "0", "1") + product("case_{}/segmentation.nii.gz", "0", "1"), {"case_0/imaging.nii.gz": ("case_0/segmentation.nii.gz",)}),
    "OASIS": (product("s{}/orig.nii.gz", "0", "1") + product("s{}/seg4.nii.gz", "0", "1"), {"s0/orig.nii.gz": ("s0/seg4.nii.gz",)}),
    "PROMISE12": (product("Case{}.mhd", "0", "1") + product("Case{}.raw", "0", "1") + product("Case{}_segmentation.mhd", "0", "1") + product("Case{}_segmentation.raw", "0", "1"), {"Case0.mhd": ("Case0_segmentation.mhd",)}),
    "LGG, in a folder named after the task": (
        [f"lgg-mri-segmentation/kaggle_3m/{case}/{case}_{i}{end}.tif" for case in "ab" for i in (1, 2) for end in ("", "_mask")] + ["lgg-mri-segmentation/kaggle_3m/data.csv"],
        {"lgg-mri-segmentation/kaggle_3m/a/a_1.tif": ("lgg-mri-segmentation/kaggle_3m/a/a_1_mask.tif",)},
    ),
    "PolypGen": ([f"C{c}/images_C{c}/{i}.jpg" for c in "12" for i in "ab"] + [f"C{c}/masks_C{c}/{i}_mask.jpg" for c in "12" for i in "ab"], {"C1/images_C1/a.jpg": ("C1/masks_C1/a_mask.jpg",)}),
    "masks that nothing tells apart": (product("A. Segmentation/1. Images/{}.jpg", "a", "b") + [f"A. Segmentation/2. Groundtruths/{kind}/{i}_{kind}.tif" for kind in ("EX", "MA") for i in "ab"], {"A. Segmentation/1. Images/a.jpg": ()}),
    "images alone": (product("scans/{}.png", "1", "2"), {"scans/1.png": (), "scans/2.png": ()}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_usual_layout(name: str, tmp_path: Path) -> None:
    names, expected = LAYOUTS[name]
    found = pairs(tmp_path, *names)
    assert {image: found.get(image) for image in expected} == expected
    truths = {mask for masks in found.values() for mask in masks}
    assert not truths & set(found)
    if masks := any(expected.values()):
        assert any(note.startswith("layout: --images '") for note in find(tmp_path, FOLDER).notes) == masks


def test_isic_keeps_the_splits_of_its_owners(tmp_path: Path) -> None:
    parts = {"Training": "train", "Validation": "val", "Test_v2": "test"}
    make(tmp_path, *(f"ISIC-2017_{part}_Data/ISIC_{part}{i}.jpg" for part in parts for i in range(3)))
    make(
        tmp_path,
        *(
            f"ISIC-2017_{part}_Part1_GroundTruth/ISIC_{part}{i}_segmentation.png"
            for part in list(parts)[:2]
            for i in range(3)
        ),
    )
    found = by_image(tmp_path, FOLDER)
    assert len(found) == 9
    for image, entry in found.items():
        part = next(part for part in parts if f"_{part}_Data" in image)
        assert entry.split == parts[part]
        stem = image.rpartition("/")[2].removesuffix(".jpg")
        assert entry.masks == (
            (f"ISIC-2017_{part}_Part1_GroundTruth/{stem}_segmentation.png",) if part != "Test_v2" else ()
        )


def test_named_splits_are_kept_and_the_rest_is_shared(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(
            f"{split}/{kind}/{split}{i}.png"
            for split in ("train", "test")
            for kind in ("images", "masks")
            for i in range(20)
        ),
    )
    splits = {image: entry.split for image, entry in by_image(tmp_path, FOLDER).items()}
    assert all((split == "test") == image.startswith("test/") for image, split in splits.items())
    assert set(splits.values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    "folder",
    [
        "masks",
        "Labels",
        "GroundTruth",
        "x/ground_truth/y",
        "ISIC_Part1_GroundTruth",
        "labelsTr",
        "GT_01",
        "leftMask",
        "mask_images",
        "seg",
    ],
)
def test_a_folder_of_masks_is_never_read_as_images(folder: str, tmp_path: Path) -> None:
    make(tmp_path, "scan/a.png", "scan/b.png", f"{folder}/other.png")
    assert pairs(tmp_path) == {"scan/a.png": (), "scan/b.png": ()}
    (note,) = [note for note in find(tmp_path, FOLDER).notes if note.startswith("passed over")]
    assert "1 in a folder" in note
    chosen = replace(FOLDER, images=(recipe.Images("**/*.png"),))
    assert set(by_image(tmp_path, chosen)) == {"scan/a.png", "scan/b.png"}


def test_folder_whose_name_only_mentions_masks_is_read(tmp_path: Path) -> None:
    names = {
        "without_masks/a.png",
        "images_and_masks/a.png",
        "segmentation_data/a.png",
        "label-free/a.png",
        "unlabeled/a.png",
    }
    assert set(pairs(tmp_path, *names)) == names


TWINS = {
    "'x/*' --masks 'y/*'": product("x/{}.png", "a", "b", "c") + product("y/{}.png", "a", "b", "c"),
    "'*.jpg' --masks '*.png'": product("{}.jpg", "a", "b", "c") + product("{}.png", "a", "b", "c"),
    "'*.png' --masks '*-nuclei.png'": product("{}.png", "a0", "a1", "a10") + product("{}-nuclei.png", "a0", "a1", "a10"),
    "'**/outline/*' --masks '**/photo/*'": [f"p{p}/{kind}/{i}.png" for p in (1, 2) for kind in ("photo", "outline") for i in range(3)],
    "visits": [f"p{p}/visit{visit}/{i}.png" for p in (1, 2, 3) for visit in (1, 2) for i in range(3)],
    "": product("p01/{}.png", "a", "b", "c") + product("p02/{}.png", "a", "b", "c") + product("p03/{}.png", "a", "b", "c"),
    "none": product("train/{}.png", "a", "b", "c") + product("test/{}.png", "a", "b", "c") + product("x/{}.png", "a1", "a10", "a2"),
}  # fmt: skip


@pytest.mark.parametrize("globs", TWINS)
def test_files_of_like_names_are_warned_of_as_one_may_be_the_mask(globs: str, tmp_path: Path) -> None:
    notes = [note for note in find(make(tmp_path, *TWINS[globs]), FOLDER).notes if note.startswith("WARNING: '")]
    assert len(notes) == (globs[:1] == "'")
    assert all(f"if one holds masks, say so: --images {globs}" in note for note in notes)


def test_images_that_are_not_a_part_of_the_layout_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png", "images_16bit/a.tif", "more/b.png")
    make(tmp_path, "masks2/q.png", "masks/z.png")
    notes = find(tmp_path, FOLDER).notes
    assert "2 images are no part of this layout (first in 'images_16bit'); --images reads them too" in notes
    assert "1 masks are paired with no image (first in 'masks2'); --masks pairs them" in notes


CHANCE = {
    "a mask of one patient": ([f"patient{i}_ct.png" for i in range(9)] + ["patient3_seg.png"]),
    "a letter in common": (["zoo_partial.png", "zebra_seg.png", *(f"{i}_scan.png" for i in "abcd")]),
    "a stack with one mask": ([f"IMG_00{i}.png" for i in range(9)] + ["IMG_seg.png"]),
    "three slices and a mask": product("p0_{}.png", "1", "2", "3", "mask") + product("p1_{}.png", "1", "2", "3", "mask"),
    "modalities": product("p0_{}.nii.gz", "t1", "t2", "seg") + product("p1_{}.nii.gz", "t1", "t2", "seg"),
    "folders and a mask": product("images/p0/{}.png", "1", "2") + product("images/p1/{}.png", "1", "2") + product("masks/p{}/mask.png", "0", "1"),
    "other paddings": (product("img{}.png", "1", "2", "10") + product("mask{}.png", "001", "002", "010")),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANCE)
def test_a_chance_pair_makes_no_layout(name: str, tmp_path: Path) -> None:
    files = CHANCE[name]
    found = pairs(tmp_path, *files)
    assert set(found) == {file for file in files if "seg" not in file and "mask" not in file}, found
    assert not any(found.values())
    assert any("masks are paired with no image (first in '" in note for note in find(tmp_path, FOLDER).notes)


def test_masks_of_several_raters_are_not_united(tmp_path: Path) -> None:
    files = product("images/a{}.png", "0", "1") + [f"masks/a{i}_rater{k}.png" for i in (0, 1) for k in (1, 2)]
    assert pairs(tmp_path, *files) == {
        "images/a0.png": ("masks/a0_rater1.png",),
        "images/a1.png": ("masks/a1_rater1.png",),
    }


def test_accents_of_either_kind_pair_beside_one_another(tmp_path: Path) -> None:
    names = [f"M\u00fcller {i}.png" for i in range(3)] + [f"Mu\u0308ller {i}_mask.png" for i in range(3)]
    assert all(pairs(tmp_path, *names).values())


@pytest.mark.parametrize(("image", "mask"), [
    ("images/a{}.nii.gz", "masks/a{}.seg.nii.gz"),
    ("a{}.nrrd", "a{}.seg.nrrd"),
    ("set{{1,2}}/images/{}.png", "set{{1,2}}/masks/{}.png"),
    ("{} [x=0,y=0,w=9,h=9].jpg", "{} [x=0,y=0,w=9,h=9]-labelled.png"),
    ("rawdata/sub-{}_ct.nii.gz", "rawdata/sub-{}_seg-vert_msk.nii.gz"),
])  # fmt: skip
def test_suffixes_and_braces_of_names_pair(image: str, mask: str, tmp_path: Path) -> None:
    names = [text.format(i) for i in range(3) for text in (image, mask)]
    assert pairs(tmp_path, *names) == {image.format(i): (mask.format(i),) for i in range(3)}


@pytest.mark.parametrize(
    "names", [("TrainDataset", "TestDataset/CVC-300"), ("TrainingSet", "TestingSet"), ("trainSet", "testSet")]
)
def test_splits_are_known_as_words_of_a_name(names: tuple[str, str], tmp_path: Path) -> None:
    make(
        tmp_path,
        *(f"{name}/{kind}/{name[:2]}{i}.png" for name in names for kind in ("images", "masks") for i in range(9)),
    )
    splits = {image: entry.split for image, entry in by_image(tmp_path, FOLDER).items()}
    assert all((split == "test") == image.startswith(names[1]) for image, split in splits.items())


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_files_whose_names_go_on_from_others_are_warned_of(suffix: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"x/c{i}{end}" for i in range(4) for end in (f".{suffix}", "_outlines.png")))
    (warning,) = [note for note in find(tmp_path, FOLDER).notes if note.startswith("WARNING")]
    assert warning.endswith(f"--images 'x/*.{suffix}' --masks 'x/*_outlines.png'")
