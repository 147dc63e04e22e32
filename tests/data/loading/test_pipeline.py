"""The operators of views, measured on images whose pixel values give their own coordinates."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from medsass.data.loading.loader import Augment, Batch, Loader, LoaderConfig, View
from tests.support import built

BLUE = 200  # in the coordinate image
STILL = Augment(crop=1.0, flip=False, jitter=0.0, hue=0.0)
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)


def build(folder: Path, image: np.ndarray, count: int, depth: int = 8) -> Path:
    """Build shards that hold one image `count` times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "SIZE", image.shape[:2])
        patch.setattr(built, "sample", lambda _key, _depth: (image, np.ones(image.shape[:2], np.uint8)))
        return built.build(folder, depth, splits={"train": count})


def views(shards: Path, *chosen: View, masks: bool = False, seed: int = 0, device: str = "cpu") -> Iterator[Batch]:
    """Return the batches of an epoch."""
    first, *more = chosen
    config = LoaderConfig(shards, "train", first.size, 50, device, first.augment, masks, True, seed, threads=1)
    return iter(Loader(replace(config, more=tuple(more))))


def pixels(shards: Path, augment: Augment | None, size: int) -> np.ndarray:
    """Return the images of an epoch, (N, size, size, ...)."""
    return np.concatenate([batch.images.numpy() for batch in views(shards, View(size, augment))])


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 300 copies of an image of 192 x 256 pixels whose red is x and green is y."""
    y, x = np.mgrid[:192, :256]
    bgr = np.stack([np.full_like(x, BLUE), y, x], -1).astype(np.uint8)
    return build(tmp_path_factory.mktemp("coordinates") / "out", bgr, 300)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 100 copies of a colourful image of 112 x 112 pixels."""
    rng = np.random.default_rng(0)
    return build(tmp_path_factory.mktemp("noise") / "out", rng.integers(0, 256, (112, 112, 3), dtype=np.uint8), 100)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 30 copies of a 16-bit image of 112 x 112 pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(1000, 40000, (112, 112)).astype(np.uint16)
    return build(tmp_path_factory.mktemp("deep") / "out", image, 30, 16)


def extents(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return width and height in pixels of the region in each view of the coordinate image, negative if flipped."""
    size = images.shape[1]
    inner = slice(2, size - 2)  # at the border the resize repeats pixels
    x, y = images[:, inner, inner, 0].mean(1), images[:, inner, inner, 1].mean(2)
    steps = np.arange(size)[inner]
    return tuple(np.polyfit(steps, values.T, 1)[0] * size for values in (x, y))


def test_crops_by_area_have_torchvisions_distribution(coordinates: Path) -> None:
    area = (0.08, 1.0)
    width, height = extents(pixels(coordinates, Augment(area=area, flip=False, jitter=0, hue=0), 48))
    torch.manual_seed(0)
    image = torch.empty(3, 192, 256)
    boxes = [RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(2000)]
    _, _, h, w = np.array(boxes).T
    assert (width * height / (192 * 256)).min() > 0.07
    assert ks_2samp(width * height, w * h).pvalue > 0.01
    assert ks_2samp(np.log(width / height), np.log(w / h)).pvalue > 0.01


def test_crops_by_area_lie_anywhere_within_the_image(coordinates: Path) -> None:
    images = pixels(coordinates, Augment(area=(0.1, 0.1), flip=False, jitter=0, hue=0), 48)
    (width, height), centre = extents(images), images[:, 23:25, 23:25].mean((1, 2))
    assert np.allclose(width * height / (192 * 256), 0.1, atol=0.01)
    for values, extent, side in ((centre[:, 0], width, 256), (centre[:, 1], height, 192)):
        share = (values - extent / 2) / (side - extent)
        assert share.min() > -0.03
        assert share.max() < 1.03
        assert ks_2samp(share, np.linspace(0, 1, 1000)).pvalue > 0.01


@pytest.mark.parametrize(
    ("vertical", "expected"), [(True, {(1, 1), (1, -1), (-1, 1), (-1, -1)}), (False, {(1, 1), (-1, 1)})]
)
def test_vertical_flips_only_if_requested(vertical: bool, expected: set[tuple[int, int]], coordinates: Path) -> None:
    width, height = extents(pixels(coordinates, Augment(1.0, jitter=0, hue=0, vertical=vertical), 48))
    assert set(zip(np.sign(width).astype(int), np.sign(height).astype(int), strict=True)) == expected
    assert abs((width < 0).mean() - 0.5) < 0.1


def test_jitter_chance_0_changes_nothing_and_one_half_every_second_image(noise: Path) -> None:
    plain = pixels(noise, None, 112)
    none, half = (pixels(noise, Augment(1.0, False, 0.4, 36.0, jitter_chance=p), 112) for p in (0.0, 0.5))
    np.testing.assert_array_equal(none, plain)
    assert 30 < (half == plain).all((1, 2, 3)).sum() < 70


def test_saturation_alone_moves_colours_away_from_their_gray(noise: Path) -> None:
    plain = pixels(noise, None, 112).astype(float)
    luma = plain @ [0.299, 0.587, 0.114]
    colour = plain - luma[..., None]
    changed = pixels(noise, replace(STILL, saturation=0.5), 112) - luma[..., None]
    kept = (changed + luma[..., None] > 0) & (changed + luma[..., None] < 255)  # not clipped
    scale = (changed * colour * kept).sum((1, 2, 3)) / (colour**2 * kept).sum((1, 2, 3))
    assert np.abs(changed - scale[:, None, None, None] * colour)[kept].max() < 2
    assert ks_2samp(scale, np.linspace(0.5, 1.5, 1000)).pvalue > 0.01


def test_gray_views_have_equal_channels_and_keep_the_luma(noise: Path) -> None:
    plain = pixels(noise, None, 112).astype(int)
    all_gray, some = (pixels(noise, replace(STILL, gray=p), 112).astype(int) for p in (1.0, 0.3))
    assert np.abs(all_gray - np.round(plain @ [0.299, 0.587, 0.114])[..., None]).max() <= 1
    still = (some == plain).all((1, 2, 3))
    assert 55 < still.sum() < 85
    assert np.ptp(some[~still], axis=-1).max() <= 1


def test_gray_follows_the_jitter(noise: Path) -> None:
    images = pixels(noise, Augment(1.0, False, 0.4, 36.0, gray=1.0), 112).astype(int)
    assert np.ptp(images, axis=-1).max() <= 2  # the luma's weights are rounded by DALI
    assert len({image.sum() for image in images}) > 90


def test_solarized_views_are_inverted_from_128_up(noise: Path) -> None:
    plain = pixels(noise, None, 112)
    expected = np.where(plain >= 128, 255 - plain, plain)
    np.testing.assert_array_equal(pixels(noise, replace(STILL, solarize=1.0), 112), expected)
    some = pixels(noise, replace(STILL, solarize=0.2), 112)
    inverted, still = ((some == other).all((1, 2, 3)) for other in (expected, plain))
    assert (inverted ^ still).all()
    assert 8 < inverted.sum() < 35


def nearest_sigma(image: np.ndarray, plain: np.ndarray) -> tuple[float, float]:
    """Return the sigma of scipy's Gaussian blur of `plain` nearest to `image`, and their mean absolute difference."""

    def error(sigma: float) -> float:
        reach = {"mode": "mirror", "radius": int(np.ceil(3 * sigma)), "axes": (0, 1)}
        return float(np.abs(image - gaussian_filter(plain.astype(float), sigma, **reach)).mean())

    best = minimize_scalar(error, bounds=(0.02, 1.2), method="bounded", options={"xatol": 1e-4})
    return best.x, best.fun


def test_blurred_views_equal_scipys_with_a_sigma_in_the_range(noise: Path) -> None:
    """0.1 to 2 pixels of 224 are 0.05 to 1 of 112."""
    plain = pixels(noise, None, 112)
    found = [
        nearest_sigma(*pair) for pair in zip(pixels(noise, replace(STILL, blur=1.0), 112)[:40], plain, strict=False)
    ]
    sigmas, errors = np.array(found).T
    assert errors.max() < 0.7  # DALI rounds to whole numbers
    assert 0.9 < sigmas.max() < 1.005
    assert abs((sigmas > 0.525).mean() - 0.5) < 0.2


def test_blur_has_its_probability(noise: Path) -> None:
    plain = pixels(noise, None, 112)
    never, half = (pixels(noise, replace(STILL, blur=p, solarize=1e-9), 112) for p in (0.0, 0.5))
    np.testing.assert_array_equal(never, plain)
    assert 35 < (half == plain).all((1, 2, 3)).sum() < 75  # a blur of few tenths of a pixel changes nothing either


def homographies(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for each view of the coordinate image the map from shares of its sides to shares of the image's."""
    size = images.shape[1]
    for image in images:
        inside = cv2.erode((image[..., 2] == BLUE).astype(np.uint8), np.ones((5, 5))) > 0
        inside[:3], inside[-3:], inside[:, :3], inside[:, -3:] = False, False, False, False
        y, x = np.nonzero(inside)
        here = np.stack([x + 0.5, y + 0.5], 1) / size
        there = (image[y, x, :2] + 0.5) / (256, 192)
        matrix, _ = cv2.findHomography(here, there)
        mapped = cv2.perspectiveTransform(here[:, None], matrix)[:, 0]
        assert np.abs(mapped - there).mean() < 0.005
        yield matrix


def shown(matrix: np.ndarray) -> np.ndarray:
    """Return where the image's corners lie in the view, (4, 2), clockwise from the top left, as shares of its sides."""
    return cv2.perspectiveTransform(CORNERS[:, None], np.linalg.inv(matrix))[:, 0]


def test_a_quarter_of_warps_is_neutral_and_a_quarter_affine_within_its_ranges(coordinates: Path) -> None:
    quads = [shown(m) for m in homographies(pixels(coordinates, replace(STILL, warp=True), 96))]
    still = [quad for quad in quads if np.abs(quad - CORNERS).max() < 0.01]
    affine = [
        quad
        for quad in quads
        if np.abs(quad[0] + quad[2] - quad[1] - quad[3]).max() < 0.01 <= np.abs(quad - CORNERS).max()
    ]
    assert abs(len(still) / len(quads) - 0.25) < 0.08
    assert abs(len(affine) / len(quads) - 0.25) < 0.08
    across = np.array([quad[1] - quad[0] for quad in affine])
    shift = np.array([quad.mean(0) - 0.5 for quad in affine])
    for values, low, high in (
        (np.hypot(*across.T), 0.9, 1.1),
        (np.degrees(np.arctan2(*across.T[::-1])), -15, 15),
        (shift.ravel(), -0.1, 0.1),
    ):
        assert ks_2samp(values, np.linspace(low, high, 1000)).pvalue > 0.01
        assert low - 0.05 * (high - low) < values.min() < values.max() < high + 0.05 * (high - low)


def test_perspectives_move_corners_inwards_up_to_a_quarter(coordinates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, none in (("_DEGREES", 1e-6), ("_SHIFT", 1e-6), ("_SCALE", (1.0, 1.000001))):
        monkeypatch.setattr(f"medsass.data.loading.augment.{name}", none)
    quads = np.array([shown(m) for m in homographies(pixels(coordinates, replace(STILL, warp=True), 96))])
    inwards = (quads - CORNERS) * (1 - 2 * CORNERS)
    moved = inwards[inwards.max((1, 2)) > 0.01]
    assert abs(len(moved) / len(quads) - 0.5) < 0.08
    assert -0.01 < moved.min() < moved.max() < 0.26
    assert ks_2samp(moved.ravel(), np.linspace(0, 0.25, 1000)).pvalue > 0.01


def test_each_view_takes_jitter_or_warp_twice(coordinates: Path) -> None:
    images = pixels(coordinates, Augment(1.0, False, 0.4, 0, saturation=0.0, warp=True), 96)
    untouched = (images[..., 2] == BLUE).mean((1, 2)) > 0.3
    moved = (images[..., 2] < 30).any((1, 2))  # black from outside
    assert abs(untouched.mean() - 0.25) < 0.08
    assert abs((~moved).mean() - 0.25) < 0.08
    assert (untouched & ~moved).mean() < 0.02  # two jitters may undo each other


def test_masks_of_warped_views_are_refused(coordinates: Path) -> None:
    with pytest.raises(ValueError, match=r"masks cannot follow Augment\.warp"):
        views(coordinates, View(32, Augment(warp=True)), masks=True)


def test_16_bit_views_have_blur_and_warp_but_no_gray_or_solarisation(deep: Path) -> None:
    plain = pixels(deep, None, 112)
    np.testing.assert_array_equal(pixels(deep, Augment(1, False, 0, 36, gray=1, solarize=1), 112), plain)
    np.testing.assert_array_equal(pixels(deep, Augment(1, False, 0.4, 0, jitter_chance=0.0), 112), plain)
    blurred = pixels(deep, replace(STILL, blur=1), 112)
    assert max(nearest_sigma(a, b)[1] for a, b in zip(blurred[:10], plain, strict=False)) < 5  # of 39000
    warped = pixels(deep, replace(STILL, warp=True), 112)
    still = (warped == plain).all((1, 2))
    assert 1 <= still.sum() <= 16
    assert (warped[~still] == 0).any((1, 2)).mean() > 0.8  # an affine map may show the middle alone


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "depth"), product(("area", "warp"), (8, 16)))
def test_the_gpu_applies_the_cpus_parameters(kind: str, depth: int, noise: Path, deep: Path) -> None:
    options = {"blur": 0.5, "solarize": 0.5, "gray": 0.5, "jitter_chance": 0.5}
    augment = Augment(area=(0.3, 1.0), **options) if kind == "area" else Augment(1.0, warp=True, **options)  # type: ignore[arg-type]
    shards = noise if depth == 8 else deep
    sides = [list(views(shards, View(64, augment), View(32, augment), device=device)) for device in ("cpu", "cuda")]
    for one, other in zip(*sides, strict=True):
        for a, b in zip(one.views, other.views, strict=True):
            assert b.is_cuda
            difference = (a.int() - b.cpu().int()).abs().float()
            assert difference.median() <= (2 if depth == 8 else 200)
