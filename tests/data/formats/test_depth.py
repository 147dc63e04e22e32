"""Limits, scaling and masks against numpy, exact fractions and OpenCV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medsass.data.formats import depth as pixels
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.opening import open_image, read_mask

RNG = np.random.default_rng(0)
INTEGERS = ("uint8", "int8", "uint16", "int16")


def npy(folder: Path, array: np.ndarray, name: str = "a") -> Path:
    np.save(folder / f"{name}.npy", array)
    return folder / f"{name}.npy"


def limits(folder: Path, array: np.ndarray, rule: str, view: Selection = WHOLE_FILE) -> list[tuple[float, float]]:
    with open_image(npy(folder, array), view) as picture:
        return pixels.limits(picture, 0, rule)


@pytest.mark.parametrize("kind", [*INTEGERS, "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("colour", [False, True])
def test_limits_equal_numpy(kind: str, colour: bool, tmp_path: Path) -> None:
    array = (
        (RNG.normal(size=(300, 200, 3)) * 40 + 60 * (kind[0] == "u"))
        .clip(0 if kind[0] == "u" else -120, 120)
        .astype(kind)
    )
    array = array if colour else array[..., 0]
    assert limits(tmp_path, array, "minmax") == [(array.min(), array.max())]
    ((low, high),) = limits(tmp_path, array, "percentile")
    np.testing.assert_allclose((low, high), np.percentile(array.astype(float), [0.5, 99.5]), rtol=1e-12)
    whole = (0, 1) if kind[0] == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    assert limits(tmp_path, array, "type") == [whole]


@given(hnp.arrays(st.sampled_from(INTEGERS), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)))
@settings(deadline=None, max_examples=60)
def test_percentiles_from_a_histogram_equal_numpy(array: np.ndarray) -> None:
    low = int(np.iinfo(array.dtype).min)
    counts = np.bincount(array.ravel().astype(int) - low, minlength=1 << 8 * array.dtype.itemsize)
    truth = np.percentile(array.astype(float), pixels.PERCENTILES)
    np.testing.assert_allclose(pixels._percentiles(counts, array.dtype), truth, rtol=1e-12, atol=1e-9)


def test_percentiles_that_are_equal_give_way_to_the_extremes(tmp_path: Path) -> None:
    array = np.zeros((100, 100), np.uint16)
    array[4, 4] = 900
    assert limits(tmp_path, array, "percentile") == [(0, 900)]
    assert limits(tmp_path, array * 0 + 7, "percentile") == [(7, 7)]


@pytest.mark.parametrize("rule", ["minmax", "percentile"])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_chosen_channels_have_limits_of_their_own(rule: str, kind: str, tmp_path: Path) -> None:
    array = np.dstack([RNG.integers(0, 100, (50, 60)), RNG.integers(5000, 60_000, (50, 60))]).astype(kind)
    got = limits(tmp_path, array, rule, Selection(channels=(1, 0, -1)))
    for pair, channel in zip(got, (1, 0), strict=False):
        one = array[..., channel].astype(float)
        truth = (one.min(), one.max()) if rule == "minmax" else np.percentile(one, [0.5, 99.5])
        np.testing.assert_allclose(pair, truth, rtol=1e-12)
    assert got[2] == (0, 0)


def test_limits_that_the_file_states_go_first(tmp_path: Path) -> None:
    with open_image(npy(tmp_path, RNG.integers(0, 900, (5, 6), np.uint16))) as picture:
        picture.limits = (30.0, 70.0)
        for rule, expected in (("minmax", (30, 70)), ("percentile", (30, 70)), ("type", (0, 65535))):
            assert pixels.limits(picture, 0, rule) == [expected]


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="range must be minmax, percentile or type; got 'sigma'"):
        limits(tmp_path, np.zeros((3, 3), np.uint16), "sigma")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", ["minmax", "percentile"])
def test_values_that_are_not_finite_are_refused(rule: str, value: float, tmp_path: Path) -> None:
    array = np.ones((4, 4), np.float32)
    array[2, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        limits(tmp_path, array, rule)
    with pytest.raises(ValueError, match="not finite"):
        pixels.scaled(array, [(0, 1)], 8)
    with pytest.raises(ValueError, match="not finite"):
        pixels.to_8bit(array)


def test_streamed_limits_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.data.formats.image._BLOCK", 1000)
    array = RNG.integers(0, 60_000, (90, 70), np.uint16)
    assert limits(tmp_path, array, "minmax") == [(array.min(), array.max())]
    np.testing.assert_allclose(limits(tmp_path, array, "percentile")[0], np.percentile(array, [0.5, 99.5]), rtol=1e-12)


def exact(value: int | float, low: float, high: float, depth: int) -> int:
    """By exact fractions; Python's `round` rounds half to even too."""
    share = (Fraction(value) - Fraction(low)) * (2**depth - 1) / (Fraction(high) - Fraction(low))
    return min(max(round(share), 0), 2**depth - 1)


@given(
    st.lists(st.integers(-70_000, 70_000), min_size=1, max_size=20), st.integers(-70_000, 70_000),
    st.integers(1, 70_000), st.sampled_from([8, 16]),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_scaling_is_exact(values: list[int], low: int, width: int, depth: int) -> None:
    got = pixels.scaled(np.array([values]), [(low, low + width)], depth)
    assert got.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert got[0].tolist() == [exact(value, low, low + width, depth) for value in values]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("depth", [8, 16])
def test_large_integer_images_are_scaled_exactly_too(kind: str, depth: int) -> None:
    span = np.iinfo(kind)
    array = np.resize(np.arange(span.min, span.max + 1), (300, 300)).astype(kind)
    low, high = span.min // 2 + 1, span.max // 3 + 0.5
    got = pixels.scaled(array, [(low, high)], depth).ravel()[: span.max - span.min + 1 : 37]
    assert got.tolist() == [exact(value, low, high, depth) for value in range(span.min, span.max + 1, 37)]


def test_halves_are_rounded_to_even() -> None:
    assert pixels.scaled(np.array([[1, 3, 5, 510]]), [(0, 510)], 8).tolist() == [[0, 2, 2, 255]]


def test_each_channel_has_its_limits() -> None:
    array = RNG.integers(0, 60_000, (6, 7, 3), np.uint16)
    pairs = [(0.0, 60_000.0), (100.0, 200.0), (5.0, 5.0)]
    got = pixels.scaled(array, pairs, 8)
    for channel, pair in enumerate(pairs[:2]):
        np.testing.assert_array_equal(got[..., channel], pixels.scaled(array[..., channel], [pair], 8))
    assert not got[..., 2].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_only_the_stored_type_needs_no_scaling(dtype: str) -> None:
    assert pixels.needs_scaling(np.dtype(dtype), 8) == (dtype != "uint8")
    assert pixels.needs_scaling(np.dtype(dtype), 16) == (dtype != "uint16")


def test_to_8bit_equals_opencv() -> None:
    array = RNG.integers(300, 40_000, (200, 300), np.uint16)
    theirs = cv2.normalize(array, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U).astype(int)
    assert np.abs(pixels.to_8bit(array) - theirs).max() <= 1
    assert not pixels.to_8bit(np.full((5, 5), 9.0)).any()


TWO = np.array([[0, 200], [200, 0]], np.uint8)


@pytest.mark.parametrize(("mask", "expected"), [
    (TWO, [[0, 1], [1, 0]]),
    (TWO // 200, [[0, 1], [1, 0]]),
    (TWO // 200 + 3, [[0, 1], [1, 0]]),
    (TWO * 0, [[0, 0], [0, 0]]),
    (TWO * 0 + 1, [[1, 1], [1, 1]]),
    (np.where(TWO > 0, 0.25, -1).astype(np.float32), [[0, 1], [1, 0]]),
    (np.dstack([TWO, TWO * 0, TWO * 0]), [[0, 1], [1, 0]]),
])  # fmt: skip
def test_binary_takes_the_higher_of_two_levels(mask: np.ndarray, expected: list[list[int]]) -> None:
    got = pixels.binary(mask, "binary")
    assert got.dtype == np.uint8
    assert got.tolist() == expected


@given(hnp.arrays(np.uint8, (8, 8)))
@settings(max_examples=50)
def test_binary_refuses_what_has_more_levels(mask: np.ndarray) -> None:
    count = len(np.unique(mask))
    assume(count > 2)
    with pytest.raises(
        ValueError, match=rf"^{count} levels in a mask that should have two; say what is foreground: nonzero"
    ):
        pixels.binary(mask, "binary")


def test_very_many_levels_are_not_counted() -> None:
    with pytest.raises(ValueError, match="more than 65536 levels"):
        pixels.binary(RNG.random((300, 300)), "binary")


@pytest.mark.parametrize(("foreground", "expected"), [
    ("nonzero", [[0, 1, 1], [1, 1, 1]]),
    ("half", [[0, 0, 0], [0, 1, 1]]),
    ((3,), [[0, 0, 1], [0, 0, 0]]),
    ((1, 255, 9), [[0, 1, 0], [0, 0, 1]]),
    ((), [[0, 0, 0], [0, 0, 0]]),
])  # fmt: skip
def test_other_rules_of_foreground(foreground: str | tuple[int, ...], expected: list[list[int]]) -> None:
    got = pixels.binary(np.array([[0, 1, 3], [127, 128, 255]], np.uint8), foreground)
    assert got.tolist() == expected


@pytest.mark.parametrize(("kind", "below", "above"), [
    ("uint16", 32_767, 32_768), ("int16", 16_383, 16_384), ("float32", 0.5, 0.51),
])  # fmt: skip
def test_half_is_half_of_the_type(kind: str, below: float, above: float) -> None:
    assert pixels.binary(np.array([[below, above]], kind), "half").tolist() == [[0, 1]]


def test_an_unknown_foreground_is_refused() -> None:
    with pytest.raises(ValueError, match="foreground must be binary, nonzero, half or a list of values; got 'all'"):
        pixels.binary(TWO, "all")


def masks(folder: Path, arrays: Sequence[np.ndarray]) -> list[Path]:
    return [npy(folder, array, f"m{i}") for i, array in enumerate(arrays)]


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
        np.testing.assert_array_equal(pixels.mask_of(pictures, "binary", frame, box), expected)
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


def test_real_masks_equal_opencv(real_data: Path) -> None:
    names = [
        *sorted((real_data / "isic2017").rglob("*_segmentation.png"))[:5],
        *sorted((real_data / "bitdepth_nucseg/masks").glob("*.png"))[:5],
    ]
    assert len(names) == 10
    for path in names:
        np.testing.assert_array_equal(read_mask([path], "binary"), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127)
