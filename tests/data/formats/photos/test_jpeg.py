"""JPEG streams that end early, in all that holds them: refused, where decoders paint the rest gray with no word to us."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.photos import jpeg
from medsass.data.formats.virtual_slide import VirtualSlide
from tests.data.formats.dicom.dicoms import dataset, saved

SIDE = 128
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8)
RGB = cv2.resize(NOISE, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
DEEP = RGB[..., 0].astype(np.uint16) << 4
EARLY = "truncated JPEG: its pixel data end early"


def by_pillow(image: np.ndarray = RGB, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def ended(data: bytes) -> bytes:
    """Put an end marker, and what no decoder reads, into the middle of the pixel data."""
    middle = (data.rindex(b"\xff\xda") + len(data)) // 2
    middle -= data[middle - 1] == 0xFF
    return data[:middle] + jpeg.EOI + bytes(len(data) - middle - len(jpeg.EOI))


def unnamed(data: bytes) -> bytes:
    """Number the components, which are named R, G and B, and take Adobe's segment away, as in DICOM."""
    for old, new in (
        (b"\x03R\x11\0G\x11\0B\x11\0", b"\x03\1\x11\0\2\x11\0\3\x11\0"),
        (b"\x03R\0G\0B\0", b"\x03\1\0\2\0\3\0"),
    ):
        assert old in data
        data = data.replace(old, new)
    return data[:2] + data[data.index(b"\xff\xc3") :]


STREAMS = {
    "RGB": by_pillow(),
    "gray": by_pillow(mode="L"),
    "CMYK": by_pillow(mode="CMYK"),
    "progressive": by_pillow(progressive=True),
    "restarts": by_pillow(restart_marker_rows=1),
    "12 bit": imagecodecs.jpeg8_encode(DEEP, bitspersample=12),
    "lossless": imagecodecs.jpeg8_encode(RGB, lossless=True),
    "lossless, unnamed": unnamed(imagecodecs.jpeg8_encode(RGB, lossless=True)),
    "lossless, 16 bit": imagecodecs.jpeg8_encode(DEEP, bitspersample=16, lossless=True),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_whole_streams_pass_and_others_do_not(kind: str) -> None:
    whole = STREAMS[kind]
    jpeg.check_pixels(whole)
    for data in (ended(whole), whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match=EARLY):
            jpeg.check_pixels(data)


def test_what_libjpeg_warns_of_without_harm_passes_and_hides_nothing() -> None:
    """It tells the first of its warnings alone: of a version of JFIF, or of bytes behind the pixels."""
    version = bytearray(STREAMS["RGB"])
    version[version.index(b"JFIF\0") + 5] = 3
    behind = STREAMS["RGB"][:-2] + b"\0\0rubbish\xff\xd9"
    between = STREAMS["RGB"][:2] + b"rubbish" + STREAMS["RGB"][2:]
    for data in (bytes(version), behind, between):
        jpeg.check_pixels(data)
        with pytest.raises(ValueError, match=EARLY):
            jpeg.check_pixels(ended(data))
    broken = STREAMS["restarts"].replace(b"\xff\xd3", b"\xff\xd6", 1)
    with pytest.raises(ValueError, match="damaged JPEG: found marker 0xd6 instead of RST3"):
        jpeg.check_pixels(broken)


def test_other_bytes_pass() -> None:
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG", STREAMS["RGB"][:50]):
        jpeg.check_pixels(data)


def in_tiff(change: Callable[[bytes], bytes], **options: object) -> bytes:
    """A TIFF of JPEG pieces, the last of which is changed."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, RGB, photometric="rgb", compression="jpeg", **options)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        start, size = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    data[start : start + size] = change(bytes(data[start : start + size]))
    return bytes(data)


def with_tables(change: Callable[[bytes], bytes]) -> bytes:
    """A TIFF by libtiff, which writes the tables of its strips once."""
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "TIFF", compression="jpeg", tiffinfo={278: 32})
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        assert page.jpegtables
        start, size = page.dataoffsets[-1], page.databytecounts[-1]
    data[start : start + size] = change(bytes(data[start : start + size]))
    return bytes(data)


def in_dicom(change: Callable[[bytes], bytes], frame: bytes, image: np.ndarray, syntax: str, **elements: int) -> bytes:
    """A DICOM file of two frames, the last of which is changed."""
    from pydicom.encaps import encapsulate

    made = dataset(np.stack([image, image]), frames=2, bits=12 if image is DEEP else 0, **elements)
    made.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.4.{syntax}"
    made.PixelData = encapsulate([frame, change(frame)])
    made["PixelData"].is_undefined_length = True
    return saved(made)


SLIDE = {"TotalPixelMatrixRows": SIDE, "TotalPixelMatrixColumns": 2 * SIDE}
HOLDERS: dict[str, Callable[[Callable[[bytes], bytes]], bytes]] = {
    "strips.tif": lambda change: in_tiff(change, rowsperstrip=32),
    "strip.tif": in_tiff,
    "tiles.tif": lambda change: in_tiff(change, tile=(64, 64)),
    "slide.svs": lambda change: in_tiff(change, tile=(64, 64), description="Aperio Image\n"),
    "tables.tif": with_tables,
    "baseline.dcm": lambda change: in_dicom(change, STREAMS["RGB"], RGB, "50"),
    "extended.dcm": lambda change: in_dicom(change, STREAMS["12 bit"], DEEP, "51"),
    "lossless.dcm": lambda change: in_dicom(change, STREAMS["lossless, 16 bit"], DEEP, "70"),
    "slide.dcm": lambda change: in_dicom(change, STREAMS["RGB"], RGB, "50", **SLIDE),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_no_holder_hides_a_stream_that_ends_early(name: str, tmp_path: Path) -> None:
    def read(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        with open_image(tmp_path / name, Selection(frames="auto")) as picture:
            for frame in range(picture.frames):
                picture.read(frame)

    read(HOLDERS[name](bytes))
    with pytest.raises(ValueError, match=EARLY):
        read(HOLDERS[name](ended))


def test_openslide_refuses_such_streams_itself(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    path = tmp_path / "a.svs"
    for change in (bytes, ended):
        path.write_bytes(in_tiff(change, tile=(64, 64)))
        with VirtualSlide(path, Selection()) as picture:
            if change is bytes:
                picture.read()
            else:
                with pytest.raises(ValueError, match="JPEG"):
                    picture.read()
