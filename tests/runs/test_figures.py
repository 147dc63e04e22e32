"""The pictures: their size, and what they draw."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from medsass.runs import figures


def _draw(path: Path, rows: list[list[figures.Tile]], heads: tuple[str, ...] = ()) -> np.ndarray:
    figures.sheet(rows, path, heads)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_a_long_head_goes_on_in_another_line_and_into_no_other_column(tmp_path: Path) -> None:
    tile = np.zeros((8, 8), np.uint8)
    text = "otsu dark darkest,vignette,blur:3,border,open:3,largest:2"
    one = _draw(tmp_path / "one.png", [[(tile, "")] * 2], ("a", ""))
    long = _draw(tmp_path / "long.png", [[(tile, "")] * 2], (text, ""))
    more = len(long) - len(one)
    assert more > 0
    assert more % figures._CAPTION == 0
    right = figures._GAP + figures._TILE
    top = figures._CAPTION * (1 + more // figures._CAPTION)
    assert (long[:top, :right] < 200).any()
    assert (long[:top, right + figures._GAP :] == 255).all()
    assert "".join(figures._wrapped(text, figures.ImageFont.load_default(12))) == text


@pytest.mark.parametrize("heads", [(), ("a", "b", "c")])
def test_a_sheet_has_a_place_for_each_tile(tmp_path: Path, heads: tuple[str, ...]) -> None:
    tile = (np.full((10, 10, 3), 9, np.uint8), "x")
    picture = _draw(tmp_path / "a.png", [[tile] * 3, [tile] * 2], heads)
    tile_side, gap, caption = 160, 6, 18
    height = gap + 2 * (tile_side + caption + gap) + (caption if heads else 0)
    assert picture.shape == (height, gap + 3 * (tile_side + gap), 3)


def test_a_tile_keeps_its_colours(tmp_path: Path) -> None:
    picture = _draw(tmp_path / "a.png", [[(np.full((10, 10, 3), (10, 200, 90), np.uint8), "")]])
    assert (picture == (10, 200, 90)).all(-1).sum() == 160 * 160


def test_a_mask_is_drawn_black_and_white(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :4] = 1
    picture = _draw(tmp_path / "a.png", [[(mask, "")]])
    assert (picture == 0).all(-1).sum() == 160 * 120
    assert set(np.unique(picture)) == {0, 255}


def test_a_tile_keeps_its_aspect_ratio(tmp_path: Path) -> None:
    picture = _draw(tmp_path / "a.png", [[(np.full((20, 40, 3), 200, np.uint8), "")]])
    assert (picture == 200).all(-1).sum() == 160 * 80


def test_a_long_caption_stays_below_its_tile(tmp_path: Path) -> None:
    picture = _draw(tmp_path / "a.png", [[(np.full((8, 8, 3), 7, np.uint8), "m" * 300)]])
    below = picture[6 + 160 :]
    assert below.min() < 128
    assert (below[:, 6 + 160 + 1 :] == 255).all()


def _disc() -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 100, (120, 150, 3)).astype(np.uint8)
    return image, cv2.circle(np.zeros((120, 150), np.uint8), (70, 60), 30, 1, -1)


def test_an_outline_is_drawn_only_near_the_masks_border() -> None:
    image, mask = _disc()
    changed = (figures.outlined(image, mask) != image).any(-1)
    inner = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    border = (mask > 0) & (inner == 0)
    near = cv2.dilate(border.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert changed[border].mean() > 0.95
    assert not changed[~near].any()


def test_outlining_leaves_its_input_as_it_is() -> None:
    image, mask = _disc()
    before = image.copy()
    figures.outlined(image, mask)
    assert np.array_equal(image, before)


def test_an_empty_mask_has_no_outline() -> None:
    image, mask = _disc()
    assert np.array_equal(figures.outlined(image, np.zeros_like(mask)), image)


def test_an_image_that_cannot_be_written_to_can_be_outlined() -> None:
    image, mask = _disc()
    image.setflags(write=False)
    assert (figures.outlined(image, mask) != image).any()


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("quality", ["val_iou_target", "train_feature_std"])
def test_a_curve_is_a_readable_picture(tmp_path: Path, epochs: int, quality: str) -> None:
    history = [{"epoch": i + 1, "train_loss": 1 / (i + 1), "val_loss": 0.5, quality: 0.1 * i} for i in range(epochs)]
    figures.curve(history, 1, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (960, 384)
        assert np.asarray(image.convert("L")).min() < 128


def _deep() -> np.ndarray:
    """(40, 40) uint16 that uses a tenth of its range: 300 on the left, 6300 on the right."""
    return np.where(np.arange(40) < 20, 300, 6300).astype(np.uint16) * np.ones((40, 1), np.uint16)


def test_a_16_bit_image_is_drawn_over_its_own_range(tmp_path: Path) -> None:
    picture = _draw(tmp_path / "a.png", [[(_deep(), "")]])[6:166, 6:166]
    assert (picture[:, :70] == 0).all()
    assert (picture[:, 90:] == 255).all()


def test_a_16_bit_image_is_no_mask_however_dark(tmp_path: Path) -> None:
    picture = _draw(tmp_path / "a.png", [[(np.full((40, 40), 1, np.uint16), "")]])[6:166, 6:166]
    assert (picture == 0).all()


def test_shallow_equals_the_linear_map() -> None:
    image = np.random.default_rng(0).integers(200, 9000, (30, 50)).astype(np.uint16)
    expected = np.round(np.interp(image, (image.min(), image.max()), (0, 255)))
    assert np.array_equal(figures.shallow(image), expected)
    assert figures.shallow(np.full((3, 3), 65535, np.uint16)).max() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_images_can_be_outlined(dtype: type) -> None:
    mask = cv2.circle(np.zeros((40, 40), np.uint8), (20, 20), 8, 1, -1)
    gray = _deep() if dtype is np.uint16 else np.full((40, 40), 9, np.uint8)
    result = figures.outlined(gray, mask)
    assert result.dtype == np.uint8
    assert result.shape == (40, 40, 3)
    coloured = (result[..., 0] != result[..., 2]) & (mask > 0)
    assert coloured.sum() > 30
    assert (result[0, 0] == (0 if dtype is np.uint16 else 9)).all()
