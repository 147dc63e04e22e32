"""Tiling: no seam, whatever the tiles; the answer for the whole image where that is known; bounded memory."""

import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.formats.geometry import Box
from medsass.models import unet
from medsass.runs.prediction import tiling
from medsass.runs.prediction.predict import probabilities
from tests.support.effort import examples
from tests.support.predicted import read, run_predict, save_run

seeds = st.integers(0, 2**32 - 1)
overlaps = st.floats(0, 0.95)


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def _red(images: np.ndarray) -> np.ndarray:
    """A pointwise "network": a tile's red, 0..1."""
    return np.asarray(images[..., 0] / np.float32(255), np.float32)


def _stitched(image: np.ndarray, network: tiling.Network, tile: int, overlap: float) -> np.ndarray:
    bands = tiling.bands(lambda box: image[box.slices], network, image.shape[:2], tile, overlap)
    return np.concatenate(list(bands))


@pytest.mark.parametrize(
    ("tile", "overlap", "expected"), [(512, 0.25, 384), (512, 0, 512), (10, 0.25, 8), (7, 0.5, 4), (4, 0.99, 1)]
)
def test_stride(tile: int, overlap: float, expected: int) -> None:
    assert tiling.stride(tile, overlap) == expected


@given(st.integers(1, 300), st.integers(1, 90), overlaps)
def test_the_weights_of_all_tiles_sum_to_one_at_each_pixel(length: int, tile: int, overlap: float) -> None:
    total, seen, step = np.zeros(length), np.zeros(length, int), tiling.stride(tile, overlap)
    weights = tiling.weights(length, tile, step)
    last = max(0, length - tile)
    for index, weight in enumerate(weights):
        start = min(index * step, last)
        assert weight.dtype == np.float32
        assert weight.min() > 0
        total[start : start + len(weight)] += weight
        seen[start : start + len(weight)] += 1
    assert seen.min() >= 1
    assert np.abs(total - 1).max() < 1e-6


def test_a_tile_fades_out_towards_its_edge_and_counts_alone_where_it_is_alone() -> None:
    first, second, third = tiling.weights(112, 64, 24)  # at 0, 24 and 48
    assert (first[:24] == 1).all()
    assert (third[-24:] == 1).all()
    assert first[-1] < 0.002
    assert second[0] < 0.002
    assert (np.diff(first[24:]) < 0).all()
    assert np.allclose(second, second[::-1])


@examples(50)
@given(seeds, st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.floats(0, 0.8))
def test_a_pointwise_network_gives_the_function_of_the_whole_image(
    seed: int, height: int, width: int, tile: int, overlap: float
) -> None:
    image = _image(height, width, seed)
    result = _stitched(image, _red, tile, overlap)
    assert result.dtype == np.float32
    assert result.shape == (height, width)
    assert np.abs(result - image[..., 0] / 255).max() < 2e-6


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 1.0])
def test_a_constant_answer_stays_that_constant(value: float) -> None:
    result = _stitched(_image(230, 170), lambda images: np.full(images.shape[:3], value, np.float32), 48, 0.25)
    assert np.abs(result - np.float32(value)).max() < 3e-7


def test_tiles_that_disagree_are_joined_by_a_ramp_not_by_a_step() -> None:
    answers = iter(np.linspace(0, 1, 49))

    def network(images: np.ndarray) -> np.ndarray:
        return np.stack([np.full(image.shape[:2], next(answers), np.float32) for image in images])

    result = _stitched(_image(64 + 6 * 48, 64 + 6 * 48), network, 64, 0.25)  # 7 x 7 tiles, 16 pixels in common
    for axis, between in ((0, 7 / 48), (1, 1 / 48)):  # neighbours below and beside differ by this much
        assert np.abs(np.diff(result, axis=axis)).max() < between * 0.13  # a step would be the whole of it


def test_the_bands_come_top_to_bottom_and_end_where_the_next_tiles_begin() -> None:
    image = _image(100, 60)
    bands = tiling.bands(lambda box: image[box.slices], _red, (100, 60), 32, 0.25)
    assert [band.shape for band in bands] == [(24, 60), (24, 60), (20, 60), (32, 60)]  # rows at 0, 24, 48, 68


def test_each_tile_is_read_once() -> None:
    seen: list[Box] = []
    lock = threading.Lock()

    def read(box: Box) -> np.ndarray:
        with lock:
            seen.append(box)
        return np.zeros((box.height, box.width, 3), np.uint8)

    list(tiling.bands(read, _red, (50, 70), 20, 0.5))
    expected = [(y, x) for y in (0, 10, 20, 30) for x in (0, 10, 20, 30, 40, 50)]
    assert sorted((box.y, box.x) for box in seen) == expected


def test_large_tiles_come_in_smaller_batches() -> None:
    sizes: list[int] = []

    def network(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return _red(images)

    def read(box: Box) -> np.ndarray:
        return np.zeros((box.height, box.width, 3), np.uint8)

    list(tiling.bands(read, network, (4096, 4096), 2048, 0))
    list(tiling.bands(read, network, (80, 80), 8, 0))
    assert sizes == [2, 2, 32, 32, 32, 4]


def test_a_tile_that_cannot_be_read_stops_it_with_its_reason() -> None:
    def read(box: Box) -> np.ndarray:
        if box.y == 20:
            raise ValueError("damaged tile")
        return np.zeros((box.height, box.width, 3), np.uint8)

    bands = tiling.bands(read, _red, (60, 60), 20, 0)
    with pytest.raises(ValueError, match="damaged tile"):
        list(bands)


def _gray(height: int) -> Iterator[np.ndarray]:
    """An image of 2000 pixels' width that is never whole in memory, stitched."""

    def read(box: Box) -> np.ndarray:
        rows = np.arange(box.y, box.y + box.height).astype(np.uint8)
        return np.broadcast_to(rows[:, None, None], (box.height, box.width, 3))

    return tiling.bands(read, _red, (height, 2000), 256, 0.25)


def test_memory_does_not_grow_with_the_height() -> None:
    peaks = []
    for height in (2000, 20_000):
        tracemalloc.start()
        assert sum(len(band) for band in _gray(height)) == height
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 60e6  # the image itself has 120 MB as RGB, its probability 160 MB


class Pointwise(torch.nn.Module):
    """Logits that depend on nothing but the pixel: its normalised channels, summed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.sum(1, keepdim=True)


def test_a_pointwise_torch_model_at_its_own_size_sees_no_tiles() -> None:
    image = _image(150, 130)
    result = _stitched(image, lambda images: probabilities(Pointwise(), images, 32, "cpu"), 32, 0.25)
    normal = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert np.abs(result - 1 / (1 + np.exp(-normal.sum(2)))).max() < 1e-5


def test_a_pointwise_torch_model_at_another_size_errs_by_the_resizing_alone() -> None:
    y, x = np.mgrid[:300, :260]
    smooth = (127 + 100 * np.sin(y / 31) * np.cos(x / 23))[..., None].repeat(3, 2).round().astype(np.uint8)
    result = _stitched(smooth, lambda images: probabilities(Pointwise(), images, 48, "cpu"), 96, 0.25)
    normal = (smooth / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert np.abs(result - 1 / (1 + np.exp(-normal.sum(2)))).max() < 0.06  # 1 gray level is up to 0.013


def test_a_batch_is_predicted_as_its_images_one_by_one() -> None:
    torch.manual_seed(0)
    model = unet.build("unet-resnet18").eval()
    images = np.stack([_image(40, 56, seed) for seed in range(3)])
    together = probabilities(model, images, 32, "cpu")
    assert together.shape == (3, 40, 56)
    for image, chance in zip(images, together, strict=True):
        assert np.abs(probabilities(model, image[None], 32, "cpu")[0] - chance).max() < 1e-5


@pytest.mark.parametrize(
    "name", ["TCGA-CR-7395-01A-01-TS1.svs", pytest.param("test3-DAPI-2-(387).ndpi", marks=pytest.mark.slow)]
)
def test_a_real_slide_has_no_seams(real_data: Path, tmp_path: Path, name: str) -> None:
    slide, run = real_data / "whole_slide" / name, save_run(tmp_path / "run")
    assert run_predict(run, tmp_path, slide, tile=1024, probability=True) == []
    chance = read(tmp_path / f"{slide.stem}_probability.tif").astype(int)
    with openslide.OpenSlide(slide) as reference:
        assert chance.shape == reference.dimensions[::-1]
    for axis in (0, 1):
        steps = np.abs(np.diff(chance, axis=axis)).mean(axis=1 - axis)
        edges = [edge for start in range(0, len(steps) - 1024, 768) for edge in (start - 1, start + 1023) if edge > 0]
        assert len(edges) > 5
        assert steps[edges].mean() < 1.1 * np.delete(steps, edges).mean()
