"""Recipes of microscopy datasets, on the real dataset if it is there, else on generated images."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
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

from benchmarks.support import layouts
from medsass.cli import main
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.support.datasets import counts, pixels, planned, written


@pytest.fixture(scope="module")
def tissuenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few generated images of the true sizes."""
    folder = tmp_path_factory.mktemp("tissuenet")
    layouts.tissuenet(folder, {"train": 3, "val": 2, "test": 2}, {"train": 512, "val": 256, "test": 256})
    return folder


def stretched(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Map the 0.5 and 99.5 percentiles to 0 and 255, without rounding."""
    values = plane.astype(np.float64)
    return np.interp(values, np.percentile(values, [0.5, 99.5]), [0, 255])


@pytest.mark.parametrize("variant", ["nuclear", "whole-cell"])
def test_tissuenet(variant: str, tissuenet: Path, tmp_path: Path) -> None:
    manifest, stored = written(tissuenet, tmp_path / "out", "tissuenet", variant=variant)
    assert counts(stored) == {"train": 3, "val": 2, "test": 2}
    sizes = {name: split.sizes for name, split in manifest.splits.items()}
    assert sizes == {"train": {"512x512": 3}, "val": {"256x256": 2}, "test": {"256x256": 2}}
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
    config = ShardConfig(tissuenet, tissuenet / "out", recipe="tissuenet")
    nuclear, whole = (shard.plan(replace(config, variant=name))[0].recipe for name in ("nuclear", "whole-cell"))
    assert shard.plan(config)[0].recipe == nuclear != whole
    with pytest.raises(ValueError, match="no variant 'nuclei'; variants: nuclear, whole-cell"):
        shard.plan(replace(config, variant="nuclei"))


_PEAKS = """
import os, re, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data.sharding import shard

def anonymous(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = int(re.search(r"RssAnon:\\s+(\\d+)", Path(f"/proc/{pid}/status").read_text())[1])
    return own + sum(map(anonymous, children))

for name in sys.argv[1:]:
    peak = [0]
    def watch(done, total):
        peak[0] = max(peak[0], anonymous(os.getpid()))
    config = ShardConfig(Path(name), Path(name) / "out", recipe="tissuenet", workers=1)
    print(shard.write(config, watch).splits["train"].samples, peak[0])
"""


def compressible(folder: Path, count: int) -> Path:
    """Write a training file of `count` frames at 512 x 512, 4 MiB each when unpacked, frame by frame."""
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
    """Anonymous memory is measured, because mapped files are released when memory is needed.

    With this threshold the C library returns freed blocks at once.
    """
    folders = [str(compressible(tmp_path / str(count), count)) for count in (8, 56)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", _PEAKS, *folders], capture_output=True, text=True, check=True, env=environment
    )
    (few, small), (many, large) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (8, 56)
    assert large - small < 32 << 10  # KiB; 48 more images are 192 MiB


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
    assert manifest.options.depth == options.get("depth", 8)


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
