"""Mutated image files: real encoded images with bits flipped, cut, spliced, or given wrong lengths, filters and headers."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import tifffile
from numpy.typing import NDArray
from PIL import Image

Mutation = Callable[[bytes, random.Random], bytes]


def seeds() -> dict[str, list[bytes]]:
    """Return encoded images of each format, by suffix: gray, colour, of odd sizes, with and without compression."""
    rng = np.random.default_rng(0)
    arrays = []
    for height, width in ((16, 16), (33, 47), (64, 20)):
        smooth = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)
        for shape in ((height, width), (height, width, 3)):
            noise = rng.integers(0, 60, shape)
            arrays.append(((smooth if len(shape) == 2 else smooth[..., None]) % 190 + noise).astype(np.uint8))
    found: dict[str, list[bytes]] = {"png": [], "jpg": [], "jp2": [], "tif": [], "dcm": []}
    for array in arrays:
        found["png"].append(_saved(array, "PNG"))
        found["jpg"] += [_saved(array, "JPEG", quality=80), _saved(array, "JPEG", progressive=True)]
        found["jp2"].append(bytes(imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True)))
        found["tif"] += [
            _tiff(array, None),
            _tiff(array, "zlib"),
            _tiff(array, "lzw"),
            _tiff(array, None, tile=(16, 16)),
        ]
        found["dcm"].append(_dicom(array))
    found["png"].append(_saved(arrays[0].astype(np.uint16) * 257, "PNG"))
    found["png"].append(_saved(np.dstack([arrays[1], arrays[0]]), "PNG"))
    return found


def _saved(array: NDArray[np.generic], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _tiff(array: NDArray[np.uint8], compression: str | None, **options: object) -> bytes:
    buffer = io.BytesIO()
    kind = "rgb" if array.ndim == 3 else "minisblack"
    tifffile.imwrite(buffer, array, compression=compression, photometric=kind, **options)
    return buffer.getvalue()


def _dicom(array: NDArray[np.uint8]) -> bytes:
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3"
    header.Rows, header.Columns = array.shape[:2]
    header.SamplesPerPixel, header.PixelRepresentation = 1 if array.ndim == 2 else 3, 0
    header.PhotometricInterpretation = "MONOCHROME2" if array.ndim == 2 else "RGB"
    if array.ndim == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelData = 7, array.tobytes()
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip up to eight bits anywhere, or in the first bytes."""
    changed, reach = bytearray(data), len(data) if rng.random() < 0.6 else min(len(data), 80)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Copy, move or remove a stretch of bytes."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    return rng.choice([data[:at] + data[start:end] + data[at:], data[:start] + data[end:], data[start:] + data[:start]])


def fill(data: bytes, rng: random.Random) -> bytes:
    """Replace a stretch of bytes by zeros, ones or noise."""
    start = rng.randrange(len(data))
    length = min(rng.randint(1, 64), len(data) - start)
    new = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return data[:start] + new + data[start + length :]


def number(data: bytes, rng: random.Random) -> bytes:
    """Replace a 16 or 32-bit number, in the first bytes as a rule, by one of the values at which programs stumble."""
    size = rng.choice([2, 4])
    at = rng.randrange(max(1, min(len(data), 400 if rng.random() < 0.7 else len(data)) - size))
    value = rng.choice([0, 1, 2, 255, 256, 32767, 32768, 65535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]) % (
        1 << 8 * size
    )
    return data[:at] + value.to_bytes(size, rng.choice(["big", "little"])) + data[at + size :]


def png_chunks(data: bytes, rng: random.Random) -> bytes:
    """Change a PNG chunk by chunk, with right checksums: its header, its rows and their filters, the order of its chunks."""
    chunks = [list(pair) for pair in _chunks(data)]
    what = rng.choice(["header", "filter", "rows", "swap", "drop", "twice", "split", "cut pixels"])
    at = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    if what == "header":
        content = bytearray(chunks[0][1])
        content[rng.randrange(len(content))] = rng.choice([0, 1, 2, 3, 4, 5, 6, 8, 16, 17, 255, rng.randrange(256)])
        chunks[0][1] = bytes(content)
    elif what in ("filter", "rows"):
        raw = bytearray(zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT")))
        if what == "filter":
            for _ in range(rng.randint(1, 9)):
                raw[rng.randrange(len(raw)) if rng.random() < 0.5 else 0] = rng.choice([5, 9, 128, 255, 4])
        else:
            raw = raw[: rng.randrange(len(raw))] if rng.random() < 0.6 else raw + bytes(rng.randrange(1, 2000))
        chunks[at : len(chunks) - 1] = [[b"IDAT", zlib.compress(bytes(raw))]]
    elif what == "swap":
        one, other = (rng.randrange(len(chunks)) for _ in range(2))
        chunks[one], chunks[other] = chunks[other], chunks[one]
    elif what == "drop":
        del chunks[rng.randrange(len(chunks))]
    elif what == "twice":
        chunks.insert(rng.randrange(len(chunks)), list(rng.choice(chunks)))
    elif what == "split":
        content = chunks[at][1]
        half = rng.randrange(len(content))
        between = [rng.choice([b"tEXt", b"ABCD", b"PLTE"]), b"a\0b"]
        chunks[at : at + 1] = [[b"IDAT", content[:half]], between, [b"IDAT", content[half:]]]
    else:
        chunks[at][1] = chunks[at][1][: rng.randrange(len(chunks[at][1]))]
    return data[:8] + b"".join(_chunk(kind, content) for kind, content in chunks)


def jpeg_segments(data: bytes, rng: random.Random) -> bytes:
    """Swap, drop or repeat segments of a JPEG, change one within, or end its scan early but with an end marker."""
    segments, at = list[bytes](), 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        segments.append(data[at:end])
        at = end
    scan = data[at:]
    what = rng.choice(["swap", "drop", "twice", "change", "scan"])
    one, other = (rng.randrange(len(segments)) for _ in range(2))
    if what == "swap":
        segments[one], segments[other] = segments[other], segments[one]
    elif what == "drop":
        del segments[one]
    elif what == "twice":
        segments.insert(other, segments[one])
    elif what == "change":
        segments[one] = segments[one][:4] + flip(segments[one][4:] or b"\0", rng)
    else:
        scan = scan[: rng.randrange(12, max(13, len(scan) - 2))] + b"\xff\xd9"
    return data[:2] + b"".join(segments) + scan


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ANY: tuple[Mutation, ...] = (flip, cut, splice, fill, number)
OWN: dict[str, tuple[Mutation, ...]] = {"png": (png_chunks,) * 5, "jpg": (jpeg_segments,) * 5}


def write(folder: Path, count: int, seed: int) -> None:
    """Write that many mutants into a folder, as many of each format. Some are mutated twice."""
    rng, originals = random.Random(seed), seeds()
    suffixes = list(originals)
    for i in range(count):
        suffix = suffixes[i % len(suffixes)]
        data = rng.choice(originals[suffix])
        mutate = rng.choice(ANY + OWN.get(suffix, ()))
        data = mutate(data, rng)
        if rng.random() < 0.2 and data:
            data = rng.choice(ANY)(data, rng)
        (folder / f"{i:06d}.{suffix}").write_bytes(data)
