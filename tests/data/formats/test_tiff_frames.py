"""Frames, channels and pyramid levels of TIFF files, against the arrays that were written and Pillow."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.tiffs import GRAY, RGB, RNG, STORES, check, opened, tiff

STACK = RNG.integers(0, 60_000, (4, 3, 70, 90), np.uint16)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", ["ome", "imagej", "plain"])
def test_frames_are_read_one_or_all(form: str, store: str, tmp_path: Path) -> None:
    kind = {
        "ome": {"ome": True, "metadata": {"axes": "TZYX"}},
        "imagej": {"imagej": True, "metadata": {"axes": "TZYX"}},
    }
    data = tiff(STACK, photometric="minisblack", **kind.get(form, {}), **(STORES[store] if form != "imagej" else {}))
    with opened(data, tmp_path, Selection(frames="first")) as picture:
        assert (picture.frames, picture.total, picture.converted) == (1, 12, "first of 12 frames")
        check(picture, STACK[0, 0])
    with opened(data, tmp_path, Selection(every=5)) as picture:
        assert (list(picture.indices), picture.converted) == ([0, 5, 10], "3 of 12 frames")
        check(picture, STACK[3, 1], 2)
    with opened(data, tmp_path) as picture:
        assert (picture.frames, picture.converted) == (12, "")
        check(picture, STACK[1, 2], 5)
        check(picture, STACK[3, 2], 11)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("axis", ["y", "x"])
def test_a_stack_is_cut_along_any_axis(axis: str, store: str, tmp_path: Path) -> None:
    data = tiff(STACK, photometric="minisblack", ome=True, metadata={"axes": "TZYX"}, **STORES[store])
    slices = np.moveaxis(STACK, {"y": 2, "x": 3}[axis], 1).reshape(-1, 3, {"y": 90, "x": 70}[axis])
    with opened(data, tmp_path, Selection(axis=axis, every=40)) as picture:
        assert (picture.height, picture.width, picture.total, picture.common) == (*slices.shape[1:], len(slices), True)
        for frame, truth in enumerate(slices[::40]):
            check(picture, truth, frame)
    with pytest.raises(ValueError, match="axis must be z, y or x; got 'w'"):
        opened(data, tmp_path, Selection(axis="w"))


def test_pages_that_pillow_wrote_are_frames(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.roll(RGB, i)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    with open_image(tmp_path / "a.tif", Selection(frames="all")) as picture:
        assert picture.frames == 3
        check(picture, np.roll(RGB, 2), 2)


def test_pages_of_other_sizes_are_left_out_and_said(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GRAY, metadata=None)
        writer.write(GRAY[:9, :90], metadata=None)
    with open_image(tmp_path / "a.tif", Selection(frames="all")) as picture:
        check(picture, GRAY)
        assert picture.converted == "other images in the file left out"


@pytest.mark.parametrize(("size", "note"), [((70, 90), "other images in the file left out"), ((20, 30), "")])
def test_positions_of_an_ome_tiff_are_told_and_its_label_is_not(
    size: tuple[int, int], note: str, tmp_path: Path
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name, array in (("Position 1", GRAY), ("other", np.roll(GRAY, 1)[: size[0], : size[1]])):
            writer.write(array, metadata={"axes": "YX", "Name": name}, photometric="minisblack")
    with open_image(tmp_path / "a.ome.tif") as picture:
        check(picture, GRAY)
        assert (picture.frames, picture.converted) == (1, note)


@pytest.mark.parametrize("store", ["flat", "tiles", "one strip"])
def test_channels_are_chosen(store: str, tmp_path: Path) -> None:
    array = STACK[:, [0, 1]]  # (4, 2, ...): T, C
    data = tiff(array, photometric="minisblack", ome=True, metadata={"axes": "TCYX"}, **STORES[store])
    with opened(data, tmp_path, Selection(channels=(1,), frames="all")) as picture:
        assert (picture.frames, picture.per_channel) == (4, False)
        check(picture, array[2, 1], 2)
    with opened(data, tmp_path, Selection(channels=(1, 0, -1), frames="all")) as picture:
        assert picture.per_channel
        check(picture, np.dstack([array[3, 1], array[3, 0], array[3, 0] * 0]), 3)
    with pytest.raises(ValueError, match=r"2 channels: say which to read: --channels 0 for gray"):
        opened(data, tmp_path)
    with pytest.raises(ValueError, match=r"channels = \[2\] must be one or three of the file's 2"):
        opened(data, tmp_path, Selection(channels=(2,)))


def test_three_channels_are_red_green_and_blue(tmp_path: Path) -> None:
    for form in ({"imagej": True}, {"ome": True}):
        data = tiff(STACK[0], photometric="minisblack", metadata={"axes": "CYX"}, **form)
        with opened(data, tmp_path) as picture:
            check(picture, np.moveaxis(STACK[0], 0, -1))
            assert picture.per_channel
    data = tiff(STACK[0], photometric="rgb")
    with opened(data, tmp_path) as picture:
        check(picture, np.moveaxis(STACK[0], 0, -1))
        assert not picture.per_channel


def test_a_few_planes_without_axes_are_refused_until_it_is_said_what_they_are(tmp_path: Path) -> None:
    for count in (2, 3, 4):
        data = tiff(STACK[:, 0][:count], photometric="minisblack")
        with pytest.raises(ValueError, match=rf"shape \({count}, 70, 90\) can be {count} channels or {count} slices"):
            opened(data, tmp_path)
        with opened(data, tmp_path, Selection(frames="all")) as picture:
            check(picture, STACK[1, 0], 1)
        with opened(data, tmp_path, Selection(channels=(0,))) as picture:
            check(picture, STACK[0, 0])
            assert picture.frames == 1
    with opened(tiff(np.repeat(STACK[:, 0], 2, axis=0), photometric="minisblack"), tmp_path) as picture:
        assert picture.frames == 8
    with opened(tiff(STACK[:1, 0], photometric="minisblack"), tmp_path) as picture:
        check(picture, STACK[0, 0])
        assert picture.frames == 1


@pytest.mark.parametrize("options", [{}, {"metadata": None}])
@pytest.mark.parametrize("stack", [False, True])
def test_channels_that_were_stored_last_are_no_narrow_pages(stack: bool, options: dict, tmp_path: Path) -> None:
    array = np.moveaxis(STACK[:, :2], 1, -1)  # (4, 70, 90, 2), which tifffile writes as pages of 90 x 2
    if not stack:
        array = array[0]
    elif options:
        return  # nothing in the file tells the stack
    data = tiff(array, photometric="minisblack", **options)
    with pytest.raises(ValueError, match="2 channels: say which"):
        opened(data, tmp_path)
    with opened(data, tmp_path, Selection(channels=(1,), frames="all")) as picture:
        check(picture, array[..., 1][-1] if stack else array[..., 1], picture.frames - 1)
        assert picture.frames == (4 if stack else 1)


def test_a_reduced_image_that_is_stored_first_is_skipped(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(RGB[::4, ::4], subfiletype=1, photometric="rgb")
        writer.write(RGB, photometric="rgb")
    with open_image(tmp_path / "a.tif") as picture:
        check(picture, RGB)
        assert picture.converted == ""


def test_extra_samples_of_colours_are_dropped(tmp_path: Path) -> None:
    array = np.concatenate([RGB, RGB[..., :2]], axis=-1)
    with opened(tiff(array, photometric="rgb", extrasamples=[0, 0]), tmp_path) as picture:
        check(picture, RGB)
        assert picture.converted == "first 3 of 5 channels"


def test_plain_pages_are_channels_where_channels_are_asked_for(tmp_path: Path) -> None:
    data = tiff(STACK[0], photometric="minisblack")
    with opened(data, tmp_path, Selection(channels=(2,))) as picture:
        check(picture, STACK[0, 2])


@pytest.mark.parametrize("count", [2, 4, 5])
def test_samples_are_channels_unless_they_are_alpha(count: int, tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (70, 90, count), np.uint8)
    data = tiff(array, photometric="minisblack", planarconfig="contig", extrasamples=[0] * (count - 1))
    with pytest.raises(ValueError, match=f"{count} channels: say which"):
        opened(data, tmp_path)
    with opened(data, tmp_path, Selection(channels=(1,))) as picture:
        check(picture, array[..., 1])


@pytest.mark.parametrize("kind", ["rgb", "minisblack"])
def test_alpha_is_dropped(kind: str, tmp_path: Path) -> None:
    colours = RGB if kind == "rgb" else RGB[..., 0]
    data = tiff(
        np.dstack([colours, GRAY // 300]).astype(np.uint8), photometric=kind, planarconfig="contig", extrasamples=[2]
    )
    with opened(data, tmp_path) as picture:
        check(picture, colours)
        assert picture.converted == "alpha dropped"


@pytest.fixture(params=["pages", "subifds"])
def pyramid(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """A file of three levels and its arrays."""
    smooth = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (301, 407, 3), np.uint8), (0, 0), 4)
    levels = [smooth, smooth[::2, ::2].copy(), smooth[::4, ::4].copy()]
    options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=request.param == "subifds") as writer:
        if request.param == "subifds":
            writer.write(levels[0], subifds=2, **options)
            for level in levels[1:]:
                writer.write(level, subfiletype=1, **options)
        else:
            for i, level in enumerate(levels):
                writer.write(level, subfiletype=int(i > 0), metadata=None, **options)
    return tmp_path / "a.tif", levels


def test_levels_are_chosen(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    path, levels = pyramid
    for i, truth in enumerate(levels):
        with open_image(path, Selection(level=i)) as picture:
            assert picture.levels == tuple(level.shape[:2] for level in levels)
            check(picture, truth)
            assert picture.converted == ""
    with pytest.raises(ValueError, match="no pyramid level 3: the file has levels 0 to 2"):
        open_image(path, Selection(level=3))


def test_small_is_read_from_the_nearest_larger_level(pyramid: tuple[Path, list[np.ndarray]]) -> None:
    path, levels = pyramid
    with open_image(path) as picture:
        np.testing.assert_array_equal(picture.small(most=204), levels[1])
        area = cv2.resize(levels[1].astype(float), (150, 111), interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(picture.small(most=150), area, atol=0.51)


def test_each_file_of_a_set_is_its_own_planes(tmp_path: Path) -> None:
    """OME-TIFF: each file's XML names those of the whole set."""
    planes = RNG.integers(0, 255, (3, 20, 30), np.uint8)
    blocks = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="z{z}.ome.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(3)
    )
    for z in range(3):
        xml = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint8" SizeX="30" SizeY="20" SizeZ="3" SizeC="1" SizeT="1"><Channel ID="Channel:0:0"/>'
            f"{blocks}</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / f"z{z}.ome.tif", planes[z], description=xml, metadata=None)
    assert tifffile.imread(tmp_path / "z0.ome.tif").shape == (3, 20, 30)
    for z in range(3):
        with open_image(tmp_path / f"z{z}.ome.tif") as picture:
            held = [picture.read(frame) for frame in range(picture.frames)]
        assert any(np.array_equal(one, planes[z]) for one in held)
        assert len(held) == 1


def test_a_pyramid_of_a_stack_is_cut_at_the_same_place_on_all_levels(tmp_path: Path) -> None:
    rows = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (4, 256, 256))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        options = {"photometric": "minisblack", "tile": (64, 64)}
        file.write(rows, subifds=1, metadata={"axes": "ZYX"}, **options)
        file.write(rows[:, ::2, ::2], subfiletype=1, **options)
    with open_image(tmp_path / "a.ome.tif", Selection(axis="y")) as picture:
        for place in (50, 200):
            assert picture.read(place).mean() == place
            assert picture.small(place, 100).mean() == place


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_signed_values_that_imagej_stores_shifted_are_read_as_it_shows_them(byteorder: str, tmp_path: Path) -> None:
    stored, told = STACK[:, 0] + np.uint16(1000), {"axes": "ZYX", "cf": 0, "c1": 1.0}
    data = tiff(stored, imagej=True, byteorder=byteorder, metadata={**told, "c0": -32768.0})
    with opened(data, tmp_path) as picture:
        check(picture, (stored.astype(int) - 32768).astype(np.int16)[2], 2)
        assert (picture.span, picture.converted) == ((-32768.0, 32767.0), "")
    with opened(data, tmp_path, Selection(raw=True)) as picture:
        check(picture, stored[2], 2)
    for shift, note in ((-100.0, "calibration not applied"), (0.0, "")):
        data = tiff(stored, imagej=True, byteorder=byteorder, metadata={**told, "c0": shift})
        with opened(data, tmp_path) as picture:
            check(picture, stored[2], 2)
            assert picture.converted == note
