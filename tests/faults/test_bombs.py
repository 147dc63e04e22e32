"""`medsass shard` on images of 60,000 x 60,000 pixels in small files: refused before they are decoded."""

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from medsass.data.sharding import shard
from tests.support.faults import by_source, config, reasons

SIDE = 60_000


def zeros(count: int) -> bytes:
    """Return a zlib stream of `count` zero bytes that repeats one deflated block."""
    size = 6_000_000
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest = packer.compress(bytes(count % size)) + packer.flush()
    return b"\x78\xda" + block * (count // size) + rest + struct.pack(">HH", count % 65521, 1)


def png(depth: int, data: bytes) -> bytes:
    """Return a gray PNG file of `depth` bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "bomb.png").write_bytes(png(8, zeros(SIDE * (SIDE + 1))))
    strip = zeros(SIDE * SIDE)
    tags = {256: SIDE, 257: SIDE, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: SIDE, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = struct.pack("<4sI", b"II*\0", 8 + len(strip)) + strip
    (folder / "bomb.tif").write_bytes(tiff + struct.pack("<H", len(tags)) + entries + bytes(4))
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 0, 0, 0, 0, 256, 0)
    (folder / "bomb.bmp").write_bytes(struct.pack("<2sIII", b"BM", 54 + 1024, 0, 54 + 1024) + info + bytes(1024))
    _, data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))
    jpeg = bytearray(data.tobytes())
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, SIDE, SIDE)
    (folder / "bomb.jpg").write_bytes(jpeg)


# Writes shards of one folder, then of another, and prints how much more memory in KiB a process of the second took at most
MEMORY = """
import os, re, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data.sharding import shard
def peak(pid):
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])
def family(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(child))]
def look(done, total):
    peaks[-1] = max(peaks[-1], *map(peak, family(os.getpid())))
peaks = []
for source in sys.argv[1:]:
    peaks.append(0)
    shard.write(ShardConfig(Path(source), Path(source + "-out"), images="images/*", masks="masks/*"), look)
print(peaks[1] - peaks[0])
"""


def test_decompression_bombs_are_refused_by_their_size_before_they_are_decoded(source: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(source, tmp_path / "both"))
    bombs(tmp_path / "bombs")
    for path in (tmp_path / "bombs").iterdir():
        shutil.copy(path, both / "images" / f"{path.suffix[1:]}{path.suffix}")
        shutil.copy(source / "masks" / "nuclei_0000.png", both / "masks" / f"{path.suffix[1:]}.png")
    shutil.copy(tmp_path / "bombs" / "bomb.png", both / "masks" / "nuclei_0003.png")
    words = [sys.executable, "-c", MEMORY, str(source), str(both)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 200 << 10  # each bomb has 3.6 GB
    found = reasons(tmp_path / "both-out")
    size = f"{SIDE}x{SIDE} pixels are more than the 178,956,970 that medsass decodes at once; store it as a tiled TIFF"
    assert all(size in reason and "--tile" in reason for reason in found.values()), found
    assert set(found) == {"images/nuclei_0003.png", *(f"images/{kind}.{kind}" for kind in ("png", "tif", "bmp", "jpg"))}
    assert found["images/nuclei_0003.png"].startswith("mask masks/nuclei_0003.png: ")


def test_16_bit_bombs_are_refused_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "source" / "good.png")
    (tmp_path / "source" / "bomb.png").write_bytes(png(16, zeros(60)))
    shard.write(config(tmp_path / "source", tmp_path / "out", images="*", masks="", depth=16))
    assert reasons(tmp_path / "out")["bomb.png"].startswith(f"{SIDE}x{SIDE} pixels are more than")
    assert list(by_source(tmp_path / "out")) == ["good.png"]
