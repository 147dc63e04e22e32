"""The contenders of `benchmarks.loader`: their batches and labels, and that all do the same work."""

import colorsys
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.support import images, loaders
from benchmarks.support.images import Case, Source
from benchmarks.support.loaders import Batches, Contender
from medsass.data.shards import manifest

CONTENDERS = loaders.contenders("cpu", 2)
OPENCV_HUE = 2  # degrees of a level


def _id(contender: Contender) -> str:
    return f"{contender.name}, {contender.cached}"


@contextmanager
def _batches(contender: Contender, source: Source) -> Iterator[Batches]:
    batches = contender.start(source)
    try:
        yield batches
    finally:
        batches.close()


def _png(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def _draws(make: Any, image: np.ndarray[Any, Any], count: int) -> list[np.ndarray[Any, Any]]:
    return [make(_png(image), 32) for _ in range(count)]


@pytest.mark.parametrize("contender", CONTENDERS[:-1], ids=_id)
def test_every_contender_gives_augmented_batches_with_the_masks_of_their_own_images(
    contender: Contender, shards: Path
) -> None:
    with _batches(contender, Source(shards, 8)) as batches:
        found = [next(batches) for _ in range(3)]
    for batch in found:
        assert (batch.images.shape, batch.images.dtype) == ((8, 224, 224, 3), torch.uint8)
        assert (batch.masks.shape, batch.masks.dtype) == ((8, 224, 224), torch.uint8)
        for image, mask in zip(batch.images.numpy(), batch.masks.numpy(), strict=True):
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            wanted = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
            assert np.array_equal(mask * 255, wanted)
            assert 0 < mask.mean() < 1
    each = [image.tobytes() for batch in found for image in batch.images.numpy()]
    assert len(set(each)) == 24


@pytest.mark.gpu
@pytest.mark.parametrize(
    "contender", loaders.contenders("cuda", 2)[:-2], ids=lambda contender: f"{_id(contender)}, {contender.device}"
)
def test_batches_and_masks_are_where_they_are_wanted(contender: Contender, shards: Path) -> None:
    with _batches(contender, Source(shards, 8)) as batches:
        found = [next(batches) for _ in range(3)]
    for batch in found:
        assert {batch.images.device.type, batch.masks.device.type} == {contender.device}
        for image, mask in zip(batch.images.cpu().numpy(), batch.masks.cpu().numpy(), strict=True):
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            assert np.array_equal(mask, cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1])


@pytest.mark.parametrize("contender", CONTENDERS[2:5], ids=_id)
def test_worker_processes_end_with_their_batches(contender: Contender, shards: Path) -> None:
    def children() -> set[str]:
        return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())

    before = children()
    with _batches(contender, Source(shards, 8)) as batches:
        next(batches)
        assert len(children() - before) >= 2
    assert children() <= before


def test_decoding_alone_gives_the_stored_images_whole(shards: Path) -> None:
    source = Source(shards, 8)
    with _batches(CONTENDERS[-1], source) as batches:
        found = [np.asarray(image) for _ in range(2) for image in next(batches).images]
    for image, stored in zip(found, images.stored(source), strict=False):
        wanted = cv2.imdecode(np.frombuffer(stored.read(), np.uint8), cv2.IMREAD_COLOR)
        assert wanted is not None
        assert np.array_equal(image[..., ::-1], wanted)
    assert len(found) == 16


def test_on_a_gpu_the_loader_runs_on_both_and_the_others_deliver_there() -> None:
    contenders = loaders.contenders("cuda", 4)
    own = [(contender.device, contender.cached) for contender in contenders if contender.name == loaders.OWN]
    assert own == [("cuda", "none"), ("cuda", "host"), ("cuda", "device"), ("cpu", "none"), ("cpu", "host")]
    others = {(c.device, c.decoder, c.processes) for c in contenders if "PIL" in c.name or "OpenCV" in c.name}
    assert others == {("cuda", "cpu", 4)}
    assert [contender.decoder for contender in contenders if contender.name == loaders.DECODING] == ["cuda", "cpu"]
    assert len(set(contenders)) == len(contenders)


def test_what_does_not_fit_into_the_cache_is_refused(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.data.loading.memory.host", lambda: 1000)
    with pytest.raises(ValueError, match="decoded images would take"):
        next(CONTENDERS[1].start(Source(shards, 8)))


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_region_lies_within_the_image_and_keeps_enough_of_each_side(height: int, width: int) -> None:
    top, left, tall, wide = loaders.region(height, width)
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert 0.6 * height - 0.5 <= tall
    assert 0.6 * width - 0.5 <= wide


@pytest.mark.parametrize("make", [loaders.with_pil, loaders.with_opencv])
def test_flips_and_crops_happen(make: Any) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32] = 200  # in one corner, which a flip moves, and of which a crop shows more or less
    drawn = _draws(make, image, 80)
    corners = {int(np.argmax([d[0, 0, 0], d[0, -1, 0], d[-1, 0, 0], d[-1, -1, 0]])) for d in drawn}
    bright = {int((d[..., 0] > 80).sum()) for d in drawn}
    assert corners == {0, 1, 2, 3}
    assert len(bright) > 10


@pytest.mark.parametrize(("make", "level"), [(loaders.with_pil, 1), (loaders.with_opencv, OPENCV_HUE)])
def test_colours_change_by_what_training_allows(make: Any, level: int) -> None:
    image = np.broadcast_to(np.uint8([180, 90, 60]), (64, 64, 3))
    was = colorsys.rgb_to_hsv(180 / 255, 90 / 255, 60 / 255)
    drawn = [d.reshape(-1, 3) for d in _draws(make, np.ascontiguousarray(image), 200)]
    assert all((d == d[0]).all() for d in drawn)
    found = np.array([colorsys.rgb_to_hsv(*(d[0] / 255)) for d in drawn])
    turned = (found[:, 0] - was[0]) * 360
    assert np.abs(turned).max() <= 6 + level + 1
    assert turned.min() < -3
    assert turned.max() > 3
    for part in (1, 2):
        ratio = found[:, part] / was[part]
        assert 0.6 < ratio.min() < 0.92
        assert 1.08 < ratio.max() < 1.5


@pytest.mark.parametrize("make", [loaders.with_pil, loaders.with_opencv])
def test_without_chance_only_the_size_changes(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "region", lambda height, width: (0, 0, height, width))
    monkeypatch.setattr(loaders, "_CHANGES", lambda image: image)
    monkeypatch.setattr(loaders.random, "choice", lambda _: None)
    monkeypatch.setattr(loaders.random, "uniform", lambda low, high: (low + high) / 2)
    image = cv2.resize(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8), (64, 64))
    wanted = cv2.resize(image, (96, 96), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(make(_png(image), 96).astype(int) - wanted).max() <= 6  # hue and saturation are rounded on the way


def test_plain_batches_for_training(shards: Path) -> None:
    batches = iter(loaders.pillow(shards, 48, 6, "cpu"))
    found = [next(batches) for _ in range(12)]  # more than an epoch
    assert {(batch.shape, batch.dtype) for batch in found} == {(torch.Size([6, 48, 48, 3]), torch.uint8)}


def test_all_images_of_the_split_are_found_and_no_mask(shards: Path) -> None:
    found = images.stored(Source(shards, 8))
    assert len(found) == manifest.load(shards).split("train").samples
    decoded = [cv2.imdecode(np.frombuffer(item.read(), np.uint8), cv2.IMREAD_UNCHANGED) for item in found]
    assert all(image is not None and len(np.unique(image)) > 2 for image in decoded)


def test_few_images_are_copied(tmp_path: Path) -> None:
    (tmp_path / "data/few").mkdir(parents=True)
    generator, originals = np.random.default_rng(2), []
    for number in range(2):
        path = tmp_path / f"data/few/{number}.jpg"
        cv2.imwrite(str(path), generator.integers(0, 256, (30, 40, 3), np.uint8))
        originals.append(path.read_bytes())
    (tmp_path / "out").mkdir()
    source = images.prepare(Case("few", "few", batch=4, copies=3), tmp_path / "data", tmp_path / "out")
    assert sorted(item.read() for item in images.stored(source)) == sorted(originals * 3)
    assert source.batch == 4
