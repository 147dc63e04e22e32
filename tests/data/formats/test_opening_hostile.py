"""Small files that promise much, or hold more than they promise, or name other files: one line, within the budget of memory."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from medsass import budget
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image

LIMIT = 2_000_000  # bytes of memory for an image
MUCH = 30_000_000  # bytes that a bomb unpacks to, of some 30 KB
SMALL = np.arange(64, dtype=np.uint8).reshape(8, 8)
ALLOWED = "more than the 0.0 GB that medsass allows one image"


@pytest.fixture(autouse=True)
def _little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "limit", lambda: LIMIT)


def gz(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    pack = struct.pack
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(d)) + k + d + pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def npz(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros((3000, 10_000), np.uint8))


def lying_npz(path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (8, 8)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", head.getvalue() + bytes(MUCH))


def nifti(path: Path, shape: tuple[int, ...], place: float, more: int) -> None:
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<hh", head, 70, 2, 8)
    struct.pack_into("<9f", head, 76, *[1] * 8, place)
    head[344:348] = b"n+1\0"
    path.write_bytes(gz(bytes(head) + bytes(more)))


def text_volume(path: Path, shape: str, voxels: bytes, *, packed: bool = True, name: str = "") -> None:
    if path.suffix in (".nrrd", ".nhdr"):
        head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {shape}\nencoding: {'gzip' if packed else 'raw'}\n"
        path.write_bytes(f"{head}{f'data file: {name}' if name else ''}\n".encode() + b"\n" * bool(name) + voxels)
    else:
        head = f"ObjectType = Image\nNDims = 3\nDimSize = {shape}\nElementType = MET_UCHAR\nCompressedData = {packed}\n"
        path.write_bytes(f"{head}ElementDataFile = {name or 'LOCAL'}\n".encode() + voxels)


def dicom(path: Path, syntax: str = pydicom.uid.ExplicitVRLittleEndian, pixels: bytes = bytes(64), **more: Any) -> None:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.SecondaryCaptureImageStorage,
        "1.2",
    )
    made.SOPClassUID, made.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2"
    made.Rows = made.Columns = made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel, made.PhotometricInterpretation = (
        7,
        0,
        1,
        "MONOCHROME2",
    )
    for name, value in more.items():
        setattr(made, name, value)
    made.PixelData = pixels
    made["PixelData"].VR = "OB"
    made.save_as(path, enforce_file_format=True)


def deflated(path: Path) -> None:
    """A deflated data set, whose transfer syntax stands behind an element of 100 KB."""
    dicom(path)
    data = path.read_bytes()
    at = data.index(b"\x08\0\x16\0")
    meta = data[:132] + struct.pack("<HH2sHI", 2, 0, b"OB", 0, 100_000) + bytes(100_000) + data[132:at]
    syntax = meta.rindex(b"\x02\0\x10\0")
    meta = meta[:syntax] + struct.pack("<HH2sH", 2, 16, b"UI", 22) + b"1.2.840.10008.1.2.1.99" + meta[syntax + 28 :]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    private = struct.pack("<HH2sHI", 9, 0x1010, b"UN", 0, MUCH)
    path.write_bytes(meta + packer.compress(data[at:] + private + bytes(MUCH)) + packer.flush())


def jpeg(side: int) -> bytes:
    data = bytearray(imagecodecs.jpeg8_encode(SMALL))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    return bytes(data)


def tiff(path: Path, compression: int, strip: bytes) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: 8, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(
        struct.pack("<4sI", b"II*\0", 8 + len(strip)) + strip + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


def hdf5(path: Path, shape: tuple[int, int], chunk: bytes = b"", **more: Any) -> None:
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", shape, "u1", **(more or {"chunks": shape, "compression": "gzip"}))
        if chunk:
            made.id.write_direct_chunk((0, 0), chunk)


def virtual(path: Path) -> None:
    hdf5(path.parent / "secret.h5", (8, 8))
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((8, 8), "u1")
        layout[:] = h5py.VirtualSource(path.parent / "secret.h5", "a", (8, 8))
        file.create_virtual_dataset("a", layout)


def zarr(path: Path, shape: tuple[int, int], chunk: bytes | None) -> None:
    path.mkdir()
    said = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": shape,
        "dtype": "|u1",
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (path / ".zarray").write_text(json.dumps(said | {"compressor": chunk and {"id": "zlib", "level": 1}}))
    if chunk is None:
        (path.parent / "secret").write_bytes(bytes(64))
        (path / "0.0").symlink_to(path.parent / "secret")
    else:
        (path / "0.0").write_bytes(chunk)


def sparse(path: Path, start: bytes) -> None:
    path.write_bytes(start)
    with path.open("r+b") as file:
        file.truncate(1 << 33)


def ome(path: Path, planes: int) -> None:
    size = f'SizeX="8" SizeY="8" SizeC="1" SizeT="1" SizeZ="{planes}"'
    pixels = f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" {size}><TiffData/></Pixels>'
    text = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">{pixels}</Image></OME>'
    tifffile.imwrite(path, SMALL, description=f'<?xml version="1.0"?>{text}', metadata=None)


ELSEWHERE = "which does not lie beside it or below"
FRAMES = 2**31 - 1
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a.npz": (npz, f"unpacking a, unless saved as .npy, would take .* {ALLOWED}"),
    "lying.npz": (lying_npz, "bytes of a where its header says 192"),
    "a.nii.gz": (lambda path: nifti(path, (3000, 1000, 10), 352, MUCH), ALLOWED),
    "behind.nii.gz": (lambda path: nifti(path, (8, 8, 8), 352, MUCH), "more than 2,000,000 bytes are packed"),
    "before.nii.gz": (lambda path: nifti(path, (8, 8, 8), MUCH, MUCH), "unpacking its header would take"),
    "a.nrrd": (lambda path: text_volume(path, "3000 1000 10", gz(bytes(MUCH))), ALLOWED),
    "behind.nrrd": (lambda path: text_volume(path, "8 8 8", gz(bytes(MUCH))), "more than 2,000,000 bytes are packed"),
    "line.nrrd": (lambda path: sparse(path, b"NRRD0004\n"), "a header that does not end"),
    "up.nhdr": (lambda path: text_volume(path, "8 8 8", b"", packed=False, name="../a.raw"), ELSEWHERE),
    "list.nhdr": (lambda path: text_volume(path, "8 8 8", b"../a.raw\n", packed=False, name="LIST"), ELSEWHERE),
    "a.mha": (lambda path: text_volume(path, "3000 1000 10", gz(bytes(MUCH))), ALLOWED),
    "line.mha": (lambda path: sparse(path, b"ObjectType = Image\n"), "a header that does not end"),
    "absolute.mhd": (lambda path: text_volume(path, "8 8 8", b"", packed=False, name="/etc/passwd"), ELSEWHERE),
    "deflated.dcm": (deflated, ALLOWED),
    "frames.dcm": (lambda path: dicom(path, NumberOfFrames=FRAMES), "2,147,483,647 frames in a file of"),
    "slide.dcm": (
        lambda path: dicom(path, TotalPixelMatrixRows=1 << 30, TotalPixelMatrixColumns=1 << 30),
        "truncated: 1 tiles of 8x8 for 1073741824x1073741824 pixels",
    ),
    "jpeg.dcm": (
        lambda path: dicom(path, pydicom.uid.JPEGBaseline8Bit, encapsulate([jpeg(60_000)])),
        "60000x60000 pixels of 1 channels are packed where its header says 8x8",
    ),
    "jpeg.tif": (lambda path: tiff(path, 7, jpeg(60_000)), "60000x60000 pixels of 1 channels are packed"),
    "jpeg2000.tif": (
        lambda path: tiff(path, 34712, bytes(imagecodecs.jpeg2k_encode(np.zeros((2000, 2000), np.uint8)))),
        "2000x2000 pixels of 1 channels are packed where its header says 8x8",
    ),
    "deflate.tif": (lambda path: tiff(path, 8, zlib.compress(bytes(MUCH))), "damaged"),
    "planes.ome.tif": (lambda path: ome(path, FRAMES), "2,147,483,647 planes by its OME-XML"),
    "a.h5": (lambda path: hdf5(path, (3000, 10_000)), f"a chunk of .* {ALLOWED}"),
    "packed.h5": (lambda path: hdf5(path, (32, 32), zlib.compress(bytes(MUCH))), "bytes are packed in a chunk of 1,024"),
    "external.h5": (lambda path: hdf5(path, (8, 8), external=[("/etc/passwd", 0, 64)]), "another file, /etc/passwd, which is not read"),
    "virtual.h5": (virtual, "another file, .*secret.h5, which is not read"),
    "a.zarr": (lambda path: zarr(path, (3000, 10_000), zlib.compress(bytes(MUCH))), f"a chunk .* {ALLOWED}"),
    "packed.zarr": (lambda path: zarr(path, (8, 8), zlib.compress(bytes(3 * MUCH))), "bytes in 0.0, more than the 65,608"),
    "link.zarr": (lambda path: zarr(path, (8, 8), None), "0.0, a part of it, is a link that leads out of its folder"),
    "rgba16.png": (lambda path: path.write_bytes(png(2000, 2000, 16, 6, bytes(2000 * 16_001))), f"2000x2000 pixels .* {ALLOWED}"),
    "idat.png": (
        lambda path: path.write_bytes(png(8, 8, 8, 0, bytes(MUCH * 4))),
        "far more pixel data than its rows",
    ),
    "text.png": (
        lambda path: path.write_bytes(png(8, 8, 8, 2, bytes(200), (b"iCCP", b"a\0\0" + zlib.compress(bytes(MUCH))), (b"tRNS", bytes(6)))),
        "Decompressed data too large",
    ),
    "sparse.png": (lambda path: sparse(path, png(8, 8, 8, 0, bytes(72))), "reading its bytes would take 8.6 GB"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_would_exhaust_memory_or_reads_another_is_one_line(name: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[name]
    make(tmp_path / name)
    with pytest.raises(ValueError, match=reason) as refused, open_image(tmp_path / name) as picture:
        picture.read()
    assert "\n" not in str(refused.value)


def test_of_a_set_of_ome_tiff_no_other_file_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "secret.tif", np.full((8, 8), 77, np.uint8))
    (tmp_path / "source").mkdir()
    for name in ("../secret.tif", str(tmp_path / "secret.tif")):
        unique = f'<UUID FileName="{name}">urn:uuid:1</UUID>'
        ome(path := tmp_path / "source" / "a.ome.tif", 1)
        text = tifffile.TiffFile(path).ome_metadata
        assert text
        named = text.replace("<TiffData/>", f'<TiffData IFD="0" PlaneCount="1">{unique}</TiffData>')
        tifffile.imwrite(path, SMALL, description=named, metadata=None)
        with open_image(path) as picture:
            assert np.array_equal(picture.read(), SMALL)


def test_frames_are_limited_in_number(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", SMALL, description='{"shape": [2000000000, 8, 8]}', metadata=None)
    with pytest.raises(ValueError, match="2,000,000,000 frames are more than the 1,048,576"):
        open_image(tmp_path / "a.tif", Selection(frames="all"))


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("rows", [None, 8])
def test_uncompressed_pages_that_were_written_one_by_one_are_read(
    tile: tuple[int, int] | None, rows: int | None, tmp_path: Path
) -> None:
    pages = np.random.default_rng(0).integers(0, 60_000, (4, 40, 50)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in pages:
            writer.write(page, contiguous=False, metadata=None, tile=tile, rowsperstrip=rows)
    for data in (None, (tmp_path / "a.tif").read_bytes()):
        with open_image(tmp_path / "a.tif", Selection(frames="all"), data) as picture:
            assert picture.frames == len(pages)
            for frame, page in enumerate(pages):
                assert np.array_equal(picture.read(frame), page)


def test_an_uncompressed_strip_is_mapped_and_may_be_larger_than_the_budget(tmp_path: Path) -> None:
    pixels = np.arange(4_000_000, dtype=np.uint32).astype(np.uint8).reshape(2000, 2000)
    tifffile.imwrite(tmp_path / "a.tif", pixels, rowsperstrip=2000)
    with open_image(tmp_path / "a.tif") as image:
        assert np.array_equal(image.read(box=Box(1000, 500, 30, 40)), pixels[1000:1030, 500:540])
