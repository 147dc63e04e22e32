"""Damaged files of every format are a `ValueError`; a bug of our own is not."""

import io
import random
import tempfile
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass.data.formats import image
from medsass.data.formats.damage import REMEDY
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image, storable
from tests.data.formats.volumes.files import save, save_itk

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (24, 40, 3), np.uint16)


def encoded(suffix: str) -> bytes:
    if suffix == "dcm":
        pytest.importorskip("pydicom")
        from tests.data.formats.dicom.dicoms import dataset, saved

        return saved(dataset(DEEP[..., 0].copy(), RescaleSlope=2, RescaleIntercept=1, WindowCenter=4, WindowWidth=9))
    if suffix in ("nii", "nii.gz", "nrrd", "mha"):
        with tempfile.TemporaryDirectory() as folder:
            path, array = Path(folder, f"a.{suffix}"), DEEP[..., :2].astype(np.int16)
            return (save if "nii" in suffix else save_itk)(path, array).read_bytes()
    if suffix == "deep.png":
        return imagecodecs.png_encode(DEEP)
    if suffix == "slide.dcm":
        from tests.data.formats.dicom.dicoms import dataset, saved

        tiled = {"TotalPixelMatrixRows": 40, "TotalPixelMatrixColumns": 70, "DimensionOrganizationType": "TILED_FULL"}
        return saved(dataset(np.stack([RGB] * 4), frames=4, **tiled))
    if suffix in ("jxl", "jls", "avif"):
        return getattr(imagecodecs, f"{suffix.replace('j', 'jpeg')}_encode")(RGB)
    if suffix == "deep.jpg":
        return imagecodecs.ljpeg_encode(DEEP[..., 0], bitspersample=16)
    if suffix == "pam":
        return b"P7\nWIDTH 40\nHEIGHT 24\nDEPTH 3\nMAXVAL 65535\nENDHDR\n" + DEEP.tobytes()
    buffer = io.BytesIO()
    if suffix == "h5":
        with h5py.File(buffer, "w") as file:
            file.create_dataset("a", data=RGB, chunks=(16, 16, 3), compression="gzip")
    elif suffix == "npy":
        np.save(buffer, RGB)
    elif suffix == "npz":
        np.savez_compressed(buffer, X=RGB)
    elif suffix == "tif":
        tifffile.imwrite(buffer, RGB, photometric="rgb", tile=(16, 16), compression="zlib")
    elif suffix == "flat.tif":
        tifffile.imwrite(buffer, DEEP[..., 0])
    elif suffix == "palette.tif":
        Image.fromarray(RGB).quantize(20).save(buffer, "TIFF")
    else:
        kind = {"jpg": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
        Image.fromarray(RGB).save(buffer, kind)
    return buffer.getvalue()


SUFFIXES = ("png", "deep.png", "jpg", "bmp", "gif", "webp", "jp2", "ppm",
            "tif", "flat.tif", "palette.tif", "npy", "npz", "dcm", "nii", "nii.gz", "nrrd", "mha",
            "slide.dcm", "h5", "jxl", "jls", "avif", "deep.jpg", "pam")  # fmt: skip


def damaged(data: bytes, seed: int) -> bytes:
    rng, made = random.Random(seed), bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(rng.choice((len(made), min(len(made), 300))))
        kind = rng.randrange(4)
        if kind == 0:
            made[at] = rng.randrange(256)
        elif kind == 1:
            made[at : at + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\2\0", b"\5\0"))
        elif kind == 2:
            made[at : at + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff"))
        else:
            del made[at : at + rng.randrange(1, 9)]
    return bytes(made[: rng.choice((len(made), len(made), len(made) // 2))])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_of_any_format_is_read_or_a_value_error(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "MOST_PIXELS", 1_000_000)  # some formats are decoded as soon as they are opened
    data, path, refused = encoded(suffix), tmp_path / f"a.{suffix}", 0
    for seed in range(60):
        path.write_bytes(damaged(data, seed) or b"x")
        try:
            with open_image(path, Selection(frames="all" if seed % 2 else "first")) as picture:
                if picture.height * picture.width < 1_000_000:
                    picture.read(picture.frames - 1)
        except ValueError as error:
            rule, _, remedy = str(error).partition("; ")
            assert rule, seed
            assert remedy, str(error)  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
            refused += 1
        storable(path.read_bytes())
    assert refused >= 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_file_of_any_format_that_is_cut_off_is_told_by_rule_and_remedy(
    suffix: str, part: float, tmp_path: Path
) -> None:
    data, path = encoded(suffix), tmp_path / f"a.{suffix}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=rf"^(truncated|damaged|broken|not an image file)[^;]*; {REMEDY}$"):
        _read(path)


def _read(path: Path) -> None:
    with open_image(path) as picture:
        for frame in range(picture.frames):
            picture.read(frame)


@pytest.mark.parametrize("bug", [AttributeError, TypeError, KeyError, IndexError, RuntimeError, AssertionError])
@pytest.mark.parametrize(("suffix", "ours"), [
    ("jpg", "photos.photo._by_pillow"),
    ("jpg", "photos.photo.geometry.upright"),
    ("png", "photos.plain.Png.__init__"),
    ("deep.png", "photos.photo._deep_png"),
    ("jp2", "photos.photo.jpeg2000_depth"),
    ("tif", "tiff.Tiff._place"),
    ("tif", "tiff.Tiff._choose"),
    ("flat.tif", "tiff.Tiff._natural"),
    ("palette.tif", "tiff.Tiff._coloured"),
    ("npy", "arrays.numpy_file.axes_of"),
    ("npz", "arrays.numpy_file._unpacked"),
    ("npz", "arrays.grid.compose"),
    ("dcm", "dicom.image.Dicom._values"),
    ("dcm", "dicom.image.Dicom._gray"),
    ("nii", "volumes.volume.Volume._physical"),
    ("mha", "volumes.itk.Itk._affine"),
])  # fmt: skip
def test_a_bug_of_ours_is_not_a_broken_file(
    suffix: str, ours: str, bug: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise bug("a bug of ours")

    path = tmp_path / f"a.{suffix}"
    path.write_bytes(encoded(suffix))
    with open_image(path) as picture:
        picture.read()
    monkeypatch.setattr(f"medsass.data.formats.{ours}", broken)
    with pytest.raises(bug, match="a bug of ours"), open_image(path) as picture:
        picture.read()
