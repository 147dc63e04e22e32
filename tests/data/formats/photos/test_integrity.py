"""Checks of whole files: what encoders write passes, what breaks a rule does not, and what libpng refuses neither."""

import contextlib
import io
import random
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsass.data.dali import Decoder, decode
from medsass.data.formats.photos import integrity
from tests.support import mutants
from tests.support.effort import counted

DECODER = Decoder(8, 1)
RGB = np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


END = chunk(b"IEND", b"")
LONGER = png(header(3, 2), chunk(b"IDAT", zlib.compress(b"\0abc\4def and more")), END)
PIXELS = chunk(b"IDAT", zlib.compress(b"\0abc\4def"))  # 3 x 2, gray


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_what_pillow_writes_passes(mode: str) -> None:
    image = Image.fromarray(RGB)
    deep = Image.fromarray(np.arange(21 * 34, dtype=np.uint16).reshape(21, 34))
    integrity.check(saved(deep if mode == "I;16" else image.convert(mode)), "png")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"quality": 100}])
def test_jpeg_that_pillow_writes_passes(options: dict[str, object]) -> None:
    data = saved(Image.fromarray(RGB), "JPEG", comment=b"\xff\xd9 no end", **options)
    integrity.check(data, "jpg")
    integrity.check(data + b"a trailer", "jpg")


def test_interlaced_png_has_the_rows_of_seven_passes() -> None:
    """Each pass by the formula of ISO/IEC 15948, 8.2; the file is one that libpng decodes."""
    for width, height in ((1, 1), (3, 5), (8, 8), (13, 9)):
        raw = b""
        for x, y, dx, dy in (
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ):
            columns, rows = len(range(x, width, dx)), len(range(y, height, dy))
            raw += (b"\0" + bytes(columns)) * rows if columns else b""
        data = png(header(width, height, interlaced=1), chunk(b"IDAT", zlib.compress(raw)), END)
        assert np.asarray(Image.open(io.BytesIO(data))).shape == (height, width)
        integrity.check(data, "png")
        short = png(header(width, height, interlaced=1), chunk(b"IDAT", zlib.compress(raw[:-1])), END)
        with pytest.raises(ValueError, match="truncated PNG file: its rows"):
            integrity.check(short, "png")


BROKEN = {
    "truncated PNG file": png(header(3, 2), PIXELS),
    "truncated PNG file: its rows": png(header(3, 3), PIXELS, END),
    "wrong checksum of chunk b'IDAT'": png(header(3, 2), PIXELS[:-1] + b"x", END),
    "unknown critical chunk": png(header(3, 2), chunk(b"ABCD", b""), PIXELS, END),
    "not in one piece": png(header(3, 2), PIXELS, chunk(b"tEXt", b"a\0b"), PIXELS, END),
    "out of place": png(header(3, 2), header(3, 2), PIXELS, END),
    "no pixel data": png(header(3, 2), END),
    "header that means nothing": png(header(3, 2, depth=3), PIXELS, END),
    "row with an unknown filter": png(header(3, 2), chunk(b"IDAT", zlib.compress(b"\0abc\5def")), END),
    "broken PNG file: Error -3": png(header(3, 2), chunk(b"IDAT", b"no deflate"), END),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_each_broken_rule_has_its_reason(reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        integrity.check(BROKEN[reason], "png")


def test_bytes_behind_the_last_row_or_the_end_are_forgiven_as_by_libpng() -> None:
    for data in (
        png(header(3, 2), PIXELS, END),
        LONGER,
        png(header(3, 2), PIXELS, END) + b"tail",
    ):
        integrity.check(data, "png")
        assert imagecodecs.png_decode(data).shape == (2, 3)


@given(st.sampled_from([1, 3, 4]), st.integers(1, 9), st.integers(1, 60), st.integers(0, 9), st.data())
def test_dali_decodes_what_is_sure_as_pillow_does(
    channels: int, height: int, width: int, level: int, data: st.DataObject
) -> None:
    """Any rows behind any filters, packed at any level, in any number of pieces, beside any of the harmless chunks."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    rows = rng.integers(0, data.draw(st.sampled_from([2, 256])), (height, 1 + width * channels), np.uint8)
    rows[:, 0] = rng.integers(0, 5, height)
    packed, cut = zlib.compress(rows.tobytes(), level), data.draw(st.integers(0, 99))
    beside = data.draw(st.lists(st.sampled_from(sorted(integrity._HARMLESS - {b"IHDR", b"IDAT", b"IEND"}))))
    chunks = [chunk(kind, rng.bytes(data.draw(st.integers(0, 20)))) for kind in beside]
    pixels = [chunk(b"IDAT", packed[:cut]), chunk(b"IDAT", packed[cut:])]
    file = png(header(width, height, 8, {1: 0, 3: 2, 4: 6}[channels]), *chunks, *pixels, END)
    assert integrity.check(file, "png")
    shown = np.asarray(Image.fromarray(imagecodecs.png_decode(file)).convert("RGB"))
    (seen,) = DECODER([file])
    np.testing.assert_array_equal(seen, shown)
    with contextlib.suppress(OSError, ValueError, SyntaxError, struct.error):  # where it minds a chunk's content
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")), shown)


def test_only_a_plain_png_without_a_flaw_is_sure() -> None:
    image, gray = Image.fromarray(RGB), Image.fromarray(RGB[..., 0])
    sure = [gray, image, image.convert("RGBA")]
    assert all(integrity.check(saved(one), "png") for one in sure)
    turned, unknown = (
        Image.Exif(),
        [png(header(3, 2), chunk(kind, b""), PIXELS, END) for kind in (b"bKGD", b"fcTL", b"prVt")],
    )
    turned[0x0112] = 6
    deep = Image.fromarray(np.arange(9, dtype=np.uint16).reshape(3, 3))
    unsure = [deep, *(image.convert(mode) for mode in ("1", "LA", "P"))]
    files = [*map(saved, unsure), saved(gray, transparency=3), saved(image, exif=turned), LONGER, *unknown]
    assert not any(integrity.check(data, "png") for data in files)
    with pytest.raises(ValueError, match="DALI"):  # which is why the chunk makes it so
        decode(unknown[0])
    assert not integrity.check(saved(image, "JPEG"), "jpg")


@pytest.mark.parametrize("kind", ["png", "jp2"])
def test_nothing_passes_that_the_formats_own_library_refuses(kind: str) -> None:
    """libpng and OpenJPEG; JPEG has no rule that a damaged scan must break."""
    rng, originals, refused = random.Random(1), mutants.seeds()[kind], 0
    decode = imagecodecs.png_decode if kind == "png" else imagecodecs.jpeg2k_decode
    for _ in range(counted(300, 3000)):
        data = rng.choice(mutants.ANY + mutants.OWN.get(kind, ()))(rng.choice(originals), rng)
        try:
            integrity.check(data, kind)
        except ValueError:
            refused += 1
            continue
        decode(data)
    assert refused > 100


def test_jpeg_without_an_end_or_a_scan_is_refused() -> None:
    data = saved(Image.fromarray(RGB), "JPEG")
    for cut in (data[:-2], data[: len(data) // 2], data[:30]):
        with pytest.raises(ValueError, match="truncated JPEG file: its end marker is missing"):
            integrity.check(cut, "jpg")
    with pytest.raises(ValueError, match="it ends before its pixel data"):
        integrity.check(data[: data.index(b"\xff\xda")] + b"\xff\xd9", "jpg")
