"""`medsass shard` where a decoder dies or never ends: the file at fault is left out, and the run goes on."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medsass.data.formats.damage import REMEDY
from medsass.data.sharding import shard
from tests.support import deadly
from tests.support.deadly import ENDLESS, KILLED, LEAVES, SEGFAULT
from tests.support.faults import command, config, contents, interrupt, one_split, reasons, stored


@pytest.fixture(scope="module")
def armed() -> Iterator[None]:
    with deadly.workers("arm()"):
        yield


def mark(path: Path, text: bytes) -> None:
    """Write a mark into the text of a PNG file."""
    info = PngInfo()
    info.add_text("Comment", text.decode())
    image = Image.open(io.BytesIO(path.read_bytes()))
    image.save(path, pnginfo=info)


@pytest.mark.usefixtures("armed")
def test_files_that_kill_the_decoder_are_left_out_and_their_neighbours_kept(source: Path, tmp_path: Path) -> None:
    expected = {}
    for number, (text, reason) in enumerate(
        [
            (SEGFAULT, f"the decoder died (signal 11) on it; {REMEDY}"),
            (SEGFAULT, f"the decoder died (signal 11) on it; {REMEDY}"),
            (LEAVES, f"the decoder ended its process (exit code 3); {REMEDY}"),
            (ENDLESS, f"the decoder did not come to an end within 10 minutes; {REMEDY}"),
        ]
    ):
        mark(source / "images" / f"nuclei_{number:04d}.png", text)
        expected[f"images/nuclei_{number:04d}.png"] = reason
    for workers in (1, 3):
        assert command(
            source, tmp_path / f"{workers}", "--images", "images/*", "--masks", "masks/*", "--workers", workers
        ) == (0, "")
        assert reasons(tmp_path / f"{workers}") == expected
        assert set(stored(tmp_path / f"{workers}")) == {f"nuclei_{i:04d}" for i in range(4, 12)}
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


@pytest.mark.usefixtures("armed")
def test_strict_stops_at_a_file_that_kills_the_decoder(source: Path, tmp_path: Path) -> None:
    mark(source / "images" / "nuclei_0007.png", SEGFAULT)
    code, error = command(source, tmp_path / "out", "--images", "images/*", "--strict")
    assert code == 2
    assert (
        error == f"medsass: {source}/images/nuclei_0007.png: the decoder died (signal 11) on it; {REMEDY} (--strict)\n"
    )


@pytest.mark.usefixtures("armed")
def test_a_resumed_run_leaves_out_a_file_that_kills_the_decoder(copied: Path, tmp_path: Path) -> None:
    for path in (copied / "images").iterdir():
        if path.stem[-1] == "5":
            mark(path, SEGFAULT)
    shard.write(config(copied, tmp_path / "whole"))
    interrupt(copied, tmp_path / "out")
    shard.write(config(copied, tmp_path / "out", resume=True))
    assert len(reasons(tmp_path / "out")) == 6
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("armed")
def test_a_worker_that_the_kernel_kills_ends_the_run_because_others_would_follow(source: Path, tmp_path: Path) -> None:
    mark(source / "images" / "nuclei_0007.png", KILLED)
    code, error = command(source, tmp_path / "out", "--images", "images/*")
    assert code == 2
    assert error.startswith(
        "medsass: memory ran out (a worker process was killed while it read images/nuclei_0007.png)"
    )
    assert "take fewer --workers" in error


@pytest.mark.usefixtures("armed")
def test_of_a_file_of_many_frames_only_those_that_kill_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (9, 24, 24), np.uint8)
    tifffile.imwrite(tmp_path / "source" / "a.tif", frames, photometric="minisblack")
    recipe = one_split(tmp_path)
    shard.write(config(tmp_path / "source", tmp_path / "whole", recipe=recipe, images="", masks=""))
    bad = ["a-f000000", "a-f000004"]
    marks = [stored(tmp_path / "whole")[key]["png"][60:80] for key in bad]
    with deadly.workers(f"arm({marks})"):
        shard.write(config(tmp_path / "source", tmp_path / "out", recipe=recipe, images="", masks=""))
    assert reasons(tmp_path / "out") == {"a.tif": f"the decoder died (signal 11) on it; {REMEDY}"}
    assert set(stored(tmp_path / "whole")) - set(stored(tmp_path / "out")) == set(bad)


def _png(number: int) -> bytes:
    """Return a PNG whose rows hold an impossible filter from the middle on, cut off, without IEND. DALI died of some."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rng = np.random.default_rng(number)
    rows = [bytes([9 * (y >= 20 * number + 5)]) + rng.bytes(384) for y in range(128)]
    data = zlib.compress(b"".join(rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 128, 128, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data[: len(data) * (number + 2) // 8])


@pytest.mark.parametrize("checked", [True, False])
def test_damaged_png_that_may_kill_dali_are_left_out(checked: bool, source: Path, tmp_path: Path) -> None:
    """By the checks that come before DALI, and without them by what DALI says or does."""
    for number in range(6):
        (source / "images" / f"broken{number}.png").write_bytes(_png(number))
    with nullcontext() if checked else deadly.workers("arm()"):
        assert command(source, tmp_path / "out", "--images", "images/*") == (0, "")
    found = reasons(tmp_path / "out")
    assert set(found) == {f"images/broken{number}.png" for number in range(6)}
    assert len(stored(tmp_path / "out")) == 12
