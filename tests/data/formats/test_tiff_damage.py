"""Damaged TIFF files that decoders fill with pixels of their own."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.opening import open_image

RNG = np.random.default_rng(0)
PAGES = [cv2.resize(RNG.integers(0, 256, (16, 16, 3), np.uint8), (128, 128)) for _ in range(3)]


def damaged(path: Path, page: int) -> None:
    """Overwrite the second half of a page's last strip or tile with zeros."""
    with tifffile.TiffFile(path) as file:
        held = file.pages[page]
        start, size = held.dataoffsets[-1], held.databytecounts[-1]
    with path.open("r+b") as file:
        file.seek(start + size // 2)
        file.write(bytes(size - size // 2))


@pytest.mark.parametrize("form", ["stack", "pages", "tiles", "pages by Pillow"])
def test_a_damaged_jpeg_page_is_refused_wherever_it_is(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "compression": "jpeg", **({"tile": (64, 64)} if form == "tiles" else {})}
    if form == "stack":
        tifffile.imwrite(path, np.stack(PAGES), rowsperstrip=128, metadata={"axes": "ZYXS"}, **options)
    elif form == "pages by Pillow":
        first, *others = map(Image.fromarray, PAGES)
        first.save(path, save_all=True, append_images=others, compression="jpeg")
    else:
        tifffile.imwrite(path, np.stack(PAGES), metadata=None, **options)
    with open_image(path) as picture:
        whole = [picture.read(frame) for frame in range(picture.frames)]
    assert len(whole) == 3
    damaged(path, 1)
    for view in (WHOLE_FILE, Selection(frames=1)):
        with open_image(path, view) as picture, pytest.raises(ValueError, match=r"JPEG: "):
            picture.read(1 if view is WHOLE_FILE else 0)
    with open_image(path) as picture:
        for frame in (0, 2):
            np.testing.assert_array_equal(picture.read(frame), whole[frame])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("store", [{"rowsperstrip": 8}, {"tile": (16, 16)}], ids=["strips", "tiles"])
def test_fewer_pieces_than_the_size_asks_for_are_refused(compression: str | None, store: dict, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(1, 256, (64, 40), np.uint8), compression=compression, metadata=None, **store)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["ImageLength"].overwrite(128)
    held, due = (12, 24) if "tile" in store else (8, 16)
    with pytest.raises(ValueError, match=rf"truncated: {held} (tiles|strips) of {due}"):
        open_image(path)


def test_pages_behind_the_first_must_be_whole_too(tmp_path: Path) -> None:
    path, pages = tmp_path / "a.tif", RNG.integers(1, 256, (3, 64, 40), np.uint8)
    tifffile.imwrite(path, pages, photometric="minisblack", compression="zlib", metadata=None, rowsperstrip=8)
    whole = path.read_bytes()
    with open_image(path) as picture:
        np.testing.assert_array_equal(picture.read(2), pages[2])
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("StripOffsets", "StripByteCounts"):
            tag = file.pages[1].tags[name]
            tag.overwrite(tag.value[:5])
    with pytest.raises(ValueError, match="truncated: 5 strips of 8"):
        open_image(path)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        last = file.pages[2].dataoffsets[-1]
    path.write_bytes(whole[: last + 1])
    with pytest.raises(ValueError, match="truncated"):
        open_image(path)


def test_planes_that_ome_promises_and_the_file_lacks_are_not_black(tmp_path: Path) -> None:
    planes = np.stack([page[..., 0] for page in PAGES])
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, photometric="minisblack", metadata={"axes": "ZYX"}, ome=True)
    data = (tmp_path / "a.ome.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        second = file.pages[1]
        end = second.offset + 2 + 12 * len(second.tags)  # where the place of the third stands
    (tmp_path / "a.ome.tif").write_bytes(data[:end] + bytes(4) + data[end + 4 :])
    with pytest.raises(ValueError, match=r"^truncated: 2 of 3 planes; copy it again"):
        open_image(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("length", [2, 40])  # tifffile reads all tags of few pages alone
@pytest.mark.parametrize("what", ["palettes", "orientations"])
def test_pages_that_differ_in_what_the_first_would_decide_are_refused(what: str, length: int, tmp_path: Path) -> None:
    gray = PAGES[0][..., 0]
    for same in (True, False):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for page in [0] * (length - 1) + [0 if same else 2]:
                if what == "palettes":
                    table = np.zeros((3, 256), np.uint16)
                    table[page] = np.arange(256) * 257
                    options = {"photometric": "palette", "colormap": table}
                else:
                    options = {"photometric": "minisblack", "extratags": [(274, 3, 1, page + 1, True)]}
                writer.write(gray, metadata=None, **options)
        if same:
            with open_image(tmp_path / "a.tif") as picture, Image.open(tmp_path / "a.tif") as truth:
                truth.seek(1)
                wanted = truth.convert("RGB") if what == "palettes" else truth
                np.testing.assert_array_equal(picture.read(1), np.asarray(wanted))
                assert picture.converted == "palette to RGB" * (what == "palettes")
    with pytest.raises(ValueError, match=f"^its pages have different {what}; save each as a file of its own$"):
        open_image(tmp_path / "a.tif")
    if what == "palettes":
        with open_image(tmp_path / "a.tif", Selection(raw=True)) as picture:
            np.testing.assert_array_equal(picture.read(1), gray)
