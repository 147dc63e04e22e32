"""The field of view: found where there is one, and nothing where the dark is the picture's own background."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import Labeler, morphology, vignette
from tests.support.effort import examples
from tests.support.masks import blobs

Gray = NDArray[np.uint8]


def dermoscope(side: int = 96, seed: int = 0) -> tuple[Gray, Gray]:
    """(side, side) uint8 skin with a lesion, black outside of a disk, and the disk's outside as {0, 1}."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) - side / 2
    skin = 160 + rng.normal(0, 6, (side, side)) - 70 * (np.hypot(y - 5, x + 8) < side / 6)
    corner = np.hypot(y, x) > 0.56 * side
    return np.where(corner, rng.integers(0, 12, (side, side)), skin).astype(np.uint8), corner.astype(np.uint8)


def nuclei(side: int = 96, count: int = 12, seed: int = 0) -> Gray:
    """(side, side) uint8 bright disks on a black ground."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    near = [np.hypot(y - rng.integers(side), x - rng.integers(side)) < rng.uniform(4, 9) for _ in range(count)]
    return np.where(np.any(near, 0), 150, rng.integers(0, 9, (side, side))).astype(np.uint8)


def outside(gray: Gray, margin: int = 0) -> Gray:
    result: Gray = vignette.outside(torch.from_numpy(gray)[None], margin)[0].numpy()
    return result


def _stated(gray: Gray) -> Gray:
    """The docstring of `vignette.outside`, pixel by pixel."""
    dark = gray <= int(gray.sum()) // (vignette.DARK * gray.size)
    found = np.zeros(gray.shape, bool)
    for y, x in np.ndindex(gray.shape):
        ways = (dark[y, : x + 1], dark[y, x:], dark[: y + 1, x], dark[y:, x])
        found[y, x] = any(way.all() for way in ways)
    few = found.sum() * vignette.MOST <= gray.size and (dark & ~found).sum() * vignette.STRAY <= dark.sum()
    return (found & (few and found[[0, 0, -1, -1], [0, -1, 0, -1]].any())).astype(np.uint8)


def test_dark_corners_are_found_to_the_pixel() -> None:
    gray, corners = dermoscope()
    assert np.array_equal(outside(gray), corners)


def test_the_margin_is_a_disk_around_what_is_found() -> None:
    gray, corners = dermoscope()
    assert np.array_equal(outside(gray, 3), cv2.dilate(corners, morphology.disk(3)))


def test_collimator_margins_are_found_with_a_letter_in_them() -> None:
    gray = np.random.default_rng(0).integers(90, 200, (80, 100)).astype(np.uint8)
    margins = np.zeros_like(gray)
    margins[:, :14] = margins[:, 90:] = margins[:6] = 1
    gray[margins > 0] = 3
    gray[30:36, 4:9] = 255
    margins[30:36, 4:9] = 0
    assert np.array_equal(outside(gray), margins)


@pytest.mark.parametrize("count", [1, 4, 12, 40])
@pytest.mark.parametrize("seed", range(5))
def test_the_black_ground_of_nuclei_is_not_outside(count: int, seed: int) -> None:
    assert not outside(nuclei(count=count, seed=seed)).any()


def test_a_dark_lesion_at_the_border_that_reaches_no_corner_is_not_outside() -> None:
    gray = np.full((60, 60), 180, np.uint8)
    gray[20:40, :15] = 20
    assert not outside(gray).any()
    gray[:40, :15] = 20
    assert outside(gray).any()


@examples(80)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1))
def test_every_image_is_as_stated(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gray = rng.integers(60, 256, (height, width)).astype(np.uint8)
    gray[blobs((height, width), seed) > 0] = rng.integers(0, 20)
    gray[: rng.integers(0, 4), :] = gray[:, : rng.integers(0, 4)] = 0
    assert np.array_equal(outside(gray), _stated(gray))


@examples(60)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_levels_that_fill_in_are_taken_evenly_from_the_others(height: int, width: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 256, (height, width)).astype(np.uint8)
    out = rng.random((height, width)) < share
    out[0, 0] = False
    result = vignette.filled(torch.from_numpy(gray)[None], torch.from_numpy(out.astype(np.uint8))[None])[0].numpy()
    others, count = gray[~out], int(out.sum())
    assert np.array_equal(result[~out], others)
    assert np.array_equal(result[out], others[np.arange(count) * others.size // max(1, count)])


def test_the_threshold_is_that_of_the_field_of_view() -> None:
    gray, corners = dermoscope(224)
    labels = Labeler("otsu", "dark", refine="vignette")(torch.from_numpy(gray)[None])
    inside = gray[morphology.dilated(torch.from_numpy(corners)[None], 4)[0].numpy() == 0]
    level, _ = cv2.threshold(inside, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    assert abs(labels.threshold.item() - level) <= 1
    assert (Labeler("otsu", "dark")(torch.from_numpy(gray)[None]).mask[0].numpy() & corners).any()
    assert not (labels.mask[0].numpy() & corners).any()
    assert labels.mask[0, 117, 104] == 1


def _grays(folder: Path, pattern: str, step: int) -> torch.Tensor:
    read = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob(pattern))[::step]]
    assert len(read) > 20
    return torch.from_numpy(np.stack([cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA) for image in read]))


def test_real_microscopy_has_hardly_ever_a_vignette_and_most_x_rays_have_margins(real_data: Path) -> None:
    dapi = vignette.outside(_grays(real_data, "bitdepth_nucseg/images/*.tif", 1), 0).flatten(1).any(1).float()
    xray = _grays(real_data, "covid19_radiography/*/Viral Pneumonia/images/*.png", 10)
    assert dapi.mean() <= 0.1
    assert vignette.outside(xray, 0).flatten(1).any(1).float().mean() >= 0.7


def test_what_is_outside_of_real_dermoscopes_is_no_lesion(real_data: Path) -> None:
    paths = sorted(real_data.glob("isic2017/ISIC-2017_Validation_Data/*.jpg"))[::6]
    found = lesion = lost = 0
    for path in paths:
        gray = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (224, 224), interpolation=cv2.INTER_AREA)
        truth = path.parents[1] / "ISIC-2017_Validation_Part1_GroundTruth" / f"{path.stem}_segmentation.png"
        if not truth.exists():
            continue
        mask = cv2.resize(cv2.imread(str(truth), cv2.IMREAD_GRAYSCALE), (224, 224), interpolation=cv2.INTER_AREA) > 127
        out = outside(gray, 4) > 0
        found, lesion, lost = found + int(out.any()), lesion + int(mask.sum()), lost + int((mask & out).sum())
    assert found >= len(paths) // 10
    assert lost <= 0.002 * lesion


@pytest.mark.gpu
def test_gpu_fields_of_view_equal_those_of_the_cpu() -> None:
    grays = [dermoscope(seed=1)[0], nuclei(seed=1), np.zeros((96, 96), np.uint8), np.full((96, 96), 90, np.uint8)]
    batch = torch.from_numpy(np.stack(grays))
    expected = vignette.outside(batch, 2)
    found = vignette.outside(batch.cuda(), 2)
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(vignette.filled(batch.cuda(), found).cpu(), vignette.filled(batch, expected))
