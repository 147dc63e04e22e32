"""Cached images against those decoded in each epoch, and the notes about memory."""

import gc
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.loading import cache, memory, pipeline
from medsass.data.loading.cache import Cache
from medsass.data.loading.loader import Augment, Batch, Loader, LoaderConfig, View
from medsass.data.loading.pipeline import PipelineConfig
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from medsass.data.shards.manifest import Split
from tests.support import built
from tests.support.loaded import assert_same

BYOL = Augment(area=(0.2, 1.0), jitter=0.4, hue=36.0, jitter_chance=0.8, gray=0.2, blur=0.5, solarize=0.2)
PIPELINE = PipelineConfig((View(32),), 8, False, "cpu", 1, 4)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 8-bit images of many sizes, JPEG and PNG, with masks."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(30):
        size = int(rng.integers(30, 80)), int(rng.integers(30, 80))
        small = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        image = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)
        mask = ((image[..., 1] > 120) * 255).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.{'jpg' if number % 2 else 'png'}"), image)
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    out = tmp_path_factory.mktemp("colour_shards") / "out"
    shard.write(ShardConfig(folder, out, images="images/*", masks="masks/*", max_shard_bytes=60_000))
    return out


def config(shards: Path, **changes: object) -> LoaderConfig:
    return LoaderConfig(shards, **{"split": "train", "size": 24, "batch_size": 7, "threads": 2, **changes})  # type: ignore[arg-type]


def epochs(chosen: LoaderConfig) -> list[Batch]:
    loader = Loader(chosen)
    return [*loader, *loader]


def assert_epochs(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert_same(a, b)


OPTIONS = [
    {},
    {"augment": Augment()},
    {"masks": True, "info": True},
    {"augment": Augment(), "masks": True, "info": True},
    {"augment": BYOL, "more": (View(16, replace(BYOL, warp=True)), View(20))},
    {"augment": BYOL, "fraction": 0.4, "rank": 1, "world": 2, "micro_batches": 2, "batch_size": 8},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_cached_batches_equal_the_decoded_ones(options: dict[str, object], colours: Path) -> None:
    chosen = config(colours, **options)
    assert_epochs(epochs(chosen), epochs(replace(chosen, cache="host")))


@pytest.mark.parametrize("options", OPTIONS)
def test_16_bit_batches_too(options: dict[str, object], tmp_path: Path) -> None:
    chosen = config(built.build(tmp_path / "deep", 16), **options)
    assert_epochs(epochs(chosen), epochs(replace(chosen, cache="host")))


def test_the_device_cache_of_a_cpu_loader_is_on_the_host(colours: Path) -> None:
    chosen = config(colours, augment=Augment())
    loader = Loader(replace(chosen, cache="device"))
    assert "of the host's memory" in loader.cache_note
    assert_epochs(epochs(chosen), [*loader, *loader])


def test_each_image_is_decoded_once(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []
    original = pipeline.decoded

    def watch(chosen: PipelineConfig, source: pipeline.Source) -> list[object]:
        kinds.append(chosen.cached)
        return original(chosen, source)

    monkeypatch.setattr(pipeline, "decoded", watch)
    loader = Loader(config(colours, augment=Augment(), cache="host"))
    for _ in range(3):
        list(loader)
    list(loader.epoch(9))
    assert kinds == ["", "host"]  # one pipeline decodes all, the next nothing


def decoded_bytes(shards: Path, split: str, masks: bool) -> int:
    """Return the bytes of the pixels in the tar files, by Pillow."""
    total = 0
    for path in shards.glob(f"{split}-*.tar"):
        with tarfile.open(path) as opened:
            for member in opened:
                if member.name.endswith("json"):
                    continue
                with Image.open(io.BytesIO(opened.extractfile(member).read())) as image:  # type: ignore[union-attr]
                    is_mask = member.name.endswith("mask.png")
                    total += image.width * image.height * (int(masks) if is_mask else 3)
    return total


@pytest.mark.parametrize("masks", [False, True])
def test_the_bytes_are_known_in_advance(masks: bool, colours: Path) -> None:
    split = manifest.load(colours).split("train")
    expected = decoded_bytes(colours, "train", masks)
    assert cache.decoded_bytes(split, split.samples, replace(PIPELINE, masks=masks)) == expected
    assert f"take {expected / 1e6:.1f} MB of" in Loader(config(colours, masks=masks, cache="host")).cache_note


def test_bytes_of_a_subset_are_those_of_the_largest_images() -> None:
    split = Split(samples=10, sizes={"10x20": 4, "30x10": 5, "100x1": 1})
    assert cache.decoded_bytes(split, 10, PIPELINE) == 3 * (4 * 200 + 5 * 300 + 100)
    assert cache.decoded_bytes(split, 6, PIPELINE) == 3 * (5 * 300 + 200)
    assert cache.decoded_bytes(split, 10, replace(PIPELINE, depth=16)) == 2 * (4 * 200 + 5 * 300 + 100)
    assert cache.decoded_bytes(split, 10, replace(PIPELINE, depth=16, masks=True)) == 3 * (4 * 200 + 5 * 300 + 100)


SPLIT = Split(samples=1000, sizes={"1000x1000": 1000})  # 3 GB


@pytest.mark.parametrize(
    ("free", "world", "where", "note"),
    [
        (6_000_000_000, 1, "host", "decoded images take 3.0 GB of the host's memory, of which 6.0 GB are free"),
        (5_999_999_999, 1, "", "decoded images would take 3.0 GB of the host's memory, of which 6.0 GB are free: more "
         "than half; images are decoded again in each epoch (--cache host is not used)"),
        (400_000_000, 1, "", "decoded images would take 3.0 GB of the host's memory, of which 400.0 MB are free: more "
         "than half; images are decoded again in each epoch (--cache host is not used)"),
        (24_000_000_000, 4, "host", "decoded images take 12.0 GB of the host's memory, of which 24.0 GB are free "
         "(4 processes)"),
        (23_000_000_000, 4, "", "decoded images would take 12.0 GB of the host's memory, of which 23.0 GB are free: "
         "more than half; images are decoded again in each epoch (--cache host is not used)"),
    ],
)  # fmt: skip
def test_at_most_half_is_taken(free: int, world: int, where: str, note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(memory, "host", lambda: free)
    plan = cache.plan("host", SPLIT, 1000, PIPELINE, world)
    assert (plan.where, plan.note) == (where, note)


def test_the_memory_of_a_gpu_belongs_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device", lambda: 7_000_000_000)
    plan = cache.plan("device", SPLIT, 1000, replace(PIPELINE, device="cuda"), 8)
    said = "decoded images take 3.0 GB of the GPU's memory, of which 7.0 GB are free"
    assert (plan.where, plan.note, plan.needed) == ("device", said, 3_000_000_000)
    monkeypatch.setattr(memory, "device", lambda: 5_000_000_000)
    plan = cache.plan("device", SPLIT, 1000, replace(PIPELINE, device="cuda"), 8)
    assert plan.where == ""
    assert "(--cache device is not used)" in plan.note


def test_memory_promised_to_another_cache_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(memory, "host", lambda: 8_000_000_000)
    first = Cache(PIPELINE, "host", 3_000_000_000)
    assert cache.plan("host", SPLIT, 1000, PIPELINE, 1).where == ""
    first.filled = True  # now the kernel counts it
    assert cache.plan("host", SPLIT, 1000, PIPELINE, 1).where == "host"
    first.filled = False
    del first
    gc.collect()
    assert cache.plan("host", SPLIT, 1000, PIPELINE, 1).where == "host"


def test_without_enough_memory_batches_are_decoded(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = config(colours, augment=Augment())
    monkeypatch.setattr(memory, "host", lambda: 1000)
    loader = Loader(replace(chosen, cache="host"))
    assert "--cache host is not used" in loader.cache_note
    assert_epochs(epochs(chosen), [*loader, *loader])


def test_without_a_cache_there_is_no_note(colours: Path) -> None:
    assert Loader(config(colours)).cache_note == ""


def test_a_sample_that_cannot_be_decoded_is_named_when_the_cache_is_filled(tmp_path: Path) -> None:
    folder = built.build(tmp_path / "bad")
    path = folder / "train-000001.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"train_013.png") + 512
    data[at + 40 : at + 80] = bytes(40)
    path.write_bytes(data)
    loader = Loader(config(folder, cache="host"))
    said = (
        rf"^{path}: sample train_013: the training decoder \(DALI\) cannot read it: .*; run: medsass verify {folder}$"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=said):
            next(iter(loader))


def test_sizes_equal_those_in_the_json(colours: Path) -> None:
    loader = Loader(config(colours, cache="host"))
    keys = [key for batch in loader for key in batch.keys]
    cached = loader._cache
    assert cached
    stated = {}
    for path in colours.glob("train-*.tar"):
        with tarfile.open(path) as opened:
            for member in opened:
                if member.name.endswith(".json"):
                    table = json.loads(opened.extractfile(member).read())  # type: ignore[union-attr]
                    stated[table["key"]] = [table["height"], table["width"]]
    assert cached.sizes.tolist() == [stated[key] for key in keys]


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("options", OPTIONS)
def test_gpu_batches_from_the_cache_equal_decoded_ones(where: str, options: dict[str, object], colours: Path) -> None:
    chosen = config(colours, device="cuda", **options)
    for a, b in zip(epochs(chosen), epochs(replace(chosen, cache=where)), strict=True):
        assert a.keys == b.keys
        for x, y in zip(a.views, b.views, strict=True):
            assert y.is_cuda
            assert torch.equal(x.int(), y.int())
        assert a.masks is None or (a.masks != b.masks).float().mean() < 0.01  # type: ignore[union-attr]
