"""The parts of `benchmarks.loader` that need no clock: every way's batches and labels, the same work, rows and targets."""

import colorsys
import io
import json
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

from benchmarks import loader
from benchmarks.loader import Plan
from benchmarks.support import images, loaders, result
from benchmarks.support.images import Case, Source
from benchmarks.support.loaders import Batch, Batches, Way
from medsass.data.shards import manifest

WAYS = loaders.of("cpu", 2)
OPENCV_HUE = 2  # degrees of a level


def _id(way: Way) -> str:
    return f"{way.name}, {way.cached}"


@contextmanager
def _batches(way: Way, source: Source) -> Iterator[Batches]:
    batches = way.start(source)
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


@pytest.mark.parametrize("way", WAYS[:-1], ids=_id)
def test_every_way_gives_augmented_batches_with_the_masks_of_their_own_images(way: Way, shards: Path) -> None:
    with _batches(way, Source(shards, 8)) as batches:
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
@pytest.mark.parametrize("way", loaders.of("cuda", 2)[:-2], ids=lambda way: f"{_id(way)}, {way.device}")
def test_batches_and_masks_are_where_they_are_wanted(way: Way, shards: Path) -> None:
    with _batches(way, Source(shards, 8)) as batches:
        found = [next(batches) for _ in range(3)]
    for batch in found:
        assert {batch.images.device.type, batch.masks.device.type} == {way.device}
        for image, mask in zip(batch.images.cpu().numpy(), batch.masks.cpu().numpy(), strict=True):
            gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            assert np.array_equal(mask, cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1])


@pytest.mark.parametrize("way", WAYS[2:5], ids=_id)
def test_worker_processes_end_with_their_batches(way: Way, shards: Path) -> None:
    def children() -> set[str]:
        return set(Path("/proc/self/task").joinpath(str(_main_thread()), "children").read_text().split())

    before = children()
    with _batches(way, Source(shards, 8)) as batches:
        next(batches)
        assert len(children() - before) >= 2
    assert children() <= before


def _main_thread() -> int:
    import threading

    return threading.get_native_id()


def test_decoding_alone_gives_the_stored_images_whole(shards: Path) -> None:
    source = Source(shards, 8)
    with _batches(WAYS[-1], source) as batches:
        found = [np.asarray(image) for _ in range(2) for image in next(batches).images]
    for image, stored in zip(found, images.stored(source), strict=False):
        wanted = cv2.imdecode(np.frombuffer(stored.read(), np.uint8), cv2.IMREAD_COLOR)
        assert wanted is not None
        assert np.array_equal(image[..., ::-1], wanted)
    assert len(found) == 16


def test_on_a_gpu_the_loader_runs_on_both_and_the_others_deliver_there() -> None:
    ways = loaders.of("cuda", 4)
    own = [(way.device, way.cached) for way in ways if way.name == loaders.OWN]
    assert own == [("cuda", "none"), ("cuda", "host"), ("cuda", "device"), ("cpu", "none"), ("cpu", "host")]
    others = {(way.device, way.decoder, way.processes) for way in ways if "PIL" in way.name or "OpenCV" in way.name}
    assert others == {("cuda", "cpu", 4)}
    assert [way.decoder for way in ways if way.name == loaders.DECODING] == ["cuda", "cpu"]
    assert len(set(ways)) == len(ways)


def test_what_does_not_fit_into_the_cache_is_refused(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.data.loading.memory.host", lambda: 1000)
    with pytest.raises(ValueError, match="decoded images would take"):
        next(WAYS[1].start(Source(shards, 8)))


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


def test_a_turn_measures_whole_rounds_and_ends_what_it_started() -> None:
    ended, given_out = [], []

    def start(_: Source) -> Batches:
        try:
            while True:
                given_out.append(1)
                yield Batch(torch.zeros(5), None)
        finally:
            ended.append(1)

    pace = loader.run(Way("x", "", "cpu", "cpu", (), start, processes=3), Source(Path(), 5), Plan(0.0, 0.0, 1))
    assert pace.images == 30
    assert len(given_out) == 12
    assert ended == [1]


def test_turns_alternate_and_a_way_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    started: list[str] = []

    def starts(name: str, broken: bool) -> Way:
        def start(_: Source) -> Batches:
            started.append(name)
            if broken:
                raise RuntimeError("no such thing\nand more")
            while True:
                yield Batch(torch.zeros(5), None)

        return Way(name, "", "cpu", "cpu", ("torch", "none-such"), start)

    ways = [starts("a", False), starts("b", True), starts(loaders.DECODING, False)]
    rows = loader.measure(Case("c", ""), Source(Path(), 5), ways, Plan(0.0, 0.0, 3))
    assert started == ["a", "b", loaders.DECODING, "a", loaders.DECODING, "a", loaders.DECODING]
    assert [(row["by"], row["turns"], row["images"]) for row in rows] == [("a", 3, 60), (loaders.DECODING, 3, 60)]
    assert rows[0]["of_decoding"] == pytest.approx(rows[0]["images_per_second"] / rows[1]["images_per_second"])
    assert rows[0]["versions"] == {"torch": torch.__version__.split("+")[0]}
    assert "c: b, cpu: skipped, RuntimeError: no such thing\n" in capsys.readouterr().err


def _row(case: str, by: str, speed: float, device: str = "cpu", cached: str = "none") -> dict[str, Any]:
    return {
        "case": case, "by": by, "device": device, "cached": cached, "images_per_second": speed, "least": speed * 0.9,
        "most": speed * 1.2, "of_decoding": None if cached != "none" else 0.5,
    }  # fmt: skip


ROWS = [
    _row("JPEG 256²", loaders.OWN, 9000.0, "cuda", "host"),
    _row("JPEG 256²", loaders.OWN, 6000.0, "cuda"),
    _row("JPEG 256²", loaders.OWN, 900.0, "cpu", "host"),
    _row("JPEG 256²", loaders.OWN, 500.0),
    _row("JPEG 256²", loaders.PIL, 200.0, "cuda"),
    _row("JPEG 256²", loaders.DECODING, 1000.0),
    _row("PNG 256²", loaders.OWN, 300.0),
    _row("PNG 256²", loaders.PIL, 200.0, "cuda"),
]


def test_targets_are_ratios_of_what_was_measured() -> None:
    assert [target.value for target in loader.targets(ROWS, 1500.0)] == [2.5, 1.5, None, None, 4.0]
    assert [target.value for target in loader.targets(ROWS[2:], 1500.0)] == [2.5, 1.5, None, None, None]
    assert [target.value for target in loader.targets(ROWS, None)] == [2.5, 1.5, None, None, None]


def test_the_step_consumes_what_its_ceiling_says() -> None:
    def row(way: str, model: str, batch: int, speed: float) -> dict[str, Any]:
        return {"way": way, "model": model, "batch": batch, "images_per_second": speed}

    rows = [
        row("line", "unet-resnet50", 256, 5000.0),
        row("ceiling", "unet-resnet50", 64, 2000.0),
        row("ceiling", "unet-resnet50", 256, 2500.0),
        row("ceiling", "unet-vit-small", 256, 9000.0),
        {"way": "paper run", "model": "unet-resnet50", "seconds": 80.0},
    ]
    assert loader.consumed({"rows": rows}) == 2500
    assert loader.consumed({"rows": rows[:1]}) is None
    assert loader.consumed(None) is None


def test_the_readme_table() -> None:
    text = loader.readme_table({"h200-loader.json": {"device": "h200", "date": "2026-11-24", "rows": ROWS}})
    link = "[h200, 2026-11-24](benchmarks/results/h200-loader.json)"
    lines = text.splitlines()[2:]
    assert lines[0] == f"| JPEG 256² | medsass, GPU, cached on the host | 9,000 |  | 45.0 | {link} |"
    assert lines[3] == f"| JPEG 256² | medsass, CPU | 500 | 50% | 2.5 | {link} |"
    assert lines[5] == f"| JPEG 256² | decoding alone, CPU | 1,000 |  |  | {link} |"
    assert len(lines) == len(ROWS)


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    loader.chart(ROWS, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes()[:4] == b"\x89PNG"


def test_the_whole_program(
    nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"images": "images/*.png", "masks": "masks/*.png"}
    cases = tuple(Case(name, nuclei_folder.name, {**options, "encode": name}, batch=8) for name in ("jpeg", "jpeg2000"))
    monkeypatch.setattr(loader, "CASES", cases)
    monkeypatch.setattr(loader, "PLANS", {"cpu": Plan(0.0, 0.0, 1)})
    monkeypatch.setattr(loader.peers, "cores", lambda: 2)
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["loader", str(nuclei_folder.parent)])
    loader.main()
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(row["case"], row["by"], row["cached"]) for row in saved["rows"]] == [
        (case.name, way.name, way.cached) for case in cases for way in WAYS
    ]
    assert all(row["images"] > 16 for row in saved["rows"])
    assert [target["value"] is None for target in saved["targets"]] == [False, False, True]
    assert set(saved["limits"]) == {f"decode_images_per_second, {case.name}, cpu" for case in cases}
    assert sorted(path.suffix for path in (tmp_path / "results").iterdir()) == [".json", ".png"]
