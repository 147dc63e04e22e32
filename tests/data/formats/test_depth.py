"""Limits and scaling against numpy, exact fractions and OpenCV."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medsass.data.formats import depth
from medsass.data.formats.dicom.series import Series
from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.dicom.dicoms import dataset, saved
from tests.support.effort import examples

RNG = np.random.default_rng(0)
INTEGERS = ("uint8", "int8", "uint16", "int16")


def npy(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def limits(folder: Path, array: np.ndarray, rule: str, view: Selection = WHOLE_FILE) -> list[tuple[float, float]]:
    with open_image(npy(folder, array), view) as picture:
        return depth.limits(picture, 0, rule)


@pytest.mark.parametrize("kind", [*INTEGERS, "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("colour", [False, True])
def test_limits_equal_numpy(kind: str, colour: bool, tmp_path: Path) -> None:
    array = (
        (RNG.normal(size=(300, 200, 3)) * 40 + 60 * (kind[0] == "u"))
        .clip(0 if kind[0] == "u" else -120, 120)
        .astype(kind)
    )
    array = array if colour else array[..., 0]
    if kind == "uint8":  # keeps its values
        assert limits(tmp_path, array, "minmax") == limits(tmp_path, array, "percentile") == [(0, 255)]
    else:
        assert limits(tmp_path, array, "minmax") == [(array.min(), array.max())]
        ((low, high),) = limits(tmp_path, array, "percentile")
        np.testing.assert_allclose((low, high), np.percentile(array.astype(float), [0.5, 99.5]), rtol=1e-12)
    whole = (0, 1) if kind[0] == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    assert limits(tmp_path, array, "type") == [whole]


@given(hnp.arrays(st.sampled_from(INTEGERS), hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30)))
@examples(60)
def test_percentiles_from_a_histogram_equal_numpy(array: np.ndarray) -> None:
    low = int(np.iinfo(array.dtype).min)
    counts = np.bincount(array.ravel().astype(int) - low, minlength=1 << 8 * array.dtype.itemsize)
    truth = np.percentile(array.astype(float), depth.PERCENTILES)
    np.testing.assert_allclose(depth._of_histogram(counts, low), truth, rtol=1e-12, atol=1e-9)


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
            assert depth.limits(picture, 0, rule) == [expected]


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
        depth.scaled(array, [(0, 1)], 8)
    with pytest.raises(ValueError, match="not finite"):
        depth.to_8bit(array)


def test_streamed_limits_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.data.formats.image._BLOCK", 1000)
    array = RNG.integers(0, 60_000, (90, 70), np.uint16)
    assert limits(tmp_path, array, "minmax") == [(array.min(), array.max())]
    np.testing.assert_allclose(limits(tmp_path, array, "percentile")[0], np.percentile(array, [0.5, 99.5]), rtol=1e-12)


def exact(value: int | float, low: float, high: float, bits: int) -> int:
    """By exact fractions; Python's `round` rounds half to even too."""
    share = (Fraction(value) - Fraction(low)) * (2**bits - 1) / (Fraction(high) - Fraction(low))
    return min(max(round(share), 0), 2**bits - 1)


@given(
    st.lists(st.integers(-70_000, 70_000), min_size=1, max_size=20), st.integers(-70_000, 70_000),
    st.integers(1, 70_000), st.sampled_from([8, 16]),
)  # fmt: skip
@examples(200)
def test_scaling_is_exact(values: list[int], low: int, width: int, bits: int) -> None:
    got = depth.scaled(np.array([values]), [(low, low + width)], bits)
    assert got.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert got[0].tolist() == [exact(value, low, low + width, bits) for value in values]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("bits", [8, 16])
def test_large_integer_images_are_scaled_exactly_too(kind: str, bits: int) -> None:
    span = np.iinfo(kind)
    array = np.resize(np.arange(span.min, span.max + 1), (300, 300)).astype(kind)
    low, high = span.min // 2 + 1, span.max // 3 + 0.5
    got = depth.scaled(array, [(low, high)], bits).ravel()[: span.max - span.min + 1 : 37]
    assert got.tolist() == [exact(value, low, high, bits) for value in range(span.min, span.max + 1, 37)]


def test_halves_are_rounded_to_even() -> None:
    assert depth.scaled(np.array([[1, 3, 5, 510]]), [(0, 510)], 8).tolist() == [[0, 2, 2, 255]]


def test_each_channel_has_its_limits() -> None:
    array = RNG.integers(0, 60_000, (6, 7, 3), np.uint16)
    pairs = [(0.0, 60_000.0), (100.0, 200.0), (5.0, 5.0)]
    got = depth.scaled(array, pairs, 8)
    for channel, pair in enumerate(pairs[:2]):
        np.testing.assert_array_equal(got[..., channel], depth.scaled(array[..., channel], [pair], 8))
    assert not got[..., 2].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_only_the_stored_type_needs_no_scaling(dtype: str, tmp_path: Path) -> None:
    with open_image(npy(tmp_path, np.ones((4, 5), dtype))) as picture:
        assert depth.needs_scaling(picture, 8) == (dtype != "uint8")
        assert depth.needs_scaling(picture, 16) == (dtype != "uint16")
        assert depth.needs_scaling(picture, 8, (0, 255))
        assert depth.limits(picture, 0, "type", (-3, 7.5)) == [(-3, 7.5)]


@pytest.mark.parametrize("kind", ["uint16", "int16", "int32", "float32"])
def test_padding_is_no_part_of_the_range_and_becomes_black(kind: str, tmp_path: Path) -> None:
    array = RNG.integers(100, 4000, (50, 70)).astype(kind)
    out = RNG.random(array.shape) < 0.4
    array[out] = RNG.choice([60, 61, 62], array.shape)[out]
    with open_image(npy(tmp_path, array)) as picture:
        picture.padding = 60, 62
        inside = array[~out].astype(float)
        assert depth.limits(picture, 0, "minmax") == [(inside.min(), inside.max())]
        ((low, high),) = depth.limits(picture, 0, "percentile")
        np.testing.assert_allclose((low, high), np.percentile(inside, [0.5, 99.5]), rtol=1e-12)
        got = depth.scaled(array, [(30, 3000)], 8, picture.padding)
        assert not got[out].any()
        np.testing.assert_array_equal(got[~out], depth.scaled(array, [(30, 3000)], 8)[~out])


def test_nan_that_is_padding_is_left_out(tmp_path: Path) -> None:
    array = RNG.normal(size=(40, 30)).astype(np.float32)
    array[:7] = np.nan
    with open_image(npy(tmp_path, array)) as picture:
        picture.padding = np.nan, np.nan
        assert depth.limits(picture, 0, "minmax") == [(array[7:].min(), array[7:].max())]
        got = depth.scaled(array, depth.limits(picture, 0, "percentile"), 8, picture.padding)
    assert not got[:7].any()
    assert got[7:].any(axis=1).all()
    np.testing.assert_array_equal(depth.to_8bit(array, (np.nan, np.nan))[7:], depth.to_8bit(array[7:]))
    with open_image(npy(tmp_path, np.full((4, 4), np.nan))) as empty:
        empty.padding = np.nan, np.nan
        for rule in ("minmax", "percentile"):
            assert depth.limits(empty, 0, rule) == [(0, 0)]


def test_to_8bit_equals_opencv() -> None:
    array = RNG.integers(300, 40_000, (200, 300), np.uint16)
    theirs = cv2.normalize(array, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U).astype(int)
    assert np.abs(depth.to_8bit(array) - theirs).max() <= 1
    assert not depth.to_8bit(np.full((5, 5), 9.0)).any()


@pytest.mark.parametrize("kind", ["MINISWHITE", "MONOCHROME1", "series", "cut"])
def test_a_window_counts_in_the_files_values_where_zero_is_white(kind: str, tmp_path: Path) -> None:
    values, path = np.array([[500, 1500, 3500, 0]], np.uint16), tmp_path / "a"
    if kind == "MINISWHITE":
        tifffile.imwrite(path, values, photometric="miniswhite")
    else:
        several = {"frames": 2} if kind == "cut" else {}
        pixels = np.stack([values] * 2).reshape(2, 1, 4) if several else values
        made = dataset(
            pixels, bits=12, PhotometricInterpretation="MONOCHROME1", WindowCenter=1000.5, WindowWidth=2001, **several
        )
        path.write_bytes(saved(made))
    view = Selection(axis="y") if kind == "cut" else WHOLE_FILE
    picture = Series([path], WHOLE_FILE) if kind == "series" else open_image(path, view)
    with picture:
        found = depth.limits(picture, 0, "minmax", (0.0, 2000.0))
        shown = depth.scaled(picture.read(), found, 8)
        if kind != "MINISWHITE":
            assert picture.limits == found[0]  # the same window, by the header
    np.testing.assert_array_equal(shown[:1], [[191, 64, 0, 255]])
