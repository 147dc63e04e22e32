"""Labeler against OpenCV, the specification, and every image of the real datasets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medsass.config import LABELS
from medsass.labels import Labeler, threshold

ADAPTIVE = {"adaptive-mean": cv2.ADAPTIVE_THRESH_MEAN_C, "adaptive-gaussian": cv2.ADAPTIVE_THRESH_GAUSSIAN_C}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """(4, 48, 56, 3): noise, a smooth blob, a nearly black image and a two-level one."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :56]
    blob = (220 * np.exp(-((y - 24) ** 2 + (x - 20) ** 2) / 120) + 10)[..., None] * [1, 0.8, 0.6]
    dark = np.where(rng.random((48, 56, 1)) < 0.02, rng.integers(0, 256, (48, 56, 3)), 0)
    two = np.where(rng.random((48, 56, 1)) < 0.3, [200, 180, 90], [30, 60, 20])
    return torch.from_numpy(np.stack([rng.integers(0, 256, (48, 56, 3)), blob, dark, two]).astype(np.uint8))


def _grays(images: torch.Tensor) -> list[NDArray[np.uint8]]:
    return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images.numpy()]


def _variance_ratio(gray: NDArray[np.uint8], above: NDArray[np.bool_]) -> float:
    values = gray.astype(np.float64)
    return float(np.var(np.where(above, values[above].mean(), values[~above].mean())) / np.var(values))


def test_otsu_equals_opencv_and_has_the_documented_types(images: torch.Tensor) -> None:
    labels = Labeler("otsu", "bright")(images)
    assert (labels.mask.shape, labels.mask.dtype) == (torch.Size([4, 48, 56]), torch.uint8)
    assert (labels.threshold.shape, labels.threshold.dtype) == (torch.Size([4]), torch.float32)
    assert (labels.separability.shape, labels.separability.dtype) == (torch.Size([4]), torch.float32)
    assert set(labels.mask.unique().tolist()) == {0, 1}
    for i, gray in enumerate(_grays(images)):
        level, mask = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        assert np.array_equal(labels.mask[i], mask)
        assert labels.threshold[i] == level
        assert labels.separability[i].item() == pytest.approx(_variance_ratio(gray, mask > 0), rel=1e-6)


@pytest.mark.parametrize("parameters", [(0.0, 0.0, 0.0, 0.5), (200.0, 12.0, 40.0, 0.3)])
def test_ght_is_what_is_above_the_specifications_threshold(
    images: torch.Tensor, parameters: tuple[float, float, float, float]
) -> None:
    labels = Labeler("ght", "bright", ght=parameters)(images)
    for i, gray in enumerate(_grays(images)):
        level = threshold.ght(threshold.histogram(gray), *parameters)
        assert labels.threshold[i] == np.float32(level)
        assert np.array_equal(labels.mask[i], gray > level)


def test_ght_in_its_otsu_limit_equals_opencv_on_a_smooth_image(images: torch.Tensor) -> None:
    labels = Labeler("ght", "bright", ght=(1e60, 1e-15, 0, 0))(images[1:2])
    _, mask = cv2.threshold(_grays(images)[1], 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    assert np.array_equal(labels.mask[0], mask)


@pytest.mark.parametrize("method", sorted(ADAPTIVE))
@pytest.mark.parametrize(("block", "offset"), [(3, 0.0), (11, 2.5), (51, -4.0)])
def test_adaptive_methods_equal_opencv(images: torch.Tensor, method: str, block: int, offset: float) -> None:
    labels = Labeler(method, "bright", block_size=block, offset=offset)(images)
    for i, gray in enumerate(_grays(images)):
        above = cv2.adaptiveThreshold(gray, 1, ADAPTIVE[method], cv2.THRESH_BINARY, block, offset)
        expected = _variance_ratio(gray, above > 0) if 0 < above.sum() < above.size else 0.0
        assert np.array_equal(labels.mask[i], above)
        assert torch.isnan(labels.threshold[i])
        assert labels.separability[i].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", LABELS)
@pytest.mark.parametrize("polarity", ["bright", "dark", "auto"])
@pytest.mark.parametrize("level", [0, 17, 255])
def test_a_constant_image_has_an_empty_mask_and_separability_0(method: str, polarity: str, level: int) -> None:
    labels = Labeler(method, polarity)(torch.full((2, 8, 9, 3), level, dtype=torch.uint8))
    assert labels.mask.sum() == 0
    assert labels.separability.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("method", LABELS)
def test_dark_is_the_complement_of_bright(images: torch.Tensor, method: str) -> None:
    bright, dark = (Labeler(method, polarity)(images) for polarity in ("bright", "dark"))
    assert torch.equal(dark.mask, 1 - bright.mask)
    assert torch.equal(dark.separability, bright.separability)


@pytest.mark.parametrize("method", LABELS)
def test_gray_images_are_labelled_as_rgb_with_equal_channels(images: torch.Tensor, method: str) -> None:
    gray = images[..., 1].contiguous()
    one, three = Labeler(method)(gray), Labeler(method)(gray[..., None].repeat(1, 1, 1, 3))
    assert torch.equal(one.mask, three.mask)
    assert torch.equal(one.threshold.nan_to_num(-1), three.threshold.nan_to_num(-1))
    assert torch.equal(one.separability, three.separability)


def test_images_that_are_not_contiguous_are_labelled_by_their_values(images: torch.Tensor) -> None:
    turned = images.transpose(1, 2)
    assert torch.equal(Labeler(polarity="bright")(turned).mask, Labeler(polarity="bright")(images).mask.transpose(1, 2))


@pytest.mark.parametrize(
    ("images", "seen"),
    [
        (torch.zeros(1, 4, 4, 3), "torch.float32"),
        (torch.zeros(1, 4, 4, dtype=torch.int16), "torch.int16"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "(1, 3, 4, 4)"),
        (torch.zeros(4, 4, dtype=torch.uint8), "(4, 4)"),
        (torch.zeros(1, 4, 4, 4, dtype=torch.uint8), "(1, 4, 4, 4)"),
        (torch.zeros(256, 256, 3, dtype=torch.uint8), "images[None]; got (256, 256, 3)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint16), "images[None]"),
        (np.zeros((1, 4, 4, 3), np.uint8), "got ndarray; convert an array with torch.from_numpy"),
        (torch.zeros(0, 4, 4, 3, dtype=torch.uint8), "(0, 4, 4, 3)"),
        (torch.zeros(2, 0, 4, dtype=torch.uint8), "(2, 0, 4)"),
    ],
)
def test_other_arrays_are_refused_with_what_was_seen(images: Any, seen: str) -> None:
    with pytest.raises(ValueError, match="images must") as error:
        Labeler()(images)
    assert seen in str(error.value)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"method": "otsus"}, "'otsus'"),
        ({"polarity": "grey"}, "'grey'"),
        ({"block_size": 10}, "got 10"),
        ({"block_size": 1}, "got 1"),
        *(
            ({"ght": ght}, "four numbers")
            for ght in ((1.0, 2.0), (0, 0, 0, 1.5), (-1.0, 0, 0, 0.5), (float("nan"), 0, 0, 0.5))
        ),
    ],
)
def test_other_options_are_refused_with_the_value_seen(options: dict[str, object], seen: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        Labeler(**options)  # type: ignore[arg-type]
    assert seen in str(error.value)


def test_importing_the_labeler_pulls_in_no_dali_and_no_model() -> None:
    program = "import sys; from medsass.labels import Labeler; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "medsass.labels.labeler" in loaded
    forbidden = ("nvidia.dali", "segmentation_models_pytorch", "medsass.models", "medsass.data", "timm")
    assert not [name for name in loaded if name.startswith(forbidden)]


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        ("isic2017/ISIC-2017_*_Data/*.jpg", 2150),
        ("dsb2018/stage1_train/*/images/*.png", 541),
        ("covid19_radiography/*/Viral Pneumonia/images/*.png", 600),
        ("bitdepth_nucseg/images/*.tif", 70),
    ],
)
def test_otsu_equals_opencv_on_every_real_image(real_data: Path, pattern: str, least: int) -> None:
    paths, label, differ = sorted(real_data.glob(pattern)), Labeler("otsu", "bright"), []
    for path in paths:
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        _, mask = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        expected = mask if gray.min() != gray.max() else np.zeros_like(mask)
        if not np.array_equal(label(torch.from_numpy(gray)[None]).mask[0], expected):
            differ.append(path.name)
    assert len(paths) >= least
    assert differ == []
