"""What all image files share, on arrays: reduced images against OpenCV, frames that are kept, boxes."""

import threading

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.formats import image
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, chosen
from tests.support.effort import examples


class Frames(ImageFile):
    """Frames of an array (N, H, W) or (N, H, W, 3); counts how often one is decoded."""

    def __init__(self, array: np.ndarray, streams: bool = False, grain: tuple[int, int] = (1, 1)) -> None:
        super().__init__(*array.shape[1:3], array.ndim == 4, array.dtype, Selection(), streams=streams)
        self.array, self._grain = array, grain
        self._select(Selection(), len(array))
        self.decoded: list[tuple[int, Box]] = []

    def _decode(self, frame: int, box: Box, _level: int) -> np.ndarray:
        self.decoded.append((frame, box))
        return self.array[frame][box.slices]


RNG = np.random.default_rng(0)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("most", [700, 333, 64, 1])
def test_small_is_the_area_average(
    most: int, kind: str, colour: bool, streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "_BLOCK", 5000)
    monkeypatch.setattr(image, "_ACROSS", 100)
    array = cv2.GaussianBlur(RNG.normal(size=(431, 701, 3)), (0, 0), 2) * 1000
    array = (array if kind == "float32" else np.clip(array + 100, 0, 255)).astype(kind)
    array = array if colour else array[..., 0]
    with Frames(array[None], streams, (32, 16)) as frames:
        small = frames.small(0, most)
        assert small.dtype == array.dtype
        assert small.shape[:2] == (max(1, round(431 * most / 701)), most)
        truth = cv2.resize(array.astype(np.float64), small.shape[1::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(small, truth, atol=1e-3 if kind == "float32" else 0.501)
        assert len(frames.decoded) > 50 if streams else len(frames.decoded) == 1


def test_small_of_a_small_image_is_the_image() -> None:
    array = RNG.integers(0, 256, (1, 10, 20), np.uint8)
    np.testing.assert_array_equal(Frames(array).small(0, 20), array[0])


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 90), st.integers(1, 90), st.integers(1, 4000))
@examples(60)
def test_blocks_cover_every_pixel_once(height: int, width: int, rows: int, columns: int, most: int) -> None:
    frames, seen = Frames(np.zeros((1, height, width), np.uint8), True, (rows, columns)), np.zeros((height, width), int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "_BLOCK", most)
        for box in frames.blocks():
            seen[box.slices] += 1
            assert box.y % rows == 0
            assert box.height * box.width <= max(most, rows * max(columns, 2048))
    assert (seen == 1).all()


@pytest.mark.parametrize(("frames", "every", "expected", "animated"), [
    ("auto", 1, [0, 1, 2, 3, 4], [0]), ("auto", 2, [0, 2, 4], [0]), ("all", 3, [0, 3], [0, 3]), ("first", 1, [0], [0]),
    ("middle", 2, [2], [2]), (4, 1, [4], [4]),
])  # fmt: skip
def test_frames_are_chosen(frames: str | int, every: int, expected: list[int], animated: list[int]) -> None:
    view = Selection(frames=frames, every=every)
    assert list(chosen(view, 5)) == expected
    assert list(chosen(view, 5, animated=True)) == animated


@pytest.mark.parametrize(("view", "message"), [
    (Selection(frames=5), "no frame 5: the file has 5, numbered from 0"),
    (Selection(frames=-1), "no frame -1"),
    (Selection(frames="last"), "frames must be auto, first, middle, all or a number; got 'last'"),
    (Selection(every=0), "every must be 1 or more; got 0"),
])  # fmt: skip
def test_frames_that_cannot_be_chosen_are_refused(view: Selection, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(view, 5)


def test_frames_are_decoded_once_and_the_last_two_are_kept() -> None:
    array = RNG.integers(0, 256, (4, 10, 20), np.uint8)
    with Frames(array) as frames:
        for frame in (0, 0, 1, 0, 1, 2, 1, 0):
            np.testing.assert_array_equal(frames.read(frame, Box(2, 3, 4, 5)), array[frame, 2:6, 3:8])
        assert [frame for frame, _ in frames.decoded] == [0, 1, 2, 0]


def test_threads_that_ask_for_one_frame_decode_it_once() -> None:
    frames, barrier = Frames(RNG.integers(0, 256, (1, 500, 500), np.uint8)), threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        frames.read(0, Box(0, 0, 5, 5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(frames.decoded) == 1


def test_what_is_kept_cannot_be_changed_by_a_reader() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Frames(np.zeros((1, 5, 5), np.uint8)).read()[0, 0] = 1


def test_once_remembers() -> None:
    frames, calls = Frames(np.zeros((1, 5, 5), np.uint8)), []
    assert [frames.once("a", lambda: calls.append(1) or len(calls)) for _ in range(3)] == [1, 1, 1]
    assert frames.once("b", lambda: 7) == 7


@pytest.mark.parametrize("box", [Box(-1, 0, 2, 2), Box(0, -1, 2, 2), Box(0, 0, 6, 5), Box(0, 1, 5, 5), Box(9, 9, 1, 1)])
def test_boxes_outside_are_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="is not within the image of 5x5 pixels"):
        Frames(np.zeros((1, 5, 5), np.uint8)).read(0, box)


@pytest.mark.parametrize("frame", [-1, 2])
def test_frames_that_are_not_there_are_refused(frame: int) -> None:
    with pytest.raises(ValueError, match=f"no frame {frame}: there are 2, numbered from 0"):
        Frames(np.zeros((2, 5, 5), np.uint8)).read(frame)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_padding_is_no_part_of_the_averages(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(10, 200, (90, 120)).astype(dtype)
    padded = rng.random((90, 120)) < 0.3
    padded[:30, :40] = True
    values[padded] = np.nan if dtype is np.float32 else -7
    monkeypatch.setattr(image, "_BLOCK", 700)
    picture = Frames(values[None], streams=True)
    picture.padding = None if dtype is np.float32 else (-7.0, -7.0)
    small = picture.small(most=12)
    with np.errstate(invalid="ignore"):
        blocks = np.where(padded, np.nan, values).reshape(9, 10, 12, 10)
        expected = np.nansum(blocks, (1, 3)) / (~np.isnan(blocks)).sum((1, 3))
    hidden = np.isnan(expected)
    assert hidden.sum() == 12
    np.testing.assert_allclose(small[~hidden], expected[~hidden], atol=0.51 if dtype is np.int16 else 1e-4)
    assert np.isnan(small[hidden]).all() if dtype is np.float32 else (small[hidden] == -7).all()
