"""Runs the generators of shared/cases and the commands on what they wrote; reads the results by tarfile, Pillow and NumPy alone."""

import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import pydicom.pixels
import pytest
import tifffile
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from medsass.cli import main
from medsass.models import checkpoint
from tests.conftest import REAL_DATA
from tests.support import networks
from tests.support.commands import ROOT
from tests.support.predicted import SIZE, save_run

FOLDER = REAL_DATA.with_name("cases")
RED = 123.675  # ImageNet's mean of red, times 255


@dataclass(frozen=True)
class Sample:
    """A sample of a tar file: its split, the bytes of its files by extension, and its JSON."""

    split: str
    files: dict[str, bytes]
    meta: dict[str, Any]

    @property
    def image(self) -> NDArray[Any]:
        """Pixels (H, W) or (H, W, 3), as stored."""
        return decoded(next(data for name, data in self.files.items() if name in ("png", "jpg", "jp2")))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Foreground (H, W) of a mask that holds nothing but 0 and 255."""
        mask = decoded(self.files["mask.png"])
        assert mask.ndim == 2
        assert set(np.unique(mask)) <= {0, 255}
        return mask > 0


@dataclass(frozen=True)
class Shards:
    """A shard folder: its samples by key, the files that were left out with their reasons, and the manifest's notes."""

    samples: dict[str, Sample]
    rejected: dict[str, str]
    notes: list[str]

    @property
    def splits(self) -> dict[str, int]:
        return dict(Counter(sample.split for sample in self.samples.values()))

    @property
    def images(self) -> dict[str, NDArray[Any]]:
        return {key: sample.image for key, sample in self.samples.items()}

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        return {key: sample.mask for key, sample in self.samples.items()}

    @property
    def by_source(self) -> dict[str, NDArray[Any]]:
        images = {sample.meta["source"]: sample.image for sample in self.samples.values()}
        assert len(images) == len(self.samples)
        return images

    def said(self, text: str) -> bool:
        return any(text in note for note in self.notes)


def generate(number: str, folder: Path) -> None:
    """Let the generator of a number such as "02" write into `folder`, in a process of its own."""
    (path,) = FOLDER.glob(f"{number}-*.py")
    done = subprocess.run([sys.executable, path, folder], capture_output=True, text=True, check=False)
    # the last file of 14, without a transfer syntax that fits, is one that newer versions of pydicom do not write
    assert done.returncode == 0 or (number == "14" and "'implicit_vr' value" in done.stderr), done.stderr


def command(*words: object) -> tuple[int, str]:
    """Run a command and return its exit code and what it wrote to stderr."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stderr


def fresh(*words: object) -> tuple[int, str]:
    """Run a command in an interpreter of its own and return its exit code and all that came to stderr."""
    line = [sys.executable, "-m", "medsass", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stderr


def read(out: Path) -> Shards:
    """Read a shard folder."""
    samples: dict[str, Sample] = {}
    for path in sorted(out.glob("*.tar")):
        found: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as opened:
            for member in opened:
                key, _, extension = member.name.partition(".")
                file = opened.extractfile(member)
                assert file
                found.setdefault(key, {})[extension] = file.read()
        for key, files in found.items():
            assert key not in samples
            samples[key] = Sample(path.name.partition("-")[0], files, json.loads(files["json"]))
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["rejected"] == len(lines) == len({line["file"] for line in lines})
    return Shards(samples, {line["file"]: line["reason"] for line in lines}, manifest["notes"])


def shard(source: object, out: Path, *options: object, said: str = "") -> Shards:
    """Run `medsass shard`, which must end with 0 and write `said` to stderr, and read what it wrote."""
    assert command("shard", source, out, "--workers", 1, *options) == (0, said)
    return read(out)


def refused(source: object, out: Path, *options: object) -> str:
    """Run `medsass shard`, which must end with 2 and write nothing but one line, and return that."""
    code, line = command("shard", source, out, "--workers", 1, *options)
    assert (code, line.count("\n"), out.exists()) == (2, 1, False)
    return line.rstrip("\n")


def label(source: Path, out: Path, *options: object) -> tuple[int, str]:
    """Run `medsass label`, bright pixels being foreground."""
    return command("label", source, out, "--polarity", "bright", "--device", "cpu", *options)


class _Red(torch.nn.Module):
    """Maps normalised images to logits that are positive where red is above `RED`."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :1] * 20


def predict(source: Path, out: Path, *options: object) -> tuple[int, str]:
    """Run `medsass predict`, in tiles of the size that its network sees, with a network for which red above `RED` is foreground."""
    with networks.light(), pytest.MonkeyPatch.context() as patch:
        run = save_run(out.with_name(f"{out.name}-run"))
        patch.setattr(checkpoint, "load_model", lambda *_: _Red())
        return command("predict", run, source, "--out", out, "--tile", SIZE, "--device", "cpu", *options)


def decoded(data: bytes | Path) -> NDArray[Any]:
    """Decode by Pillow; a palette gives its indices."""
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
        return np.asarray(image)


def modality(path: Path) -> NDArray[np.float64]:
    """Return the rescaled values (H, W) of a DICOM file, by pydicom."""
    data = pydicom.dcmread(path)
    return data.pixel_array.astype(np.float64) * float(data.RescaleSlope) + float(data.RescaleIntercept)


def scaled(values: NDArray[Any], low: float | None = None, high: float | None = None) -> NDArray[np.uint8]:
    """Map low..high, by default the least and the greatest value, linearly to 0..255."""
    wide = values.astype(np.float64)
    low, high = wide.min() if low is None else low, wide.max() if high is None else high
    return np.rint(np.clip((wide - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


def otsu(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Return what is above the threshold of OpenCV: (H, W) bool of an image (H, W), or (H, W, 3) RGB."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    threshold, _ = cv2.threshold(gray, 0, int(np.iinfo(gray.dtype).max), cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(gray > threshold)


def red(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (H, W) that `predict` gives an 8-bit image."""
    return np.asarray((image[..., 0] if image.ndim == 3 else image) > RED)


def check(found: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> None:
    """Compare arrays by name, with their types."""
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype, name


def written(out: Path) -> dict[str, NDArray[np.bool_]]:
    """Return the masks below a folder by their names: (H, W), of a stack (N, H, W), of a volume its slices (Z, H, W)."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for name in files_in(out) - {"labels.csv"}:
        if name.endswith(".nii.gz"):
            masks[name] = np.asarray(nibabel.load(out / name).dataobj).T > 0
        else:
            masks[name] = np.asarray(tifffile.imread(out / name) if name.endswith(".tif") else decoded(out / name)) > 0
    return masks


def dicom_truth() -> dict[str, NDArray[np.uint8]]:
    """Return what is to be stored of each file of case 14, by the formulas of its generator."""
    y, x = np.mgrid[:64, :80]
    gray, rgb = (y * 31 + x * 7) % 3000, np.stack([y * 3, x * 2, y + x], -1).astype(np.uint8)
    inside, index = (y - 32) ** 2 + (x - 40) ** 2 < 900, (gray % 200).astype(np.uint8)
    plain = "ct_rescale jpegls j2k jpeg_lossless deflated big_endian voi_lut no_photometric overlay_in_high_bits"
    return {
        **dict.fromkeys([*plain.split(), *(f"multiframe-f{i:06d}" for i in range(5))], scaled(gray)),
        "ct_padding": np.where(inside, scaled(gray, gray[inside].min(), gray[inside].max()), np.uint8(0)),
        "ct_window": scaled(gray - 1024, -160, 239),  # centre 40 and width 400, by PS3.3, C.11.2.1.2
        "pet_slope": scaled(gray.astype(np.float32) * 0.3217),
        "mono1": scaled(-gray),
        "mono1_window": scaled(-gray, -2499, -500),  # centre 1500 and width 2000
        "rgb_planar": rgb,
        "jpeg_rgb_mislabelled": rgb,
        "ybr_full_raw": pydicom.pixels.convert_color_space(rgb, "YBR_FULL", "RGB"),
        "rle": (gray % 256).astype(np.uint8),
        "palette16": np.stack([255 - index, index, index], -1),
        "float_map": scaled(gray / np.float32(7)),
        "signed10": scaled(gray % 1000),
    }


def files_in(out: Path) -> set[str]:
    """Return the names of all files in a folder and those below."""
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
