"""Small inputs that once failed, each made by a generator of shared/cases, and what its README says is right for them.

What the commands wrote is compared with the pixels that the generator wrote, which other libraries read.
"""

import csv
import re
import tarfile
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
import zarr
from PIL import Image

from medsass.cli import main
from medsass.config import schema
from medsass.data import synthetic
from medsass.data.formats.damage import REMEDY
from tests.support import cases, faults
from tests.support.cases import check, decoded, files_in, label, otsu, predict, red, refused, scaled, shard, written

pytestmark = pytest.mark.skipif(not cases.FOLDER.is_dir(), reason=f"no generators at {cases.FOLDER}")

COMMANDS = (label, otsu), (predict, red)  # with the mask that each makes of an image
CHANNELS = "2 channels: say which to read: --channels 0 for gray or three, such as 0,1,2, for red, green and blue (in [[images]] of a recipe: channels = [0])"
PLANES = "an array of shape (3, 64, 80) can be 3 channels or 3 slices, and the file does not say; say which: --channels 0,1,2, or --frames all"
COLOURS = "'#ff0000' (a colour), nonzero (any object or class), half (soft edges) or levels such as 1,3"
CLASSES = r"medsass: the masks hold the levels 0 \(.*a.*\.png\), 1 \(.*a.*\.png\), 2 \(.*a.*\.png\), so that one rule must say what is foreground in all of them: --foreground 1,2 \(some of these levels\), nonzero, or half where edges are soft"
OWN_RANGES = "are mapped to gray by their own ranges, so that one value is not one gray in all; --window LOW,HIGH"


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder that the generator with the number in the test's name has written."""
    number = request.node.name.split("_")[2]
    cases.generate(number, tmp_path / number)
    return tmp_path / number


def test_every_generator_has_a_test() -> None:
    tested = [name.split("_")[2] for name in globals() if name.startswith("test_case_")]
    assert tested == sorted(path.name.partition("-")[0] for path in cases.FOLDER.glob("*.py"))


def test_case_02_palette_masks(case: Path, tmp_path: Path) -> None:
    classes = {"1,2": (1, 2), "nonzero": (1, 2), "1": (1,), "2": (2,)}
    for name, rules in (("voc", classes), ("white0", classes), ("inverted", {"": (1,), "0": (0,)})):
        if name != "inverted":
            assert re.fullmatch(CLASSES, refused(case / name, tmp_path / "none"))
        indices = decoded(case / name / "masks/a.png")
        for rule, levels in rules.items():
            found = shard(case / name, tmp_path / f"{name}-{rule}", "--foreground", rule)
            check(found.masks, {"a": np.isin(indices, levels)})
            assert found.samples["a"].files["png"] == (case / name / "images/a.png").read_bytes()


def test_case_04_hidden_files(case: Path, tmp_path: Path) -> None:
    images = {f"a{i}": decoded(case / f"images/a{i}.png") for i in range(3)}
    for source in (case, case / "images"):
        found = shard(source, tmp_path / "shards" / source.name)
        assert (found.rejected, found.splits) == ({}, {"train": 1, "val": 1, "test": 1})
        assert not found.said("passed over")
        check(found.images, images)
    for run, mask in COMMANDS:
        assert run(case, tmp_path / run.__name__) == (0, "")
        masks = {f"images/{name}.png": mask(image) for name, image in images.items()}
        check(written(tmp_path / run.__name__), masks)


def test_case_06_gif_and_ppm_images(case: Path, tmp_path: Path) -> None:
    images = {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in (case / "im").iterdir()}
    masks = {path.stem: np.asarray(Image.open(path).convert("L")) > 0 for path in (case / "ma").iterdir()}
    assert [mask.sum() for mask in masks.values()] == [400] * 3
    pair = "--images", "im/*", "--masks", "ma/*"
    found = shard(case, tmp_path / "out", *pair)
    assert (found.rejected, found.splits) == ({}, {"train": 1, "val": 1, "test": 1})
    check(found.images, images)
    check(found.masks, masks)
    reason = "3 of 6 images hold few values in flat areas, as masks do, such as 'ma/a.gif', unlike 'im/a.png'"
    assert f"{case}: {reason}; --images and --masks say what is what" in refused(case, tmp_path / "none")
    alone = shard(case, tmp_path / "all", "--images", "**/*")
    assert (set(alone.by_source), alone.rejected) == (files_in(case), {})


def test_case_08_dicom_slide(case: Path, tmp_path: Path) -> None:
    frames = pydicom.dcmread(case / "slide.dcm").pixel_array
    slide = np.concatenate([np.concatenate(list(frames[row : row + 4]), axis=1) for row in range(0, 16, 4)])
    np.testing.assert_array_equal(slide, np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    whole = shard(case, tmp_path / "whole")
    assert whole.rejected == {}
    check(whole.images, {"slide": slide})
    corners = [(y, x) for y in (0, 80, 160) for x in (0, 80, 160)]  # of tiles that are none of the file's
    tiled = shard(case, tmp_path / "tiled", "--tile", 96, "--stride", 80)
    check(tiled.images, {f"slide-y{y:06d}-x{x:06d}": slide[y : y + 96, x : x + 96] for y, x in corners})
    assert len(tiled.splits) == len({sample.meta["group"] for sample in tiled.samples.values()}) == 1


def test_case_10_tiff_axes(case: Path, tmp_path: Path) -> None:
    c2, c3, chw, rgb, hw2, stack = (tifffile.imread(path) for path in sorted(case.iterdir()))
    colours = {"c3": np.stack([scaled(plane) for plane in c3], -1), "chw_rgb": np.moveaxis(rgb, 0, -1)}
    pages = {f"stack-f{i:06d}": page for i, page in enumerate(scaled(stack))}
    found = shard(case, tmp_path / "out")
    assert found.rejected == {"c2.ome.tif": CHANNELS, "chw.tif": PLANES, "hw2.tif": CHANNELS}
    check(found.images, {**colours, **pages})
    said = "".join(f"medsass: {case}/{name}: {found.rejected[name]}; left out\n" for name in sorted(found.rejected))
    for run, mask in COMMANDS:
        assert run(case, tmp_path / run.__name__) == (2, said)
        masks = {"c3.ome.png": mask(colours["c3"]), "chw_rgb.png": mask(colours["chw_rgb"])}
        levels = stack if run is label else scaled(stack)  # thresholds are of the file's own levels
        masks["stack.tif"] = np.stack([mask(page) for page in levels])
        check(written(tmp_path / run.__name__), masks)
    second = {"hw2": scaled(hw2[..., 1]), "chw": chw[1], "c2": scaled(c2[1]), "c3": scaled(c3[1])}
    for name, options, expected in (
        ("second", ("--channels", 1), second),
        ("three", ("--channels", "0,1,2"), {"chw": np.moveaxis(chw, 0, -1), **colours}),
        ("slices", ("--frames", "all"), {f"chw-f{i:06d}": page for i, page in enumerate(chw)}),
    ):
        found = shard(case, tmp_path / name, *options)
        assert set(found.rejected) == (set() if name == "second" else {"c2.ome.tif", "hw2.tif"})
        check({key: found.images[key] for key in expected}, expected)


def test_case_12_tiff_variants(case: Path, tmp_path: Path) -> None:
    truth = {path.stem: np.load(path) for path in (case / "truth").iterdir()}
    found = shard(case / "im", tmp_path / "out")
    kinds = {"complex64": "type complex64 are not supported", "inf_f32": "not finite", "nan_f32": "not finite"}
    assert set(found.rejected) == {f"{name}.tif" for name in kinds}
    assert all(reason in found.rejected[f"{name}.tif"] for name, reason in kinds.items())
    expected = {name: a[..., :3] if a.ndim == 3 else a for name, a in truth.items() if name not in kinds}
    for name in ("jpeg_ycbcr", "lab"):  # stored with a loss, and by tifffile as if RGB were YCbCr
        expected[name] = np.asarray(Image.open(case / f"im/{name}.tif").convert("RGB"))
    assert found.images["thumb_first"].shape == (72, 88, 3)
    check(found.images, {name: a if a.dtype == np.uint8 else scaled(a) for name, a in expected.items()})


def test_case_14_dicom_variants(case: Path, tmp_path: Path) -> None:
    expected = cases.dicom_truth()
    if (case / "no_meta.dcm").exists():
        expected["no_meta"] = expected["ct_rescale"]
    code, screen = cases.fresh("shard", case, tmp_path / "out", "--workers", 1)
    assert code == 0
    assert re.fullmatch(r"pydicom: 1 message \(first: jpeg_rgb_mislabelled\.dcm: The \(0028,0004\) .*\)\n", screen)
    found = cases.read(tmp_path / "out")
    assert found.rejected == {
        "no_pixels.dcm": f"a DICOM file without pixel data (modality CT); {REMEDY}",
        "truncated.dcm": f"truncated DICOM file: 8,240 of 10,240 bytes of pixel data; {REMEDY}",
    }
    assert found.said(f"3 files in physical units, such as ct_padding, {OWN_RANGES}")
    lossy = found.images["jpeg_rgb_mislabelled"]
    assert np.abs(lossy - expected["jpeg_rgb_mislabelled"].astype(int)).mean() < 2
    check(found.images, expected | {"jpeg_rgb_mislabelled": lossy})


def test_case_16_masks_of_several_classes(case: Path, tmp_path: Path) -> None:
    assert re.fullmatch(CLASSES, refused(case, tmp_path / "none"))
    masks = {path.stem: decoded(path) for path in (case / "masks").iterdir()}
    for rule, levels in {"1": (1,), "2": (2,), "1,2": (1, 2), "nonzero": (1, 2)}.items():
        found = shard(case, tmp_path / rule, "--foreground", rule)
        assert found.rejected == {}
        check(found.masks, {key: np.isin(mask, levels) for key, mask in masks.items()})


def test_case_18_toml_with_a_byte_order_mark(case: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    synthetic.generate(source, 10, seed=1, size=32)
    images = {path.stem: decoded(path) for path in (source / "images").iterdir()}
    for name in ("crlf", "bom"):
        found = shard(source, tmp_path / name, "--recipe", case / f"{name}.toml")
        assert (found.rejected, set(found.splits)) == ({}, {"train", "test"})
        check(found.images, images)
        check(found.masks, {key: decoded(source / f"masks/{key}.png") > 0 for key in images})
    assert faults.contents(tmp_path / "bom") == faults.contents(tmp_path / "crlf")
    path = case / "utf16.toml"
    reason = "not a recipe: not a TOML file: it is not UTF-8 text; save it as UTF-8"
    assert refused(source, tmp_path / "none", "--recipe", path) == f"medsass: {path}: {reason}"
    assert schema.read_toml(case / "train_bom.toml") == {"epochs": 1}
    words = ["shards", "run", "--config", str(case / "train_bom.toml")]
    assert main.commands["train"].make_context("train", words).params["epochs"] == 1


def test_case_20_equal_names(case: Path, tmp_path: Path) -> None:
    found = shard(case, tmp_path / "out")
    assert (found.rejected, len(found.samples)) == ({}, 15)
    check(found.by_source, {name: decoded(case / name) for name in files_in(case)})
    assert all(re.fullmatch(r"[\w-]{1,64}", key, re.ASCII) for key in found.samples)
    for run, folder in ((label, ""), (predict, f"{case}/")):
        name = run.__name__
        both = f"{folder}a/1.png and {folder}a/1.tif would both write {tmp_path}/{name}/a/1.png"
        assert run(case, tmp_path / name) == (2, f"medsass: {both}; {name} them into different folders\n")
        assert not (tmp_path / name).exists()


def test_case_22_webdataset_without_manifest(case: Path, tmp_path: Path) -> None:
    remedy = f"make shards of them with: medsass shard '{case}/*.tar' OUT --recipe webdataset"
    missing = f"medsass: {case}/manifest.json is missing; if these are tar files of images, {remedy}\n"
    assert cases.command("train", case, tmp_path / "run") == (2, missing)
    assert refused(case, tmp_path / "none").endswith("; its tar files are read with --recipe webdataset")
    members: dict[str, bytes] = {}
    for path in case.glob("*.tar"):
        with tarfile.open(path) as opened:
            members |= {f"{path.name}/{one.name}": opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]
    for name, source in (("pattern", f"{case}/*.tar"), ("folder", case)):
        out = tmp_path / name
        found = shard(source, out, "--recipe", "webdataset")
        assert (found.rejected, found.splits) == ({}, {"train": 8, "val": 3})
        assert {one.meta["source"]: one.files["jpg"] for one in found.samples.values()} == members
        assert all(one.meta["source"].startswith(one.split) for one in found.samples.values())
        assert cases.command("verify", out) == (0, "")


def test_case_24_ct_series(case: Path, tmp_path: Path) -> None:
    values = {each.name: np.stack([cases.modality(path) for path in sorted(each.iterdir())]) for each in case.iterdir()}
    for window in ((), (-160, 240)):
        volumes = {patient: scaled(volume, *window) for patient, volume in values.items()}
        options = ("--window", "-160,240")[: len(window)]
        out = tmp_path / f"{len(window)}"
        found = shard(case, out / "shards", *options)
        assert (found.rejected, found.splits) == ({}, {"train": 10, "val": 10, "test": 10})
        assert len({(key[:4], one.split, one.meta["group"]) for key, one in found.samples.items()}) == 3
        assert found.said(OWN_RANGES) != bool(window)
        check(found.images, {f"{p}-f{i:06d}": image for p, volume in volumes.items() for i, image in enumerate(volume)})
        for run, mask in COMMANDS:
            assert run(case, out / run.__name__, *options)[0] == 0
            masks = {f"{p}.nii.gz": np.stack([mask(image) for image in volume]) for p, volume in volumes.items()}
            check(written(out / run.__name__), masks)


def test_case_26_colour_masks(case: Path, tmp_path: Path) -> None:
    for name, held, rules in (
        ("red_on_white", "2 colours, #ff0000, #ffffff", ("#ff0000",)),
        ("one_hot", "2 colours, #00ff00, #ff0000", ("#00ff00",)),
        ("two_classes", "3 colours, #000000, #0000ff, #00ff00", ("#00ff00", "#0000ff", "#00ff00,#0000ff")),
    ):
        reason = f"a mask in {held}; say which are foreground: --foreground {COLOURS}"
        assert refused(case / name, tmp_path / "none").endswith(f"; images/a.png: mask masks/a.png: {reason}")
        mask = decoded(case / name / "masks/a.png")
        for rule in rules:
            colours = [tuple(bytes.fromhex(colour[1:])) for colour in rule.split(",")]
            found = shard(case / name, tmp_path / name / rule, "--foreground", rule)
            check(found.masks, {"a": np.any([(mask == colour).all(-1) for colour in colours], axis=0)})


def test_case_28_tiff_by_other_names(case: Path, tmp_path: Path) -> None:
    images = {path.name: tifffile.imread(path) for path in case.iterdir() if path.is_file()}
    images["img.ome.zarr"] = np.asarray(zarr.open_group(str(case / "img.ome.zarr"), mode="r")["0"])[0, 0, 0]
    assert len(images) == 9
    for name in ("notes.txt", "table.csv"):
        (case / name).write_text("no image")
    for options in ((), ("--images", "*")):
        found = shard(case, tmp_path / f"{len(options)}", *options)
        assert (found.rejected, found.notes) == ({}, ["passed over: 1 '.txt' files; 1 '.csv' files"])
        check(found.by_source, images)
    for run, mask in COMMANDS:
        passed = "2 files passed over, because they are no images that can be read: 1 .csv, 1 .txt"
        assert run(case, tmp_path / run.__name__) == (0, f"warning: {case}: {passed}\n")
        masks = {name.rpartition(".")[0]: made for name, made in written(tmp_path / run.__name__).items()}
        check(masks, {name.rpartition(".")[0]: mask(image) for name, image in images.items()})


def test_case_30_damaged_png(case: Path, tmp_path: Path) -> None:
    good = {path.stem: path.read_bytes() for path in case.glob("g*.png")}
    options = "--images", "*", "--max-shard-bytes", faults.OPTIONS["max_shard_bytes"]
    faults.interrupt(case, tmp_path / "resumed", images="*", masks="", workers=1)
    for name, more in (("whole", ()), ("whole", ("--resume",)), ("resumed", ("--resume",))):
        found = shard(case, tmp_path / name, *options, *more)
        assert found.rejected == {f"broken{number}.png": f"truncated PNG file; {REMEDY}" for number in range(6)}
        assert {key: sample.files["png"] for key, sample in found.samples.items()} == good
    assert len(good) == 90
    assert faults.contents(tmp_path / "resumed") == faults.contents(tmp_path / "whole")


def test_case_32_lossless_and_12_bit_jpeg(case: Path, tmp_path: Path) -> None:
    lossless = np.asarray(imagecodecs.ljpeg_decode((case / "sof3.jpg").read_bytes()))
    deep = np.asarray(imagecodecs.jpeg8_decode((case / "bits12.jpg").read_bytes()))
    np.testing.assert_array_equal(lossless, np.arange(4096).reshape(64, 64) >> 4)
    assert deep.dtype == np.uint16
    found = shard(case, tmp_path / "out", "--encode", "keep")
    assert found.rejected == {}
    assert all(set(sample.files) == {"png", "json"} for sample in found.samples.values())
    check(found.images, {"sof3": lossless, "bits12": scaled(deep)})
    np.testing.assert_array_equal(shard(case, tmp_path / "16", "--depth", 16).images["bits12"], deep)


def test_case_34_ct_padding(case: Path, tmp_path: Path) -> None:
    values = cases.modality(case / "a.dcm")
    disc = values == 300
    assert set(np.unique(values)) == {-2000, 40, 300}
    found = shard(case, tmp_path / "out")
    assert found.samples["a"].meta["range"] == [[40.0, 300.0]]
    check(found.images, {"a": scaled(values, 40, 300)})
    check(shard(case, tmp_path / "w", "--window", "-160,240").images, {"a": scaled(values, -160, 240)})
    for run, _ in COMMANDS:
        assert run(case, tmp_path / run.__name__) == (0, "")
        check(written(tmp_path / run.__name__), {"a.png": disc})
    (row,) = csv.DictReader((tmp_path / "label/labels.csv").read_text().splitlines())
    assert float(row["separability"]) == 1  # of tissue and disc; the padding would be a third level
