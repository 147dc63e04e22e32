"""NumPy files against the arrays that were saved."""

import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 60_000, (24, 40), np.uint16)
STACK = RNG.normal(size=(5, 24, 40, 2)).astype(np.float32)


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "image.npy", array)
    return folder / "image.npy"


@pytest.mark.parametrize(("array", "view", "frames", "expected"), [
    (GRAY, Selection(), 1, [GRAY]),
    (GRAY[..., None], Selection(), 1, [GRAY]),
    (np.dstack([GRAY] * 3), Selection(), 1, [np.dstack([GRAY] * 3)]),
    (np.dstack([GRAY, GRAY // 2, GRAY, GRAY]), Selection(), 1, [np.dstack([GRAY, GRAY // 2, GRAY])]),
    (STACK[0], Selection(channels=(1,)), 1, [STACK[0, ..., 1]]),
    (STACK, Selection(channels=(1,), frames="first"), 1, [STACK[0, ..., 1]]),
    (STACK, Selection(channels=(0, 1, -1), frames="all"), 5, [np.dstack([one, one[..., 0] * 0]) for one in STACK]),
    (STACK[..., 0], Selection(frames="all"), 5, list(STACK[..., 0])),
    (np.moveaxis(STACK[..., 0], 0, 2), Selection(channels=(3,)), 1, [STACK[3, ..., 0]]),
    (STACK[..., 0], Selection(channels=(3,)), 1, [STACK[3, ..., 0]]),
    (STACK[:3, ..., 0], Selection(channels=(0, 1, 2)), 1, [np.moveaxis(STACK[:3, ..., 0], 0, 2)]),
    (np.moveaxis(STACK, 3, 1), Selection(channels=(1,), frames="all"), 5, list(STACK[..., 1])),
    (GRAY[None], Selection(), 1, [GRAY]),
    (GRAY[:4, :3], Selection(channels=(2,)), 1, [GRAY[:4, :3]]),
], ids=["HW", "HW1", "RGB", "RGBA", "channel", "first", "composed", "frames", "of many channels", "channels first", "RGB first", "NCHW", "1HW", "small"])  # fmt: skip
def test_axes_follow_the_rule(
    array: np.ndarray, view: Selection, frames: int, expected: list[np.ndarray], tmp_path: Path
) -> None:
    if array.ndim == 2 and view.channels:
        array = np.dstack([array * 0, array * 0, array])
    with open_image(saved(tmp_path, array), view) as picture:
        assert (picture.frames, picture.streams) == (frames, True)
        for frame, truth in enumerate(expected):
            got = picture.read(frame)
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, truth if truth.ndim == 2 or picture.colour else truth[..., 0])
            np.testing.assert_array_equal(picture.read(frame, Box(1, 2, 3, 1)), got[1:4, 2:3])
        assert picture.per_channel == (len(view.channels) == 3)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    with open_image(saved(tmp_path, np.zeros((6, 8, 9, 4), np.uint8)), Selection(frames="first")) as picture:
        assert picture.converted == "first of 6 frames, alpha dropped"


@pytest.mark.parametrize(("array", "view", "message"), [
    (STACK[..., 0], Selection(), r"shape \(5, 24, 40\) can be 5 frames or 5 channels; .*--frames all, or --channels 0"),
    (STACK[..., 0], Selection(frames="all", channels=(0,)), r"shape \(5, 24, 40\) can be"),
    (STACK, Selection(), r"2 channels: say which to read: --channels 0 for gray"),
    (STACK, Selection(channels=(2,)), r"channels = \[2\] must be one or three of the file's 2"),
    (np.zeros(9), Selection(), r"an array of shape \(9,\); images are \(H, W\)"),
    (np.zeros((2, 2, 2, 2, 2)), Selection(), "an array of shape"),
    (np.zeros((0, 4)), Selection(), "an array of shape"),
    (np.zeros((4, 4), complex), Selection(), "pixels of type complex128 are not supported"),
    (np.array([[{}]], object), Selection(), "pickled Python objects"),
    (GRAY, Selection(array="X"), "holds one array without a name"),
    (GRAY, Selection(level=1), "no pyramid level 1"),
])  # fmt: skip
def test_doubtful_arrays_are_refused(array: np.ndarray, view: Selection, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        open_image(saved(tmp_path, array), view)


@pytest.mark.parametrize(
    "array", [GRAY.astype(">u2"), np.asfortranarray(GRAY), GRAY.astype(np.int64), GRAY.astype(np.float16)]
)
def test_byte_order_memory_order_and_type_do_not_matter(array: np.ndarray, tmp_path: Path) -> None:
    with open_image(saved(tmp_path, array)) as picture:
        assert picture.dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(picture.read(), array)


def test_a_truth_array_is_black_and_white(tmp_path: Path) -> None:
    with open_image(saved(tmp_path, GRAY > 30_000)) as picture:
        np.testing.assert_array_equal(picture.read(), np.where(GRAY > 30_000, 255, 0))
        assert (picture.dtype, picture.converted) == (np.uint8, "bilevel to gray")


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, GRAY)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        open_image(path)
    np.savez_compressed(tmp_path / "image.npz", X=GRAY)
    data = (tmp_path / "image.npz").read_bytes()
    (tmp_path / "image.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"\w+"):
        open_image(tmp_path / "image.npz")


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "image.npz", X=GRAY)
    data = bytearray((tmp_path / "image.npz").read_bytes())
    data[500] ^= 1
    (tmp_path / "image.npz").write_bytes(data)
    with pytest.raises(ValueError, match="CRC"):
        open_image(tmp_path / "image.npz")


@pytest.fixture
def tissuenet(tmp_path: Path) -> Path:
    """The layout of the official TissueNet files, smaller: X float32 and y int32 of (N, 32, 32, 2)."""
    rng = np.random.default_rng(3)
    x, y = rng.random((7, 32, 32, 2), np.float32), rng.integers(0, 9, (7, 32, 32, 2)).astype(np.int32)
    np.savez_compressed(
        tmp_path / "tissuenet_v1.0_val.npz",
        X=x,
        y=y,
        tissue_list=np.array(["Breast"] * 7),
        names=np.array(["a"], object),
    )
    return tmp_path / "tissuenet_v1.0_val.npz"


def test_tissuenet_is_read(tissuenet: Path) -> None:
    with np.load(tissuenet) as truth:
        x, y = truth["X"], truth["y"]
    with (
        open_image(tissuenet, Selection("X", (0,), "all")) as nuclei,
        open_image(tissuenet, Selection("X", (0, 1, -1), "all")) as both,
        open_image(tissuenet, Selection("y", (1,), "all")) as cells,
    ):
        assert nuclei.frames == both.frames == cells.frames == 7
        assert (nuclei.dtype, both.colour, cells.dtype) == (np.float32, True, np.int32)
        for frame in (0, 6):
            np.testing.assert_array_equal(nuclei.read(frame), x[frame, ..., 0])
            np.testing.assert_array_equal(both.read(frame)[..., :2], x[frame])
            np.testing.assert_array_equal(cells.read(frame, Box(4, 5, 6, 7)), y[frame, 4:10, 5:12, 1])


@pytest.mark.parametrize(("name", "message"), [
    ("Z", "no array 'Z' in the file; say which by --array NAME .*: X, y, tissue_list, names"),
    ("", "2 arrays that can be images in the file; say which by --array NAME .*: X, y$"),
    ("names", "pickled Python objects"),
    ("tissue_list", r"an array of shape \(7,\)"),
])  # fmt: skip
def test_members_that_are_no_images_are_refused(tissuenet: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_image(tissuenet, Selection(name, (0,)))


def test_the_only_member_that_can_be_an_image_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", number=np.float32(3), text=np.array([["a", "b"]]), image=GRAY)
    with open_image(tmp_path / "a.npz") as picture:
        np.testing.assert_array_equal(picture.read(), GRAY)


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", number=np.float32(3))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    for name, held in (("a", "number"), ("b", "none")):
        with pytest.raises(ValueError, match=f"no arrays that can be images in the file; say which .*: {held}$"):
            open_image(tmp_path / f"{name}.npz")


def test_unpacking_leaves_no_file(tissuenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with open_image(tissuenet, Selection("X", (0,))) as picture:
        picture.read()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_bytes_alone_are_refused(tissuenet: Path) -> None:
    with pytest.raises(ValueError, match="must be on this machine: copy it first"):
        open_image(Path("elsewhere.npz"), Selection("X", (0,)), tissuenet.read_bytes())


def test_threads_read_the_same_file(tmp_path: Path) -> None:
    array, wrong = np.random.default_rng(4).integers(0, 255, (200, 300), np.uint8), []
    with open_image(saved(tmp_path, array)) as picture:

        def check(start: int) -> None:
            for y in range(start, 190, 7):
                if not np.array_equal(picture.read(0, Box(y, y, 10, 20)), array[y : y + 10, y : y + 20]):
                    wrong.append(y)

        threads = [threading.Thread(target=check, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_whole_frame_of_too_many_pixels_is_refused_but_its_parts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (20_000, 9_000)).flush()  # a sparse file
    with open_image(path) as picture:
        assert picture.read(0, Box(19_000, 8_000, 5, 5)).max() == 0
        with pytest.raises(ValueError, match="9000x20000 pixels are more than the 178,956,970"):
            picture.read()
