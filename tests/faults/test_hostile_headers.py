"""Small files on which a library would crash, never end or take gigabytes: refused by their headers."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from medsass.data.formats.opening import open_image


def nrrd(line: str) -> bytes:
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 1\nencoding: raw\n"
    return f"{head}{line.strip()}\n\n".encode() + bytes(16)


def meta(axes: str) -> bytes:
    head = f"ObjectType = Image\nNDims = {axes}\nDimSize = 4 4 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    return head.encode() + bytes(16)


def npz(packing: int) -> bytes:
    held, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros((64, 64), np.uint8))
    with zipfile.ZipFile(held, "w", packing) as archive:
        archive.writestr("a.npy", array.getvalue())
    return held.getvalue()


def hdf5(deep: int) -> bytes:
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        group = file
        for _ in range(deep):
            group = group.create_group("g")
        group["image"] = np.zeros((8, 8), np.uint8)
    return held.getvalue()


def jpeg(scans: int) -> bytes:
    data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + (scans - data.count(b"\xff\xda")) * last + b"\xff\xd9"


@pytest.mark.parametrize(
    ("name", "make", "good", "bad", "words"),
    [
        ("a.nrrd", nrrd, "k:=" + "v" * 9000, "space origin: " + "9" * 6000, "a word of more than 256 letters"),
        ("a.nrrd", nrrd, "k:=v\n" * 1000, "k:=v\n" * 30_000, "does not end within 16 MB and 20,000 lines"),
        ("a.mha", meta, "3", "2147483647", "at most 10 axes"),
        ("a.mha", meta, "3", "9" * 6000, "at most 10 axes"),
        ("a.npz", npz, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, "packed otherwise than NumPy does"),
        ("a.npz", npz, zipfile.ZIP_STORED, zipfile.ZIP_LZMA, "packed otherwise than NumPy does"),
        ("a.h5", hdf5, 20, 200, "groups 100 deep"),
        ("a.ppm", lambda text: f"P6 {text} 1 255\n".encode() + bytes(30), "10", "9" * 5000, "thousands of digits"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_headers_that_a_library_does_not_survive(
    name: str, make: Callable[..., bytes], good: object, bad: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(make(good))
    with open_image(path) as image:
        assert image.read().ndim >= 2
    path.write_bytes(make(bad))
    with pytest.raises(ValueError, match=words) as error:
        open_image(path)
    assert "set_int_max_str_digits" not in str(error.value)


def test_jpeg_files_of_many_scans_are_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(256))
    with open_image(path) as image:
        assert image.read().shape == (8, 8)
    path.write_bytes(jpeg(257))
    with open_image(path) as image, pytest.raises(ValueError, match="more than 256 scans"):
        image.read()
