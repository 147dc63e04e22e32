"""Every bundled recipe on its dataset: the real one where it is there, else its owners' layout with generated pictures."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from benchmarks import layouts
from medsass.cli import main
from medsass.config import ShardConfig
from medsass.data import listing, shard
from medsass.data.manifest import REJECTED, Manifest

Stored = dict[str, dict[str, Any]]


def written(source: Path, out: Path, recipe: str, **options: Any) -> tuple[Manifest, Stored]:
    """The manifest, and by key the files of every sample, as Python's tarfile reads them; `split` and `meta` beside."""
    manifest = shard.write(ShardConfig(source, out, recipe=recipe, **options))
    stored: Stored = {}
    for split in manifest.splits:
        for path in sorted(out.glob(f"{split}-*.tar")):
            with tarfile.open(path) as opened:
                for member in opened:
                    key, _, extension = member.name.partition(".")
                    data = opened.extractfile(member).read()  # type: ignore[union-attr]
                    stored.setdefault(key, {"split": split})[extension] = data
    for sample in stored.values():
        sample["meta"] = json.loads(sample["json"])
    return manifest, stored


def planned(source: Path, recipe: str, **options: Any) -> dict[str, int]:
    found = shard.plan(ShardConfig(source, source / "out", recipe=recipe, **options))
    assert found.rejected == 0
    return {name: split.samples for name, split in found.splits.items()}


def counts(stored: Stored) -> dict[str, int]:
    return dict(Counter(sample["split"] for sample in stored.values()))


def pixels(data: bytes) -> NDArray[Any]:
    """(H, W) or (H, W, 3) RGB, of the file's own depth, by OpenCV; alpha is passed over."""
    array = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    return array[..., 2::-1] if array.ndim == 3 else array


def rejected(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / REJECTED).read_text().splitlines()]
    return {item["file"]: item["reason"] for item in lines}


def linked(real: Path, source: Path, names: list[str]) -> Path:
    """A folder with links to some files of a real set."""
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).symlink_to(real / name)
    return source


# ISIC 2017


def pretend(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    """Let every source hold files of these names: to make tens of thousands takes long."""
    monkeypatch.setattr(listing, "_walk", lambda *_: ((name, 0, "") for name in names))


def test_isic2017_has_the_papers_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.isic_labels(tmp_path)
    also = [f"ISIC-2017_Training_Data/{name}" for name in ("ISIC_0000000_superpixels.png", "metadata.csv")]
    pretend(monkeypatch, [*layouts.isic_files(), *also])
    assert planned(tmp_path, "isic2017") == {"train": 2000, "val": 150, "test": 600}


def test_isic2017_real(real_data: Path, tmp_path: Path) -> None:
    real = real_data / "isic2017"
    manifest, stored = written(real, tmp_path / "out", "isic2017")
    assert counts(stored) == {"train": 2000, "val": 149}
    twins = [real / f"ISIC-2017_{name}.jpg" for name in ("Training_Data/ISIC_0012970", "Validation_Data/ISIC_0012127")]
    assert twins[0].read_bytes() == twins[1].read_bytes()
    assert list(rejected(tmp_path / "out")) == [twins[1].relative_to(real).as_posix()]
    assert "ISIC_0012970" in rejected(tmp_path / "out")["ISIC-2017_Validation_Data/ISIC_0012127.jpg"]
    for part, split in (("Training", "train"), ("Validation", "val")):
        labels: dict[str, str] = {}
        with (real / f"ISIC-2017_{part}_Part3_GroundTruth.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                kinds = [kind for kind in ("melanoma", "seborrheic_keratosis") if row[kind] == "1.0"]
                labels[row["image_id"]] = kinds[0] if kinds else "nevus"
        labels.pop("ISIC_0012127", None)
        found = {key: sample for key, sample in stored.items() if sample["split"] == split}
        assert {key: sample["meta"]["class"] for key, sample in found.items()} == labels
        assert manifest.splits[split].classes == Counter(labels.values())
        for key in sorted(found)[::150]:
            assert found[key]["jpg"] == (real / f"ISIC-2017_{part}_Data" / f"{key}.jpg").read_bytes()
            mask = real / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{key}_segmentation.png"
            truth = np.asarray(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))
            np.testing.assert_array_equal(pixels(found[key]["mask.png"]), np.where(truth > 127, 255, 0))


# COVID-19 Radiography


def test_covid19_radiography_shares_of_all_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test split is as large as the paper's. Its 14,730 and 2,202 are an 80/20 and then an 87/13 split of the rest,
    not 70/10/20, which gives 14,816 and 2,116.
    """
    assert len(set(layouts.xray_files())) == 2 * 21165
    pretend(monkeypatch, layouts.xray_files())
    found = shard.plan(ShardConfig(tmp_path, tmp_path / "out", recipe="covid19_radiography"))
    assert {name: split.samples for name, split in found.splits.items()} == {"train": 14816, "val": 2116, "test": 4233}
    assert (found.rejected, found.notes) == (0, [])


def xray(folder: Path) -> None:
    """Three pictures of each class, 299 x 299, with masks of 256 x 256 in RGB, as in the release."""
    generator = np.random.default_rng(3)
    for name in layouts.XRAY:
        for number in range(1, 4):
            below = folder / "COVID-19_Radiography_Dataset" / name
            for kind, array in (
                ("images", generator.integers(0, 256, (299, 299), np.uint8)),
                ("masks", np.kron(generator.integers(0, 2, (8, 8, 1), np.uint8) * 255, np.ones((32, 32, 3), np.uint8))),
            ):
                (below / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(below / kind / f"{name}-{number}.png")


def test_covid19_radiography_classes_and_masks(tmp_path: Path) -> None:
    xray(tmp_path / "source")
    _, stored = written(tmp_path / "source", tmp_path / "out", "covid19_radiography")
    assert Counter(sample["meta"]["class"] for sample in stored.values()) == dict.fromkeys(layouts.XRAY, 3)
    assert "Viral_Pneumonia-2" in stored
    for sample in stored.values():
        image = tmp_path / "source" / sample["meta"]["source"]
        assert sample["png"] == image.read_bytes()
        mask = (
            Image.open(image.parents[1] / "masks" / image.name)
            .convert("L")
            .resize((299, 299), Image.Resampling.NEAREST)
        )
        np.testing.assert_array_equal(pixels(sample["mask.png"]), np.asarray(mask))


def test_covid19_radiography_real_pairs_never_meet_across_splits(real_data: Path, tmp_path: Path) -> None:
    real, below = real_data / "covid19_radiography", "COVID-19_Radiography_Dataset/Viral Pneumonia"
    pairs = [(74, 75), (117, 118), (249, 250), (294, 295), (595, 596)]
    numbers = [number for pair in pairs for number in pair] + list(range(1, 31))
    names = [f"{below}/{kind}/Viral Pneumonia-{i}.png" for i in numbers for kind in ("images", "masks")]
    manifest, stored = written(linked(real, tmp_path / "source", names), tmp_path / "out", "covid19_radiography")
    out = rejected(tmp_path / "out")
    digests: dict[str, set[str]] = {}
    for sample in stored.values():
        digest = hashlib.sha256((real / sample["meta"]["source"]).read_bytes()).hexdigest()
        assert sample["meta"]["sha256"] == digest
        digests.setdefault(digest, set()).add(sample["split"])
    assert all(len(splits) == 1 for splits in digests.values())
    assert len(stored) + len(out) == len(numbers)
    together = 0
    for one, other in pairs:
        left_out = [name for name in out if name in [f"{below}/images/Viral Pneumonia-{i}.png" for i in (one, other)]]
        together += not left_out
        assert len(left_out) <= 1
    assert len(pairs) - together == len(out)
    assert (together > 0) == any("more than once, byte for byte" in note for note in manifest.notes)


# TissueNet


@pytest.fixture(scope="module")
def tissuenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few pictures of the true sizes."""
    folder = tmp_path_factory.mktemp("tissuenet")
    layouts.tissuenet(folder, {"train": 3, "val": 2, "test": 2}, {"train": 512, "val": 256, "test": 256})
    return folder


def stretched(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """0.5 and 99.5 percentile to 0 and 255, not rounded."""
    values = plane.astype(np.float64)
    return np.interp(values, np.percentile(values, [0.5, 99.5]), [0, 255])


@pytest.mark.parametrize("variant", ["nuclear", "whole-cell"])
def test_tissuenet(variant: str, tissuenet: Path, tmp_path: Path) -> None:
    manifest, stored = written(tissuenet, tmp_path / "out", "tissuenet", variant=variant)
    assert counts(stored) == {"train": 3, "val": 2, "test": 2}
    assert {name: split.sizes for name, split in manifest.splits.items()} == {
        "train": {"512x512": 3}, "val": {"256x256": 2}, "test": {"256x256": 2},
    }  # fmt: skip
    for split, count in {"train": 3, "val": 2, "test": 2}.items():
        with np.load(tissuenet / f"tissuenet_v1.0_{split}.npz") as arrays:
            x, y = arrays["X"], arrays["y"]
        for frame in range(count):
            sample = stored[f"tissuenet_v1_0_{split}-f{frame:06d}"]
            assert (sample["split"], sample["meta"]["frame"]) == (split, frame)
            nuclei, membranes = stretched(x[frame, ..., 0]), stretched(x[frame, ..., 1])
            whole = variant == "whole-cell"
            expected = np.stack([nuclei, membranes, nuclei], -1) if whole else nuclei
            np.testing.assert_allclose(pixels(sample["png"]), expected, rtol=0, atol=0.5 + 1e-9)
            truth = y[frame, ..., 0 if whole else 1] > 0
            np.testing.assert_array_equal(pixels(sample["mask.png"]), np.where(truth, 255, 0))


def test_tissuenet_is_of_nuclei_unless_told_otherwise(tissuenet: Path) -> None:
    nuclear, whole = (shard.plan(ShardConfig(tissuenet, tissuenet / "out", recipe="tissuenet", variant=name)).recipe
                      for name in ("nuclear", "whole-cell"))  # fmt: skip
    assert shard.plan(ShardConfig(tissuenet, tissuenet / "out", recipe="tissuenet")).recipe == nuclear != whole
    with pytest.raises(ValueError, match="no variant 'nuclei'; variants: nuclear, whole-cell"):
        shard.plan(ShardConfig(tissuenet, tissuenet / "out", recipe="tissuenet", variant="nuclei"))


_PEAKS = """
import re, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data import shard

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

for name in sys.argv[1:]:
    peak = [0]
    def watch(done, total):
        peak[0] = max(peak[0], anonymous())
    config = ShardConfig(Path(name), Path(name) / "out", recipe="tissuenet", workers=2)
    print(shard.write(config, watch).splits["train"].samples, peak[0])
"""


def compressible(folder: Path, count: int) -> Path:
    """A training file of `count` frames at 512 x 512, 4 MiB each once unpacked; written frame by frame."""
    folder.mkdir()
    frame = np.zeros((512, 512, 2), np.float32)
    frame += np.arange(512, dtype=np.float32)[:, None]
    with zipfile.ZipFile(folder / "tissuenet_v1.0_train.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, dtype in (("X", np.float32), ("y", np.int32)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count, 512, 512, 2)}
                npy.write_array_header_1_0(file, header)
                for number in range(count):
                    frame[0, 0] = number
                    file.write(frame.astype(dtype).tobytes())
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_tissuenet_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """What is held is measured: maps of files are given back when memory is needed, and with this threshold the C
    library gives freed blocks back at once.
    """
    folders = [str(compressible(tmp_path / str(count), count)) for count in (8, 56)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", _PEAKS, *folders], capture_output=True, text=True, check=True, env=environment
    )
    (few, small), (many, large) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (8, 56)
    assert large - small < 64 << 10  # KiB; 48 more images are 192 MiB


# Dermatomyositis


def test_dermatomyositis_slide_of_true_size_is_twelve_tiles(tmp_path: Path) -> None:
    layouts.dermatomyositis(tmp_path / "source", slides=1)
    _, stored = written(tmp_path / "source", tmp_path / "out", "dermatomyositis")
    assert len(stored) == 12
    plane = tifffile.imread(tmp_path / "source" / "patient0" / "images" / "slide000.tif")[0]
    mask = np.asarray(
        cv2.imread(str(tmp_path / "source" / "patient0" / "masks" / "slide000.png"), cv2.IMREAD_UNCHANGED)
    )
    assert plane.shape == (1408, 1876)
    dapi = np.interp(plane, np.percentile(plane, [0.5, 99.5]), [0, 255])
    covered = np.zeros(plane.shape, bool)
    for key, sample in stored.items():
        y, x = sample["meta"]["tile"]["y"], sample["meta"]["tile"]["x"]
        assert key == f"slide000-y{y:06d}-x{x:06d}"
        place = slice(y, y + 480), slice(x, x + 480)
        covered[place] = True
        assert pixels(sample["png"]).shape == (480, 480)
        np.testing.assert_allclose(pixels(sample["png"]), dapi[place], rtol=0, atol=0.5 + 1e-9)
        np.testing.assert_array_equal(pixels(sample["mask.png"]), mask[place])
    assert covered.all()
    assert {sample["meta"]["tile"]["y"] for sample in stored.values()} == {0, 480, 1408 - 480}
    assert {sample["meta"]["tile"]["x"] for sample in stored.values()} == {0, 480, 960, 1876 - 480}
    assert len({json.dumps(sample["meta"]["range"]) for sample in stored.values()}) == 1


def test_dermatomyositis_by_slide_has_the_papers_counts(tmp_path: Path) -> None:
    """All 198 slides, at a sixteenth of their size."""
    slides = tmp_path / "slides"
    layouts.dermatomyositis(slides, height=1408 // 16, width=1876 // 16)
    manifest, stored = written(slides, tmp_path / "out", "dermatomyositis", group_by="slide", tile=30)
    assert manifest.rejected == 0
    assert not any("do not match" in note for note in manifest.notes)
    assert counts(stored) == {"train": 1656, "val": 240, "test": 480}
    tiles = Counter(sample["meta"]["source"] for sample in stored.values())
    assert len(tiles) == 198
    assert set(tiles.values()) == {12}
    assert len({(sample["meta"]["source"], sample["split"]) for sample in stored.values()}) == 198


def test_dermatomyositis_keeps_patients_apart_and_says_so(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    layouts.dermatomyositis(slides, 28, height=1408 // 16, width=1876 // 16)
    found = CliRunner().invoke(
        main, ["shard", str(slides), str(tmp_path / "out"), "--recipe", "dermatomyositis", "--tile", "30"]
    )
    assert found.exit_code == 0, found.output
    assert "a patient's slides stay in one split" in " ".join(found.output.split())
    where: dict[str, set[str]] = {}
    total = 0
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as opened:
            for name in opened.getnames():
                if name.endswith(".json"):
                    meta = json.loads(opened.extractfile(name).read())  # type: ignore[union-attr]
                    where.setdefault(meta["source"].split("/")[0], set()).add(path.name.split("-")[0])
                    total += 1
    assert (total, len(where)) == (28 * 12, 7)
    assert all(len(splits) == 1 for splits in where.values())
    assert set.union(*where.values()) == {"train", "val", "test"}


# Drone


def test_drone_of_true_size(tmp_path: Path) -> None:
    layouts.drone(tmp_path / "source", 1)
    _, stored = written(tmp_path / "source", tmp_path / "out", "drone")
    base = tmp_path / "source" / "dataset" / "semantic_drone_dataset"
    sample = stored["000"]
    assert (sample["meta"]["width"], sample["meta"]["height"]) == (6000, 4000)
    assert sample["jpg"] == (base / "original_images" / "000.jpg").read_bytes()
    labels = np.asarray(cv2.imread(str(base / "label_images_semantic" / "000.png"), cv2.IMREAD_UNCHANGED))
    assert labels.max() == 23
    np.testing.assert_array_equal(pixels(sample["mask.png"]), np.where(labels > 0, 255, 0))


@pytest.mark.parametrize("above", ["", "semantic_drone_dataset/"])
def test_drone_in_colours_of_the_official_layout(above: str, tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (128, 64, 128), (0, 50, 89), (0, 0, 1), (2, 135, 115), (255, 0, 0)], np.uint8)
    base, generator, truth = tmp_path / "source" / above / "training_set", np.random.default_rng(5), {}
    for folder in ("images", "gt/semantic/label_images", "gt/semantic/label_me_xml"):
        (base / folder).mkdir(parents=True)
    (base / "gt/semantic/class_dict.csv").write_text("name, r, g, b\nunlabeled, 0, 0, 0\n")
    for number in range(10):
        classes = generator.integers(0, len(colours), (40, 60))
        truth[f"{number:03d}"] = classes > 0
        Image.fromarray(colours[classes]).save(base / f"gt/semantic/label_images/{number:03d}.png")
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), np.uint8)).save(base / f"images/{number:03d}.jpg")
    manifest, stored = written(tmp_path / "source", tmp_path / "out", "drone")
    assert (manifest.rejected, counts(stored)) == (0, {"train": 7, "val": 1, "test": 2})
    for key, mask in truth.items():
        np.testing.assert_array_equal(pixels(stored[key]["mask.png"]) > 0, mask)


def test_drone_of_one_image_is_not_told_to_set_what_is_set(tmp_path: Path) -> None:
    layouts.drone(tmp_path, 1, 20, 30)
    notes = shard.plan(ShardConfig(tmp_path, tmp_path / "out", recipe="drone")).notes
    assert sum("got no image" in note for note in notes) == 2
    assert not any("exact_splits = true" in note for note in notes)


# Bit-depth nuclei


@pytest.mark.parametrize(("folder", "options"), [("images", {}), ("images_16bit", {"variant": "16bit", "depth": 16})])
def test_bitdepth_nucseg_real(folder: str, options: dict[str, Any], real_data: Path, tmp_path: Path) -> None:
    real = real_data / "bitdepth_nucseg"
    manifest, stored = written(real, tmp_path / "out", "bitdepth_nucseg", **options)
    assert manifest.rejected == 0
    assert set(stored) == {path.stem for path in (real / folder).glob("*.tif")}
    organs: dict[str, set[str]] = {}
    for key, sample in stored.items():
        image = tifffile.imread(real / folder / f"{key}.tif")
        assert pixels(sample["png"]).dtype == image.dtype == (np.uint16 if options else np.uint8)
        np.testing.assert_array_equal(pixels(sample["png"]), image)
        mask = np.asarray(cv2.imread(str(real / "masks" / f"{key}.png"), cv2.IMREAD_GRAYSCALE))
        np.testing.assert_array_equal(pixels(sample["mask.png"]), np.where(mask > 0, 255, 0))
        organs.setdefault(key.split("_")[0], set()).add(sample["split"])
    assert all(len(splits) == 1 for splits in organs.values())
    assert set.union(*organs.values()) == {"train", "val", "test"}
    assert manifest.depth == options.get("depth", 8)


# Data Science Bowl, any folder, and a user's own


def test_dsb2018_nuclei_are_one_mask(tmp_path: Path) -> None:
    generator, truth = np.random.default_rng(7), {}
    for number, (height, width) in enumerate([(256, 256), (260, 347), (520, 696)]):
        name = hashlib.sha256(bytes([number])).hexdigest()
        case = tmp_path / "source" / "stage1_train" / name
        (case / "images").mkdir(parents=True)
        (case / "masks").mkdir()
        rgba = np.dstack(
            [generator.integers(0, 256, (height, width, 3), np.uint8), np.full((height, width), 255, np.uint8)]
        )
        Image.fromarray(rgba).save(case / "images" / f"{name}.png")
        labels = layouts.disks(generator, height, width, 9)
        for nucleus in range(1, 10):
            Image.fromarray(((labels == nucleus) * 255).astype(np.uint8)).save(case / "masks" / f"{nucleus:064x}.png")
        truth[name] = (rgba[..., :3], labels > 0)
    _, stored = written(tmp_path / "source", tmp_path / "out", "dsb2018")
    assert set(stored) == set(truth)
    for key, (image, mask) in truth.items():
        np.testing.assert_array_equal(pixels(stored[key]["png"]), image)
        np.testing.assert_array_equal(pixels(stored[key]["mask.png"]) > 0, mask)


def test_dsb2018_real_counts(real_data: Path) -> None:
    found = planned(real_data / "dsb2018", "dsb2018")
    assert sum(found.values()) == len(list((real_data / "dsb2018" / "stage1_train").iterdir())) == 541
    for split, share in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        assert abs(found[split] - share * 541) < 4 * (share * (1 - share) * 541) ** 0.5


def test_folder_takes_what_is_there(tmp_path: Path) -> None:
    generator, source = np.random.default_rng(9), tmp_path / "source"
    gray, colour = generator.integers(0, 256, (24, 32), np.uint8), generator.integers(0, 256, (24, 32, 3), np.uint8)
    for name in ("a", "b/c", "b/d/e"):
        (source / name).mkdir(parents=True)
    Image.fromarray(gray).save(source / "a" / "one.png")
    Image.fromarray(colour).save(source / "b" / "c" / "two.bmp")
    tifffile.imwrite(source / "b" / "three.tif", gray)
    np.save(source / "b" / "d" / "e" / "four.npy", colour)
    Image.fromarray(colour).save(source / "five.jpg")
    (source / "notes.txt").write_text("no image")
    manifest, stored = written(source, tmp_path / "out", "folder")
    assert set(stored) == {"one", "two", "three", "four", "five"}
    assert stored["five"]["jpg"] == (source / "five.jpg").read_bytes()
    for key, expected in {"one": gray, "two": colour, "three": gray, "four": colour}.items():
        np.testing.assert_array_equal(pixels(stored[key]["png"]), expected)
    assert not any("mask.png" in sample for sample in stored.values())
    assert manifest.rejected == 0


OWN = """
name = "retina"
polarity = "dark"
exact_splits = true
images = [{ path = "*/photos/*.png", masks = "{dir}/../vessels/{stem}_manual.gif.png" }]
masks = { required = true, foreground = [2, 3] }
classes = { pattern = '(?P<class>healthy|glaucoma)/' }
groups = { patient = '/p(?P<group>[0-9]+)_' }
splits = { train = 0.5, test = 0.5 }
"""


def test_own_recipe_of_ten_lines_needs_no_python(tmp_path: Path) -> None:
    assert len(OWN.strip().splitlines()) <= 10
    (tmp_path / "retina.toml").write_text(OWN)
    generator, truth = np.random.default_rng(11), {}
    for label in ("healthy", "glaucoma"):
        for kind in ("photos", "vessels"):
            (tmp_path / "eyes" / label / kind).mkdir(parents=True)
        for patient in range(4):
            for eye in ("left", "right"):
                name = f"p{patient}{len(label)}_{eye}"
                classes = generator.integers(0, 4, (16, 20), np.uint8)
                Image.fromarray(generator.integers(0, 256, (16, 20, 3), np.uint8)).save(
                    tmp_path / "eyes" / label / "photos" / f"{name}.png"
                )
                Image.fromarray(classes).save(tmp_path / "eyes" / label / "vessels" / f"{name}_manual.gif.png")
                truth[name] = (label, f"{patient}{len(label)}", np.isin(classes, (2, 3)))
    options = ["--recipe", str(tmp_path / "retina.toml")]
    found = CliRunner().invoke(main, ["shard", str(tmp_path / "eyes"), str(tmp_path / "out"), *options])
    assert found.exit_code == 0, found.output
    _, stored = written(tmp_path / "eyes", tmp_path / "again", str(tmp_path / "retina.toml"))
    assert [path.read_bytes() for path in sorted((tmp_path / "out").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "again").iterdir())
    ]
    assert set(stored) == set(truth)
    assert counts(stored) == {"train": 8, "test": 8}
    for key, (label, group, mask) in truth.items():
        assert (stored[key]["meta"]["class"], stored[key]["meta"]["group"]) == (label, group)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored[key]["mask.png"]))) > 0, mask)
    assert len({(sample["meta"]["group"], sample["split"]) for sample in stored.values()}) == 8
