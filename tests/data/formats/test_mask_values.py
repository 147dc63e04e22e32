"""Masks as their files store them: what alpha shows, indices, levels of any depth; against the arrays that were written."""

from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from medsass.data.formats import geometry
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.mask import LevelsError, binary, levels
from medsass.data.formats.opening import open_image
from tests.data.formats.test_mask import read_mask

RNG = np.random.default_rng(0)
TRUTH = np.zeros((64, 96), bool)
TRUTH[10:30, 20:40] = True


def with_alpha(truth: np.ndarray, ground: int = 255, kind: str = "u1") -> np.ndarray:
    """White (h, w, 4), whose alpha alone is the mask."""
    array = np.full((*truth.shape, 4), ground, kind)
    array[..., 3] = truth * np.iinfo(kind).max
    return array


@pytest.mark.parametrize("options", [
    {}, {"tile": (16, 16), "compression": "zlib"}, {"rowsperstrip": 8, "compression": "zlib"}, {"planarconfig": "separate"},
], ids=["flat", "tiles", "strips", "planes"])  # fmt: skip
@pytest.mark.parametrize("turn", [1, 6])
def test_each_box_of_a_mask_in_alpha_is_that_part_of_it(options: dict, turn: int, tmp_path: Path) -> None:
    array = with_alpha(TRUTH)
    if "planarconfig" in options:
        array = np.moveaxis(array, -1, 0)
    tags = [(274, 3, 1, turn, True)] if turn != 1 else []
    tifffile.imwrite(
        tmp_path / "m.tif", array, photometric="rgb", extrasamples=["unassalpha"], extratags=tags, **options
    )
    shown = np.asarray(geometry.upright(TRUTH, turn))
    for box in (Box(40, 48, 16, 16), Box(0, 0, 32, 32), Box(12, 22, 4, 4), None):
        expected = shown[box.slices] if box else shown
        np.testing.assert_array_equal(read_mask([tmp_path / "m.tif"], box=box), expected)


def test_each_page_of_masks_in_alpha_is_read(tmp_path: Path) -> None:
    pages = np.stack([with_alpha(TRUTH), with_alpha(~TRUTH), with_alpha(TRUTH & False)])
    tifffile.imwrite(tmp_path / "m.tif", pages, photometric="rgb", extrasamples=["unassalpha"])
    for frame, truth in enumerate((TRUTH, ~TRUTH, TRUTH & False)):
        np.testing.assert_array_equal(read_mask([tmp_path / "m.tif"], frame=frame), truth)


@pytest.mark.parametrize(("colour", "alpha", "foreground"), [(255, 0, 0), (255, 255, 1), (0, 255, 0), (0, 0, 0)])
def test_a_mask_of_one_colour_counts_unless_it_is_hidden(
    colour: int, alpha: int, foreground: int, tmp_path: Path
) -> None:
    for name in ("m.png", "m.tif"):
        Image.new("RGBA", (8, 8), (colour, colour, colour, alpha)).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask([tmp_path / name]), foreground)


@pytest.mark.parametrize("shape", [(0, 5, 4), (5, 0, 2)])
def test_no_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"a mask of {shape[1]}x{shape[0]} pixels"):
        geometry.without_alpha(np.zeros(shape, np.uint8))


def as_stored(name: str, data: bytes) -> np.ndarray:
    with open_image(Path(name), Selection(mask=True, raw=True), data) as picture:
        array = picture.read()
        assert (picture.dtype, picture.converted) == (array.dtype, "")
        return array


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("form", ["png", "jxl", "jp2", "pam"])
def test_alpha_alone_is_the_mask_in_any_format(form: str, colours: int, kind: str) -> None:
    array = with_alpha(TRUTH, kind=kind)[..., 3 - colours :].copy()
    data = {
        "png": lambda: imagecodecs.png_encode(array),
        "jxl": lambda: imagecodecs.jpegxl_encode(array, lossless=True),
        "jp2": lambda: imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True),
        "pam": lambda: pnm("P7", int(np.iinfo(kind).max), array),
    }[form]()
    np.testing.assert_array_equal(
        as_stored(f"m.{form}", data).reshape(*TRUTH.shape, -1), array[..., -1:].repeat(colours, 2)
    )
    opaque = array.copy()
    opaque[..., :-1], opaque[..., -1] = array[..., -1:], np.iinfo(kind).max
    data = imagecodecs.png_encode(opaque)
    np.testing.assert_array_equal(as_stored("m.png", data).reshape(*TRUTH.shape, -1), opaque[..., :-1])


def pnm(kind: str, top: int, array: np.ndarray) -> bytes:
    """A file of Netpbm's: binary (P5, P6, P7) or text (P2, P3)."""
    (height, width), count = array.shape[:2], array.shape[2] if array.ndim == 3 else 1
    if kind == "P7":
        head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {count}\nMAXVAL {top}\nTUPLTYPE X\nENDHDR\n"
    else:
        head = f"{kind} {width} {height}\n# by hand\n{top}\n"
    if kind in ("P2", "P3"):
        return (head + "\n".join(map(str, array.ravel()))).encode()
    return head.encode() + array.astype(">u2" if top > 255 else "u1").tobytes()


@pytest.mark.parametrize("top", [1, 2, 3, 100, 254, 255, 256, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6", "P7"])
def test_levels_of_netpbm_are_as_stored(kind: str, top: int) -> None:
    array = RNG.integers(0, top + 1, (9, 7, 3) if kind in ("P3", "P6") else (9, 7))
    np.testing.assert_array_equal(as_stored("m.pnm", pnm(kind, top, array)), array)


@pytest.mark.parametrize("name", ["m.npy", "m.mha", "m.nrrd", "m.nii.gz"])
@pytest.mark.parametrize("kind", ["i8", "u8"])
@pytest.mark.parametrize("level", [2**53 + 1, 2**62 + 3, 2**63 - 1])
def test_levels_that_no_float_holds_are_refused(level: int, kind: str, name: str, tmp_path: Path) -> None:
    path = wide_mask(tmp_path / name, level, kind)
    with pytest.raises(ValueError, match=rf"level {level} is above 2\*\*53.* 32-bit .* --foreground nonzero"):
        read_mask([path])
    for foreground in ("nonzero", (level,)):
        np.testing.assert_array_equal(read_mask([path], foreground), TRUTH.T if "nii" in name else TRUTH)


@pytest.mark.parametrize("name", ["m.npy", "m.mha", "m.nrrd"])
@pytest.mark.parametrize("kind", ["i8", "u8"])
def test_levels_of_64_bits_that_a_float_holds_are_read(kind: str, name: str, tmp_path: Path) -> None:
    for level in (1, 2**32, 2**53, 2**62):
        np.testing.assert_array_equal(read_mask([wide_mask(tmp_path / name, level, kind)]), TRUTH)


@pytest.mark.parametrize("kind", ["i8", "u8"])
def test_gray_levels_of_64_bits_in_three_channels_are_read_and_colours_refused(kind: str, tmp_path: Path) -> None:
    array = np.repeat((TRUTH * np.array(2**32, kind))[..., None], 3, axis=2)
    np.save(tmp_path / "m.npy", array)
    np.testing.assert_array_equal(read_mask([tmp_path / "m.npy"]), TRUTH)
    array[..., 1] = 0
    np.save(tmp_path / "m.npy", array)
    with pytest.raises(ValueError, match="a mask in 2 colours"):
        read_mask([tmp_path / "m.npy"])


def test_many_levels_of_64_bits_are_told_as_floats() -> None:
    with pytest.raises(LevelsError, match=r"^3 levels") as error:
        levels([np.array([[0, 2**63 + 1, 2**64 - 1]], np.uint64)])
    assert error.value.levels == (0.0, 2.0**63, 2.0**64)


def wide_mask(path: Path, level: int, kind: str) -> Path:
    """Write TRUTH with this level as 64-bit integers, by the library of the format."""
    array = np.where(TRUTH, np.array(level, kind), np.array(0, kind))
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".gz":
        nibabel.save(nibabel.Nifti1Image(array[..., None], np.diag([-1, -1, 1, 1]), dtype=array.dtype), path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), path, True)
    return path


def test_named_levels_of_64_bits_are_told_from_their_neighbours() -> None:
    ids, others = (2**60 + 1,), tuple(range(-2, 60))
    array = np.array([[0, 2**60 + 1, 2**60, 2**63 + 5]], np.uint64)
    for named in (ids, (*ids, *others[2:]), (*ids, *others)):
        np.testing.assert_array_equal(binary(array, named), [[int(0 in named), 1, 0, 0]])


def test_a_mask_in_colour_of_a_type_that_opencv_lacks(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.repeat(TRUTH[..., None], 3, axis=2).astype(np.longdouble))
    np.testing.assert_array_equal(read_mask([tmp_path / "m.npy"]), TRUTH)


def test_half_is_of_the_bits_that_a_file_uses(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", TRUTH.astype(np.uint16) * 4095, bitspersample=12, photometric="minisblack")
    np.testing.assert_array_equal(read_mask([tmp_path / "m.tif"], "half"), TRUTH)
