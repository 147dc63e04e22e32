"""Groups, leaks between splits, and small datasets."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.config import ShardConfig
from medsass.data.sharding import recipe, shard
from medsass.data.sharding.catalog import splits
from medsass.data.sharding.recipe import Images
from tests.support.catalogued import by_image, find, make, plain
from tests.support.effort import examples

FOLDER = recipe.load("folder")


@pytest.mark.parametrize(("path", "expected"), [
    ("patient_12/scan/3.png", "patient_12"), ("x/sub-01/ses-1/anat.nii.gz", "sub-01"), ("case7_slice_3.png", "case7"),
    ("PAT0/001.dcm", "PAT0"), ("Subject 3/a.png", "Subject 3"), ("P012/a.png", "P012"), ("LIDC-IDRI-0001/1/2.dcm", "LIDC-IDRI-0001"),
    ("QIN-BREAST-01-0001/a.png", "QIN-BREAST-01-0001"), ("LUNG1-001/1.dcm", "LUNG1-001"),
    ("Kvasir-1000/a.png", None), ("ISIC-2018/a.jpg", None), ("SOB_B_TA-14-16184CD-40-001.png", "SOB_B_TA-14-16184CD"),
    ("x/TCGA-A7-A13E-01Z-00-DX1.png", "TCGA-A7-A13E"), ("slide_a_x512_y1024.png", "slide_a"), ("T1-tile-17.jpg", "T1"),
    ("TCGA_CS_4941_19960909_1.tif", "TCGA_CS_4941"), ("s/slide-b_512_0.png", "slide-b"), ("slide_b_0_1050.png", "slide_b"),
    ("c_y0_x512_rgb.png", "c"), ("CHNCXR_0001_0.png", None), ("imagesTr/X_001_0000.png", None), ("scan_12_1.png", None),
    ("slideA/patch1.png", None), ("subset0/a.mhd", None), ("path1/a.png", None), ("sub-control01/a.png", "sub-control01"), ("p01/0.png", "p01"),
    ("patient_id_12_3.png", "patient_id_12"), ("patient12slice3.png", "patient12"), ("A [x=256,y=0,w=256,h=256].jpg", "A"),
    ("x/B-2 [d=1.5,x=0,y=256,w=256,h=256].tif", "B-2"), ("a[1].png", None), ("patient_idea_1.png", None),
    ("sub-r001s003/ses-1/anat/sub-r001s003_T1w.png", "sub-r001s003"), ("sub-CC00063XX06_T2w.nii.gz", "sub-CC00063XX06"),
    ("x/sub-NDARINV003RTV85/1.png", "sub-NDARINV003RTV85"), ("sub-01A/a.png", "sub-01A"), ("sub-amu_T1w.png", "sub-amu"),
    ("sub-images/a.png", None), ("sub_r001s003/a.png", None), ("subr001s003/a.png", None),
    ("Patient01A.png", "Patient01"), ("case12b_3.png", "case12"), ("x/patient_7c/1.png", "patient_7"), ("Patient13D.png", "Patient13"),
    ("patient01ab.png", None), ("mouse_2D/a.png", None), ("case 3d.png", None), ("a1b.png", None),
    ("BraTS20_Training_001/flair_slice_1.png", "BraTS20_Training_001"), ("ID001/T1/img_slice_1.png", "ID001"), ("train1/flair_slice_1.png", None),
    ("ID001_frame01_slice_1.png", "ID001"), ("S001_T1_slice_1.png", "S001"), ("S001_t1ce_ax_slice_1.png", "S001"), ("ID001frame01_slice_2.png", "ID001"),
    ("t1_slice_1.png", None), ("us_frame_001.png", None), ("x/AB007/us_frame_001.png", "AB007"), ("WSI_A/he_tile_1.png", None),
    ("WSI-1a/norm_0_512.png", "WSI-1a"), ("slideA1/tile_x0_y0.png", "slideA1"), ("S001_T1/T1_slice_1.png", "S001"), ("phase2_slice_3.png", None),
    ("a.png", None), ("images/ISIC_0000001.jpg", None), ("classes/0001/a.png", None), ("nuclei_0003.png", None), ("patients/a.png", None),
])  # fmt: skip
def test_names_that_say_whose_an_image_is(path: str, expected: str | None) -> None:
    assert splits.named(path) == expected


_PIECES = [*"/_-.[01ab", "p", "P", "sub-", "Case", "LUNG1", "TCGA-A1-B2C3", "001", "1234", "x5", "y7", "r1", "c2", "row3", "tile", "patch", "frame", ".png",
           "mouse", "pat", "d=1,", "x=0,y=0", "SOB_B_A-14-2A-40-001"]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=7).map("".join))
@examples(300)
def test_what_most_names_lack_hides_no_patient(path: str) -> None:
    found = next((match for pattern in splits._KNOWN if (match := pattern.search(path))), None)
    assert not found or splits.named(path) == found[1]
    assert splits._MAY_BE_KNOWN.search(path) or not any(pattern.search(path) for pattern in splits._PARTS)


def test_a_patients_images_stay_in_one_split_without_any_option(tmp_path: Path) -> None:
    found = find(make(tmp_path, *(f"patient_{i % 20}/{i}.png" for i in range(200))), FOLDER)
    held = defaultdict(set)
    for entry in found.entries:
        held[entry.image.split("/")[0]].add(entry.split)
    assert all(len(where) == 1 for where in held.values())
    assert "200 images are grouped by their names or headers: 20 groups, such as 'patient_0'" in found.notes


@pytest.mark.parametrize(("group_by", "count"), [
    ("folder", 4), ("image", 40), ("patient", 4), ("series", 4), (r"/(?P<group>\d)\d*\.png", 10),
])  # fmt: skip
def test_group_by(group_by: str, count: int, tmp_path: Path) -> None:
    make(tmp_path, *(f"case{i % 4}/{i}.png" for i in range(40)))
    assert len({entry.group for entry in find(tmp_path, FOLDER, group_by).entries}) == count


def test_one_patient_in_two_splits_is_warned_of(tmp_path: Path) -> None:
    make(tmp_path, *(f"case{i % 4}/{i}.png" for i in range(40)))
    (warning,) = [note for note in find(tmp_path, FOLDER, "image").notes if note.startswith("WARNING")]
    assert warning.startswith("WARNING: 4 of 4 groups have images in several splits, such as 'case0' in ")
    make(tmp_path / "given", "train/patient1_a.png", "test/patient1_b.png", "test/patient2_a.png")
    given_splits = replace(FOLDER, images=(Images("train/*", split="train"), Images("test/*", split="test")))
    (warning,) = [note for note in find(tmp_path / "given", given_splits).notes if note.startswith("WARNING")]
    assert "1 of 2 groups have images in several splits, such as 'patient1' in " in warning


def test_groups_that_no_image_has_are_refused_and_those_of_some_are_told(tmp_path: Path) -> None:
    make(tmp_path, *(f"{i % 4:03}/{i}.png" for i in range(20)))
    for group_by in ("patient", "series", r"patinet(?P<group>\d+)"):
        with pytest.raises(
            ValueError, match=r"--group-by .* finds the group of no image, such as '000/0\.png'; it is one of"
        ):
            find(tmp_path, FOLDER, group_by)
    with pytest.raises(ValueError, match="--group-by 'folder' finds the group of no image"):
        find(tmp_path / "000", FOLDER, "folder")
    told = "10 images do not match the pattern of their group, such as '000/0.png': each is its own group"
    assert told in find(tmp_path, FOLDER, r"^(?P<group>00[13])/").notes
    hint = [note for note in find(tmp_path, FOLDER).notes if note.startswith("no patients are known")]
    assert len(hint) == 1
    assert "if the 4 folders with several images are patients, --group-by folder keeps them together" in hint[0]
    assert not any(note.startswith("no patients") for note in find(tmp_path, FOLDER, "folder").notes)


@given(st.integers(3, 40))
@examples(15)
def test_few_images_leave_no_split_empty(count: int) -> None:
    sizes = [(f"{i}.png", 1) for i in range(count)]
    choice, _ = splits.choose(iter(sizes), lambda: iter(sizes), FOLDER)
    assert set(Counter(choice(name, name) for name, _ in sizes)) == {"train", "val", "test"}


def test_two_images_are_for_training_and_validation(tmp_path: Path) -> None:
    assert Counter(entry.split for entry in find(make(tmp_path, "a.png", "b.png"), FOLDER).entries) == {
        "train": 1,
        "val": 1,
    }


def test_images_of_one_group_are_spread_and_that_is_said(tmp_path: Path) -> None:
    found = find(make(tmp_path, *(f"case1/{i}.png" for i in range(10))), FOLDER)
    assert Counter(entry.split for entry in found.entries) == {"train": 7, "val": 1, "test": 2}
    assert any(
        "all 10 images are of one group, 'case1', and are spread over the splits" in note for note in found.notes
    )
    assert any(note.startswith("WARNING: 1 of 1 groups have images in several splits") for note in found.notes)


def test_split_option_gives_exact_shares(tmp_path: Path) -> None:
    source = make(tmp_path / "source", *(f"{i}.png" for i in range(50)))
    for text, expected in (("0.8,0.1,0.1", {"train": 40, "val": 5, "test": 5}), ("0.5,0.5", {"train": 25, "val": 25})):
        manifest, _ = shard.plan(ShardConfig(source, tmp_path / "out", split=text))
        assert {name: split.samples for name, split in manifest.splits.items()} == expected


@pytest.mark.parametrize("text", ["0.8", "0.8,0.3", "0.5,0.5,0", "a,b", "0.7,0.1,0.1,0.1"])
def test_split_option_that_is_no_shares_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--split must be"):
        shard.plan(ShardConfig(make(tmp_path / "s", "a.png"), tmp_path / "out", split=text))


def test_split_option_does_not_change_official_splits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--split: recipe 'isic2017' has the splits of its owners; drop the option"):
        shard.plan(ShardConfig(tmp_path, tmp_path / "out", recipe="isic2017", split="0.8,0.2"))


def test_groups_of_a_recipe_go_before_names(tmp_path: Path) -> None:
    make(tmp_path, *(f"slide{i % 3}/case{i}.png" for i in range(12)))
    chosen = plain(groups={"slide": "(?P<group>slide.)/"})
    assert {entry.group for entry in by_image(tmp_path, chosen).values()} == {"slide0", "slide1", "slide2"}


@pytest.mark.parametrize("files", [
    ["images/{}/{}1.png", "masks/{}/{}1.png"], ["{}/{}1.png"], ["images/{}/{}1.png"], ["{}/{}1.png", "{}/{}1_mask.png"],
    ["{}/images/{}1.png", "{}/masks/{}1.png"],
])  # fmt: skip
def test_splits_that_folders_name_are_kept(files: list[str], tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        make(tmp_path, *(file.format(split, i) for file in files for i in range(5)))
    for chosen in (FOLDER, replace(FOLDER, images=(Images("**/*.png"),))) if len(files) == 1 else (FOLDER,):
        entries = by_image(tmp_path, chosen).values()
        assert len(entries) == 15
        for entry in entries:
            assert entry.split == next(name for name in ("train", "val", "test") if name in entry.image)
            assert bool(entry.masks) == (len(files) > 1)


def test_training_images_are_shared_where_the_folders_name_test_images_alone(tmp_path: Path) -> None:
    make(tmp_path, *(f"{split}/{split}{i}.png" for split in ("train", "test") for i in range(20)))
    found = find(tmp_path, FOLDER)
    assert {entry.split for entry in found.entries if entry.image.startswith("train")} == {"train", "val"}
    assert {entry.split for entry in found.entries if entry.image.startswith("test")} == {"test"}
    assert "folders name the splits: test; --split shares all images anew" in found.notes
    shared, _ = shard.plan(ShardConfig(tmp_path, tmp_path / "out", split="0.5,0.5"))
    assert {name: split.samples for name, split in shared.splits.items()} == {"train": 20, "val": 20}


def test_a_folder_that_only_mentions_a_test_names_no_split(tmp_path: Path) -> None:
    make(tmp_path, *(f"stress_test/{i}.png" for i in range(30)), *(f"rest/r{i}.png" for i in range(30)))
    assert {entry.split for entry in find(tmp_path, FOLDER).entries} == {"train", "val", "test"}
    assert not any("folders name" in note for note in find(tmp_path, FOLDER).notes)


def test_a_patient_in_two_splits_that_folders_name_is_kept_together_by_sharing_anew(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(f"{split}/patient{p}_{at}{split}.png" for split in ("train", "test") for p in range(5) for at in range(3)),
    )
    (warning,) = [note for note in find(tmp_path, FOLDER).notes if note.startswith("WARNING")]
    assert warning.endswith("--split shares all images anew and keeps a patient's images together")
    chosen = replace(FOLDER, exact_splits=True)
    assert not [note for note in find(tmp_path, chosen).notes if note.startswith("WARNING")]


@pytest.mark.parametrize("path", ["a/{0}.{1}", "{1}/{0}.{1}", "x/{1}/Original/{0}.{1}"])
def test_one_picture_in_two_formats_stays_in_one_split(path: str, tmp_path: Path) -> None:
    make(tmp_path, *(path.format(i, suffix) for i in range(40) for suffix in ("png", "tif")), "b/0.png")
    found = find(tmp_path, FOLDER)
    where = defaultdict(set)
    for entry in found.entries:
        where[entry.image.rpartition(".")[0].replace("tif", "png")].add(entry.split)
    assert all(len(splits) == 1 for splits in where.values())
    assert len({entry.group for entry in found.entries}) == 41
    assert not any("are of one patient" in note or "are patients" in note for note in found.notes)


@pytest.mark.parametrize(("image", "group"), [
    ("alice_slice_00.png", "alice"), ("videoA_frame_0001.png", "videoA"), ("slideA_x0_y0.png", "slideA"), ("liver/smith_slice_10.png", "smith"),
    ("tiles_512/ovary_0_512.png", "ovary"), ("256/liver_x0_y0.png", "liver"), ("2019/flair_slice_1.png", None), ("10x/he_x0_y0.png", None),
    ("study1/CT_slice_000.png", "study1"), ("BraTS20_Training_001/flair_slice_1.png", "BraTS20_Training_001"),
])  # fmt: skip
def test_a_name_is_of_whom_it_says_and_else_the_folders(image: str, group: str | None) -> None:
    assert splits.named(image) == group
