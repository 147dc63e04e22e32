"""Messages of other libraries: each is provoked by a real file, counted and named once; last words of a crash come through."""

import io
import logging
import os
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass import foreign

ROOT = Path(__file__).resolve().parents[1]
PIXELS = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(path: Path, bits: int) -> None:
    """Write an RGB PNG with a colour profile that is none."""
    raw = b"".join(b"\0" + row.tobytes() * (bits // 8) for row in PIXELS)
    header = struct.pack(">IIBBBBB", 48, 48, bits, 2, 0, 0, 0)
    profile = _chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(200)))
    body = _chunk(b"IHDR", header) + profile + _chunk(b"IDAT", zlib.compress(raw)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _jpeg(path: Path, **options: bytes) -> None:
    """Write a JPEG with bytes that belong to nothing before its end."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", **options)
    path.write_bytes(buffer.getvalue()[:-2] + b"\0\0rubbish\xff\xd9")


def _tiff(path: Path) -> None:
    """Write a TIFF whose tag Software points behind the end."""
    tifffile.imwrite(path, PIXELS[..., 0], software="a long enough name")
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HH", 305, 2))
    data[at + 8 : at + 12] = struct.pack("<I", 10**8)
    path.write_bytes(bytes(data))


def _dicom(path: Path) -> None:
    """Write a DICOM image whose number of frames, an integer, is "1.0"."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    file = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.Rows = file.Columns = 48
    file.BitsAllocated = file.BitsStored = 8
    file.PixelRepresentation, file.SamplesPerPixel, file.PhotometricInterpretation = 0, 1, "MONOCHROME2"
    file.PixelData = PIXELS[..., 0].tobytes()
    file.NumberOfFrames = 1
    file.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"IS\2\x001 ", b"IS\4\x001.0 "))


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, *program.split(), *words]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def test_each_library_is_one_line_at_the_end_of_a_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        _png(source / f"plain{number}.png", 8)
    _png(source / "deep.png", 16)
    _jpeg(source / "rubbish.jpg")
    _jpeg(source / "exif.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    _tiff(source / "tag.tif")
    _dicom(source / "scan.dcm")
    words = ("shard", str(source), str(tmp_path / "out"), "--images", "*", "--workers", "1")
    done = _run("-m medsass", *words)
    assert done.returncode == 0, done.stderr
    counts = {line.partition(" (")[0]: line for line in done.stderr.splitlines()}
    assert sorted(counts) == [
        "Pillow: 1 message", "libjpeg: 2 messages", "libpng: 4 messages", "pydicom: 1 message", "tifffile: 1 message",
    ], done.stderr  # fmt: skip
    assert "(first: exif.jpg: Corrupt EXIF data" in counts["Pillow: 1 message"]
    assert "(first: scan.dcm: " in counts["pydicom: 1 message"]
    assert "(first: tag.tif: " in counts["tifffile: 1 message"]
    assert counts["libpng: 4 messages"] == "libpng: 4 messages (first: iCCP: too short)"
    assert "(first: Corrupt JPEG data: " in counts["libjpeg: 2 messages"]


CRASH = """
import os
from medsass import foreign
with foreign.caught():
    os.write(2, b"libpng warning: iCCP: known\\nlibpng warning: other\\nfree(): invalid pointer\\nlast words")
    os.{}
"""


@pytest.mark.parametrize(("end", "code"), [("abort()", -signal.SIGABRT), ("kill(os.getpid(), 9)", -signal.SIGKILL)])
def test_the_last_words_of_a_crash_come_through(end: str, code: int) -> None:
    done = _run("-c", CRASH.format(end))
    assert done.returncode == code
    assert done.stderr == "free(): invalid pointer\nlast words\nlibpng: 2 messages (first: iCCP: known)\n"


def test_tracebacks_and_our_own_lines_are_left_alone() -> None:
    program = "import sys\nfrom medsass import foreign\nwith foreign.caught():\n print('libpng warning: ours', file=sys.stderr)\n 1/0"
    done = _run("-c", program)
    assert done.returncode == 1
    assert done.stderr.startswith("libpng warning: ours\nTraceback")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("line", "library"),
    [
        (b"libpng warning: iCCP: too short", "libpng"),
        (b"PNG warning: zTXt: incorrect header check", "libpng"),
        (b"Corrupt JPEG data: premature end of data segment", "libjpeg"),
        (b"TIFFReadDirectory: Warning, Unknown field with tag 65000 encountered.", "libtiff"),
        (b"[ WARN:0@0.031] global loadsave.cpp:268 findDecoder imread_: can't open", "OpenCV"),
        (b"[ERROR:0@1.5] global grfmt_jpeg2000.cpp:1 readData", "OpenCV"),
        (b"[/opt/dali/dali/operators/x.cc:12] a warning", "DALI"),
        (b"\x1b[0;31m[ERROR] \x1b[0m[jpeg_parser] Invalid marker", "DALI"),
        (b"Bogus Huffman table definition", "libjpeg"),
        (b"Improper call to JPEG library in state 201", "libjpeg"),
        (b"Unsupported marker type 0xa4", "libjpeg"),
        (b"JPEGPreDecode: Improper JPEG component count.", "libtiff"),
        (b"Tile part length size inconsistent with stream length", "OpenJPEG"),
        (b"free(): invalid pointer", None),
        (b"Traceback (most recent call last):", None),
        (b"medsass: libpng warning: a file of that name", None),
    ],
)
def test_only_known_lines_are_kept_back(line: bytes, library: str | None) -> None:
    assert next((name for form, name in foreign._LINES if form.match(line)), None) == library


def test_warnings_and_records_name_the_file_and_count_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.showwarning
    with foreign.caught(), foreign.reading("a.dcm"):
        logging.getLogger("pydicom").warning("odd %s", "length")
        warnings.showwarning("odd length", UserWarning, "/x/site-packages/pydicom/pixels/utils.py", 3)
        with foreign.reading("b.dcm"):
            logging.getLogger("pydicom.pixels").error("odd length")
        logging.getLogger("pydicom").info("nothing")
        warnings.showwarning("a step was not recorded", UserWarning, foreign.__file__, 3)
    assert warnings.showwarning is before
    said = "warning: a step was not recorded\npydicom: 2 messages (first: a.dcm: odd length)\n"
    assert capsys.readouterr().err == said


def test_what_a_worker_process_hears_is_counted_where_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert not foreign.catching()
    with foreign.caught():
        assert foreign.catching()
        logging.getLogger("pydicom").warning("first")
        foreign.add({"pydicom": (2, "a.dcm: odd"), "Pillow": (1, "b.png: odd")})
    foreign.add({"pydicom": (2, "nobody listens")})
    said = "pydicom: 3 messages (first: first)\nPillow: 1 message (first: b.png: odd)\n"
    assert capsys.readouterr().err == said


LISTEN = """
import logging
from medsass import foreign
heard = foreign.listen()
with foreign.reading("a.dcm"):
    logging.getLogger("pydicom").warning("odd")
    print(heard(), heard())
"""


def test_a_worker_process_gives_its_counts_once() -> None:
    assert _run("-c", LISTEN).stdout == "{'pydicom': (1, 'a.dcm: odd')} {}\n"


def test_overheard_text_is_handed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with foreign.overheard() as text:
        os.write(2, b"libpng warning: odd\n")
        assert text == b""
    os.write(2, b"more\n")
    assert text == b"libpng warning: odd\n"
    assert capfd.readouterr().err == "libpng warning: odd\nmore\n"


def test_nothing_is_caught_where_everything_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDSASS_TRACE", "1")
    with foreign.caught():
        logging.getLogger("pydicom").warning("odd")
    assert "messages" not in capsys.readouterr().err


def test_names_in_messages_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with foreign.caught(), foreign.reading("a\x1b[2J.dcm"):
        logging.getLogger("pydicom").warning("odd \u202e tag")
    assert capsys.readouterr().err == "pydicom: 1 message (first: a\\x1b[2J.dcm: odd \\u202e tag)\n"
    program = "import os; from medsass import foreign\nwith foreign.caught(): os.write(2, b'\\x1b[31m\\x1b]0;t\\x07\\thi\\xff\\n')"
    assert _run("-c", program).stderr == "\\x1b]0;t\\x07  hi\N{REPLACEMENT CHARACTER}\n"
