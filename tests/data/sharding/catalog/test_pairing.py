"""Pairs of images and masks as people name them."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from medsass.data.sharding import recipe as recipes
from medsass.data.sharding.catalog.names import stem
from tests.support.catalogued import find, make, masks, plain


@pytest.mark.parametrize(("images", "pattern", "image", "mask"), [
    ("*_img.tif", "*_masks.tif", "001_img.tif", "001_masks.tif"),
    ("{stem}_img.tif", "{stem}_masks.tif", "001_img.tif", "001_masks.tif"),
    ("imagesTr/*_0000.png", "labelsTr/*.png", "imagesTr/case_001_0000.png", "labelsTr/case_001.png"),
    ("images/*_training.tif", "1st_manual/*_manual1.gif", "images/21_training.tif", "1st_manual/21_manual1.gif"),
    ("images/**/*", "masks/**/*", "images/p1/q/001.jpg", "masks/p1/q/001.png"),
    ("*/images/*", "*/masks/*_seg.*", "p1/images/001.jpg", "p1/masks/001_seg.png"),
    ("images/im?_[ab].png", "masks/ma?_[ab].png", "images/im1_a.png", "masks/ma1_a.png"),
    ("*.nii.gz", "seg/*.nii", "a.nii.gz", "seg/a.nii"),
    ("{a,b}/*.{png,jpg}", "{a,b}_masks/*.png", "b/1.jpg", "b_masks/1.png"),
    ("images/*.ome.tif", "masks/*.tif", "images/a.ome.tif", "masks/a.tif"),
])  # fmt: skip
def test_pairs(images: str, pattern: str, image: str, mask: str, tmp_path: Path) -> None:
    assert masks(make(tmp_path, image, mask), plain(images, pattern)) == {image: (mask,)}


def test_parallel_trees_do_not_mix_patients(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(f"{kind}/p{patient}/{i}.png" for kind in ("images", "masks") for patient in range(3) for i in range(2)),
    )
    found = masks(tmp_path, plain("images/**/*.png", "masks/**/*.png"))
    assert found == {
        f"images/p{patient}/{i}.png": (f"masks/p{patient}/{i}.png",) for patient in range(3) for i in range(2)
    }


@pytest.mark.parametrize("pattern", ["*/masks/{stem}.png", "{dir}/../../*/masks/{name}"])
def test_mask_that_two_images_would_share_is_refused(pattern: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"p{patient}/{kind}/1.png" for kind in ("images", "masks") for patient in range(2)))
    with pytest.raises(
        ValueError,
        match=r"mask 'p0/masks/1.png' would belong to both 'p0/images/1.png' and 'p1/images/1.png'; .*\{dir\}",
    ):
        masks(tmp_path, plain("*/images/*.png", pattern))


def test_one_mask_a_folder_may_be_shared(tmp_path: Path) -> None:
    make(tmp_path, "c/t1.png", "c/t2.png", "c/mask.png")
    assert masks(tmp_path, plain("*/t*.png", "{dir}/mask.png")) == {
        "c/t1.png": ("c/mask.png",),
        "c/t2.png": ("c/mask.png",),
    }


@pytest.mark.parametrize("pattern", ["masks/*.png", "masks/{stem}.png", "masks/{name}"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_either_form_are_the_same_name(forms: tuple[str, str], pattern: str, tmp_path: Path) -> None:
    image, mask = (unicodedata.normalize(form, "Übung é.png") for form in forms)  # type: ignore[arg-type]
    make(tmp_path, f"images/{image}", f"masks/{mask}", "images/b.png", "masks/b.png")
    assert masks(tmp_path, plain("images/*.png", pattern))[f"images/{image}"] == (f"masks/{mask}",)


def test_error_names_the_file_that_was_looked_for_and_two_that_are_there(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "images/b.png", "masks/x_seg.png", "masks/y_seg.png", "masks/z_seg.png")
    for pattern, looked_for in (("masks/{stem}_segm.png", "masks/a_segm.png"), ("masks/*_seg.png", "masks/a_seg.png")):
        with pytest.raises(
            ValueError,
            match=f"no image has a mask: for 'images/a.png' '{looked_for}' was looked for; there are 'masks/x_seg.png' and 'masks/y_seg.png'",
        ):
            find(tmp_path, plain("images/*.png", pattern))


def test_images_without_a_mask_are_kept_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/b.png")
    found = find(tmp_path, plain("images/*", "masks/*"))
    assert len(found.entries) == 3
    assert "2 of 3 images have no mask and are kept (first: 'images/a.png'; 'masks/a' was looked for)" in found.notes


@pytest.mark.parametrize(("name", "expected"), [
    ("a.png", "a"), ("a.b.png", "a.b"), ("a.nii.gz", "a"), ("x/a.OME.TIF", "a"), (".png", ".png"), ("a", "a"), ("a.", "a."),
])  # fmt: skip
def test_stem(name: str, expected: str) -> None:
    assert stem(name) == expected


@pytest.mark.parametrize(
    ("image", "mask"), [("images/train/{}.png", "masks/val/{}.png"), ("images/p{}/{}.png", "masks/q{}/{}.png")]
)
def test_equal_stems_in_other_folders_are_no_pairs(image: str, mask: str, tmp_path: Path) -> None:
    make(tmp_path, *(text.format(i, i) for i in range(3) for text in (image, mask)))
    with pytest.raises(ValueError, match="no image has a mask"):
        find(tmp_path, replace(plain("images/**/*", "masks/**/*"), name="folder"))


def test_folders_of_one_name_do_not_share_a_mask(tmp_path: Path) -> None:
    make(tmp_path, "site0/case1/a.png", "site0/case1/b.png", "truth/case1.png")
    found = plain("site*/*/*.png", "truth/{folder}.png")
    assert masks(tmp_path, found) == {f"site0/case1/{name}.png": ("truth/case1.png",) for name in "ab"}
    make(tmp_path, "site1/case1/a.png")
    with pytest.raises(ValueError, match=r"would belong to both 'site0/case1/\w.png' and 'site1/case1/a.png'"):
        find(tmp_path, found)


@pytest.mark.parametrize(("images", "patterns"), [
    ("*_0000.png", "*.png"), ("{stem}_0000.png", "{stem}.png"), ("", ""),
])  # fmt: skip
def test_a_mask_named_as_its_image_without_an_end_beside_it(images: str, patterns: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"case_{at:03d}{end}.png" for at in range(4) for end in ("", "_0000")))
    folder = recipes.load("folder")
    recipe = replace(folder, images=(replace(folder.images[0], path=images, masks=patterns),))
    found = masks(tmp_path, recipe)
    assert found == {f"case_{at:03d}_0000.png": (f"case_{at:03d}.png",) for at in range(4)}


@pytest.mark.parametrize(("images", "patterns", "expected"), [
    ("images/*", "{dir}/../masks/{stem}.png", "images/*.png"), ("images/**/*", "masks/**/*", "images/**/*.png"), ("*/{stem}.*", "masks/{stem}.*", "*/*.png"),
    ("images/*.{jpg,png}", "masks/*", "images/*.png"), ("", "", "images/*.png"),
])  # fmt: skip
def test_of_a_picture_in_two_formats_one_is_to_be_read(
    images: str, patterns: str, expected: str, tmp_path: Path
) -> None:
    make(
        tmp_path,
        *(f"{name}.{suffix}" for name in ("images/0", "images/1") for suffix in ("png", "jpg")),
        "masks/0.png",
        "masks/1.png",
    )
    folder = recipes.load("folder")
    recipe = replace(folder, images=(replace(folder.images[0], path=images, masks=patterns),))
    with pytest.raises(ValueError, match="are one picture in two formats") as error:
        find(tmp_path, recipe)
    assert str(error.value).endswith(f"--images '{expected}' reads one of them")
    found = masks(
        tmp_path, replace(recipe, images=(replace(recipe.images[0], path=expected, masks=patterns or "masks/*"),))
    )
    assert found == {f"images/{i}.png": (f"masks/{i}.png",) for i in range(2)}
