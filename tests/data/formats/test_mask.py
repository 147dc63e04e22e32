"""Mask files -> {0, 1}, against the arrays that were written and OpenCV."""

import struct
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import assume, given
from hypothesis.extra import numpy as hnp
from PIL import Image

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.mask import Foreground, binary, mask_of, selection
from medsass.data.formats.opening import open_image
from tests.support.effort import examples

RNG = np.random.default_rng(0)
TWO = np.array([[0, 200], [200, 0]], np.uint8)


def read_mask(
    paths: Sequence[Path],
    foreground: Foreground = "binary",
    view: Selection = WHOLE_FILE,
    frame: int = 0,
    box: Box | None = None,
    turn: int = 1,
) -> np.ndarray:
    with ExitStack() as stack:
        files = [(path.name, stack.enter_context(open_image(path, selection(view, foreground)))) for path in paths]
        return mask_of(files, foreground, frame, box, turn)[0]


@pytest.mark.parametrize(("mask", "expected"), [
    (TWO, [[0, 1], [1, 0]]),
    (TWO // 200, [[0, 1], [1, 0]]),
    (TWO // 200 + 3, [[0, 1], [1, 0]]),
    (TWO * 0, [[0, 0], [0, 0]]),
    (TWO * 0 + 1, [[1, 1], [1, 1]]),
    (np.where(TWO > 0, 0.25, -1).astype(np.float32), [[0, 1], [1, 0]]),
    (np.dstack([TWO, TWO, TWO]), [[0, 1], [1, 0]]),
])  # fmt: skip
def test_binary_takes_the_higher_of_two_levels(mask: np.ndarray, expected: list[list[int]]) -> None:
    got = binary(mask, "binary")
    assert got.dtype == np.uint8
    assert got.tolist() == expected


@given(hnp.arrays(np.uint8, (8, 8)))
@examples(50)
def test_binary_refuses_what_has_more_levels(mask: np.ndarray) -> None:
    count = len(np.unique(mask))
    assume(count > 2)
    with pytest.raises(ValueError, match=rf"^{count} levels.* in a mask that should have two; --foreground"):
        binary(mask, "binary")


def test_very_many_levels_are_not_counted() -> None:
    with pytest.raises(ValueError, match="more than 65536 levels"):
        binary(RNG.random((300, 300)), "binary")


@pytest.mark.parametrize(("foreground", "expected"), [
    ("nonzero", [[0, 1, 1], [1, 1, 1]]),
    ("half", [[0, 0, 0], [0, 1, 1]]),
    ((3,), [[0, 0, 1], [0, 0, 0]]),
    ((1, 255, 9), [[0, 1, 0], [0, 0, 1]]),
    ((), [[0, 0, 0], [0, 0, 0]]),
])  # fmt: skip
def test_other_rules_of_foreground(foreground: str | tuple[int, ...], expected: list[list[int]]) -> None:
    got = binary(np.array([[0, 1, 3], [127, 128, 255]], np.uint8), foreground)
    assert got.tolist() == expected


@pytest.mark.parametrize(("kind", "below", "above"), [
    ("uint16", 32_767, 32_768), ("int16", 16_383, 16_384), ("float32", 0.5, 0.51),
])  # fmt: skip
def test_half_is_half_of_the_type(kind: str, below: float, above: float) -> None:
    assert binary(np.array([[below, above]], kind), "half").tolist() == [[0, 1]]


def test_an_unknown_foreground_is_refused() -> None:
    with pytest.raises(ValueError, match="foreground must be binary, nonzero, half or a list of values; got 'all'"):
        binary(TWO, "all")


def masks(folder: Path, arrays: Sequence[np.ndarray]) -> list[Path]:
    for i, array in enumerate(arrays):
        np.save(folder / f"m{i}.npy", array)
    return [folder / f"m{i}.npy" for i in range(len(arrays))]


def test_levels_are_those_of_the_whole_mask_also_in_a_part_of_it(tmp_path: Path) -> None:
    mask = np.ones((40, 60), np.uint8)
    mask[30:, 50:] = 2
    many = np.repeat(np.arange(40, dtype=np.uint8)[:, None], 60, axis=1)
    paths = masks(tmp_path, [mask, many])
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    for path in (paths[0], tmp_path / "m.png"):
        for box in (Box(0, 0, 5, 5), Box(28, 45, 5, 10), Box(32, 52, 3, 3)):
            np.testing.assert_array_equal(read_mask([path], "binary", box=box), (mask == 2)[box.slices])
    with pytest.raises(ValueError, match=r"mask m1.npy: 40 levels in a mask"):
        read_mask([paths[1]], "binary", box=Box(0, 0, 2, 5))


def test_the_union_of_open_pictures_is_read_in_parts(tmp_path: Path) -> None:
    parts = [RNG.random((4, 30, 20)) > 0.8 for _ in range(3)]
    paths = masks(tmp_path, [part.astype(np.uint8) * 255 for part in parts])
    union = np.logical_or.reduce(parts)
    pictures = [(path.name, open_image(path, Selection(frames="all"))) for path in paths]
    for frame, box in ((0, None), (3, Box(5, 6, 7, 8))):
        expected = union[frame][box.slices] if box else union[frame]
        np.testing.assert_array_equal(mask_of(pictures, "binary", frame, box)[0], expected)
        np.testing.assert_array_equal(read_mask(paths, "binary", Selection(frames="all"), frame, box), expected)
    for _, picture in pictures:
        picture.close()


def test_errors_name_the_mask(tmp_path: Path) -> None:
    paths = masks(tmp_path, [np.zeros((10, 20), np.uint8), np.zeros((10, 30), np.uint8), RNG.random((10, 20))])
    with pytest.raises(ValueError, match=r"mask m1.npy: size 30x10 differs from the other masks' 20x10"):
        read_mask(paths[:2], "binary", box=Box(0, 0, 5, 5))
    with pytest.raises(ValueError, match=r"mask m2.npy: 200 levels in a mask that should have two"):
        read_mask(paths[2:], "binary")
    with pytest.raises(ValueError, match=r"mask m0.npy: no frame 1: there are 1"):
        read_mask(paths[:1], "binary", frame=1)
    with pytest.raises(ValueError, match="no mask file"):
        read_mask([], "binary")


def test_mask_is_the_union_of_its_files(tmp_path: Path) -> None:
    parts = [np.random.default_rng(i).random((30, 20)) > 0.8 for i in range(4)]
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, part in zip(paths, parts, strict=True):
        cv2.imwrite(str(path), part * np.uint8(255))
    got = read_mask(paths, "nonzero")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.logical_or.reduce(parts).astype(np.uint8))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_instance_mask_counts_every_object(suffix: str, tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint16)
    labels[2:5, 2:5], labels[8:12, 8:12], labels[15:, 15:] = 1, 256, 40_000
    path = tmp_path / f"labels{suffix}"
    cv2.imwrite(str(path), labels) if suffix == ".png" else tifffile.imwrite(path, labels)
    np.testing.assert_array_equal(read_mask([path], "nonzero"), (labels > 0).astype(np.uint8))


def test_half_takes_what_is_above_half_and_nonzero_all(tmp_path: Path) -> None:
    soft = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / "soft.png"
    cv2.imwrite(str(path), soft)
    np.testing.assert_array_equal(read_mask([path], "half"), (soft >= 128).astype(np.uint8))
    np.testing.assert_array_equal(read_mask([path], "nonzero"), (soft > 0).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("foreground", ["nonzero", "half"])
def test_black_and_white_mask_of_any_mode_is_read_alike(mode: str, foreground: str, tmp_path: Path) -> None:
    truth = np.random.default_rng(3).random((16, 16)) > 0.5
    Image.fromarray(truth * np.uint8(255)).convert(mode).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask([tmp_path / "m.png"], foreground), truth.astype(np.uint8))


def test_colours_are_refused_unless_named_or_any_object_counts(tmp_path: Path) -> None:
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[0, 0], mask[1, 1], mask[2, 2] = (255, 0, 0), (0, 255, 0), (0, 0, 90)
    Image.fromarray(mask).save(tmp_path / "m.png")
    for foreground in ("binary", "half", (255,)):
        with pytest.raises(
            ValueError, match=r"mask m.png: a mask in 4 colours, #000000, #00005a, .*--foreground '#ff0000'"
        ):
            read_mask([tmp_path / "m.png"], foreground)
    np.testing.assert_array_equal(read_mask([tmp_path / "m.png"], ("#ff0000", "#00005A")), np.diag([1, 0, 1, 0]))
    np.testing.assert_array_equal(read_mask([tmp_path / "m.png"], "nonzero"), np.diag([1, 1, 1, 0]))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_few_bits_count_as_stored(bits: int, photometric: str, tmp_path: Path) -> None:
    truth = np.random.default_rng(2).integers(0, 1 << bits, (16, 24), np.uint8)
    png_of_few_bits(tmp_path / "m.png", truth, bits)
    if bits == 1:
        tifffile.imwrite(tmp_path / "m.tif", truth.astype(bool), photometric=photometric)
    else:
        tifffile.imwrite(tmp_path / "m.tif", truth, photometric=photometric)
    np.save(tmp_path / "m.npy", truth.astype(bool) if bits == 1 else truth)
    for name in ("m.png", "m.tif", "m.npy"):
        for level in (1, (1 << bits) - 1):
            np.testing.assert_array_equal(read_mask([tmp_path / name], (level,)), truth == level)


def png_of_few_bits(path: Path, array: np.ndarray, bits: int) -> None:
    rows = np.unpackbits(array[..., None], axis=2)[..., 8 - bits :].reshape(len(array), -1)
    packed = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], bits, 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize("foreground", ["binary", "nonzero", "half", (255,), ("#ffffff",)])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jp2"])
def test_mask_that_only_its_alpha_tells_counts_by_it(
    mode: str, suffix: str, foreground: Foreground, tmp_path: Path
) -> None:
    alpha = np.random.default_rng(4).integers(0, 2, (9, 7), np.uint8) * np.uint8(255)
    bands = Image.new(mode[:-1], (7, 9), "white")
    bands.putalpha(Image.fromarray(alpha))
    bands.save(tmp_path / f"m.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    np.testing.assert_array_equal(read_mask([tmp_path / f"m.{suffix}"], foreground), alpha > 0)


def test_colours_and_alpha_that_disagree_are_refused(tmp_path: Path) -> None:
    gray, alpha = np.full((2, 4, 4), 255, np.uint8)
    gray[:2], alpha[:, :2] = 0, 0
    Image.fromarray(np.dstack([gray, alpha]), "LA").save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"mask m.png: its colours and its alpha channel say different things"):
        read_mask([tmp_path / "m.png"])


def test_mask_is_turned_as_its_image_is(tmp_path: Path) -> None:
    truth = np.random.default_rng(5).integers(0, 2, (6, 9), np.uint8)
    Image.fromarray(truth).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask([tmp_path / "m.png"], turn=6), np.rot90(truth, -1))
    box = Box(2, 1, 5, 4)
    np.testing.assert_array_equal(read_mask([tmp_path / "m.png"], turn=6, box=box), np.rot90(truth, -1)[box.slices])


def test_masks_of_two_sizes_are_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, width in zip(paths, (20, 30), strict=True):
        cv2.imwrite(str(path), np.zeros((10, width), np.uint8))
    with pytest.raises(ValueError, match=r"mask b.png: size 30x10 differs from the other masks' 20x10"):
        read_mask(paths, "nonzero")


def test_unreadable_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"not an image file"):
        read_mask([tmp_path / "bad.png"], "nonzero")


def test_real_masks_equal_opencv(real_data: Path) -> None:
    names = [
        *sorted((real_data / "isic2017").rglob("*_segmentation.png"))[:5],
        *sorted((real_data / "bitdepth_nucseg/masks").glob("*.png"))[:5],
    ]
    assert len(names) == 10
    for path in names:
        np.testing.assert_array_equal(read_mask([path], "binary"), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127)


def test_real_binary_masks_need_no_rule(real_data: Path) -> None:
    path = sorted((real_data / "dsb2018").rglob("masks/*.png"))[0]
    np.testing.assert_array_equal(read_mask([path]), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0)


@pytest.mark.parametrize(("values", "foreground", "expected"), [
    ([[0, np.nan, 1]], "binary", [[0, 0, 1]]), ([[np.nan, 1]], "binary", [[0, 1]]), ([[np.nan, np.nan]], "binary", [[0, 0]]),
    ([[0, np.nan, 2]], "nonzero", [[0, 0, 1]]), ([[0.2, np.nan, 0.7]], "half", [[0, 0, 1]]),
    (np.array([[-1, 0]], np.int16), (0,), [[0, 1]]), (np.array([[0, -1]], np.int8), "nonzero", [[0, 1]]),
    (np.array([[-1, -1]], np.int8), "binary", [[1, 1]]), (np.array([[0, 300, 40_000]], np.uint16), "half", [[0, 0, 1]]),
])  # fmt: skip
def test_nan_is_ground_and_negative_levels_are_levels(values: object, foreground: Foreground, expected: object) -> None:
    assert binary(np.asarray(values), foreground).tolist() == expected


@pytest.mark.parametrize(("kind", "top"), [("float32", 255), ("uint16", 255), ("int32", 1)])
def test_half_refuses_values_that_do_not_fill_the_range(kind: str, top: int) -> None:
    with pytest.raises(ValueError, match="save it as 8 bit, or name its levels"):
        binary(np.array([[0, top]], kind), "half")
