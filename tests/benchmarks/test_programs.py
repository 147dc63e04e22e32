"""`benchmarks.labels` without a clock: bytes, rotation, contents, the check of outputs, targets, chart, peers."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import labels, measurements
from benchmarks.support import peers, refine, result, roofline
from benchmarks.support.cases import METHODS
from medsass.labels import Labeler, cuda
from medsass.labels import threshold as spec


def _row(**changes: Any) -> dict[str, Any]:
    row = {
        "by": "medsass",
        "device": "cuda",
        "method": "otsu",
        "height": 224,
        "width": 224,
        "channels": 3,
        "batch": 1024,
        "content": "uniform",
        "fused": False,
        "wrong": "",
        "microseconds": 50.0,
        "of_copy": 0.9,
        "gigabytes_per_second": 4000.0,
        "images_per_second": 2e7,
    }
    return {**row, **changes}


def _values(rows: list[dict[str, Any]]) -> list[float | None]:
    return [target.value for target in labels.targets(rows)]


def test_bytes_of_an_image() -> None:
    assert roofline.bytes_of_image(224, 224, 3, False) == 150_528 + 50_176
    assert roofline.bytes_of_image(224, 224, 1, False) == 2 * 50_176
    assert roofline.bytes_of_image(224, 224, 3, True) == 150_528 + 50_176 + 301_056


@pytest.mark.parametrize("batch", [1, 16, 64, 256, 1024, 2048, 8192])
def test_sets_of_buffers_take_four_times_the_cache(batch: int) -> None:
    case, cache = labels.Case("otsu", 224, 224, 3, batch, "uniform"), 50 << 20
    count = roofline.sets(case.bytes, cache)
    assert count == 1 or (count - 1) * case.bytes < 4 * cache <= count * case.bytes


def test_sets_of_buffers_stay_within_the_memory_allowed() -> None:
    assert roofline.sets(5 << 30, 3 << 30) == 1
    assert roofline.sets(1 << 30, 3 << 30) == 8
    assert roofline.sets(1 << 40, 1) == 1


def test_a_rotation_is_whole_turns_of_at_least_twenty_launches() -> None:
    assert roofline.rotation(1) == [0] * 20
    assert roofline.rotation(3) == [0, 1, 2] * 7
    assert roofline.rotation(1000) == list(range(1000))


def test_a_summary_is_median_and_least() -> None:
    assert roofline.Timing.of([3.0, 1.0, 2.0]) == roofline.Timing(2.0, 1.0, 3)


def test_contents_match_their_names() -> None:
    made = {name: labels.synthetic(name, (4, 100, 100), "cpu") for name in labels.SYNTHETIC}
    assert all(images.dtype == torch.uint8 and images.shape == (4, 100, 100) for images in made.values())
    assert torch.bincount(made["uniform"].flatten().int(), minlength=256).min() > 100  # 156 expected
    assert made["constant"].unique().tolist() == [100]
    assert made["two-level"].unique().tolist() == [50, 200]
    assert 0.94 < float((made["mostly-black"] == 0).double().mean()) < 0.96


def test_gray_of_a_synthetic_picture_is_its_content() -> None:
    rgb = labels.pictures(labels.Case("otsu", 24, 20, 3, 2, "uniform"), 2, Path("nowhere"), "cpu")
    gray = labels.pictures(labels.Case("otsu", 24, 20, 1, 2, "uniform"), 2, Path("nowhere"), "cpu")
    assert np.array_equal(spec.gray(rgb.numpy()), gray.numpy())


def test_real_pictures_are_tiled(tmp_path: Path) -> None:
    import cv2

    folder = tmp_path / "dsb2018/stage1_train/a/images"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), np.full((30, 40, 3), (10, 20, 30), np.uint8))  # BGR on disk's side
    images = labels.pictures(labels.Case("otsu", 24, 20, 3, 3, "real"), 3, tmp_path, "cpu")
    assert images.shape == (3, 24, 20, 3)
    assert images[2, 5, 5].tolist() == [30, 20, 10]
    assert labels.real(tmp_path / "nothing", 24, 20) is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("content", labels.SYNTHETIC)
def test_right_labels_pass_the_check_and_wrong_ones_do_not(method: str, content: str) -> None:
    case = labels.Case(method, 70, 60, 3, 2, content)
    images = labels.pictures(case, 2, Path("nowhere"), "cpu")
    out = Labeler(method)(images)
    share = 1e-3 if method == "adaptive-gaussian" else 0
    assert labels.check(case, images, out, share) == ""
    out.mask[1, :10] ^= 1
    assert f"{method} mask" in labels.check(case, images, out, share)


def test_a_wrong_threshold_and_a_poisoned_output_are_found() -> None:
    case = labels.Case("otsu", 30, 30, 3, 1, "uniform")
    images = labels.pictures(case, 1, Path("nowhere"), "cpu")
    out = Labeler()(images)
    found = cuda.Labels(out.mask, out.threshold + 1, out.separability)
    assert "otsu threshold" in labels.check(case, images, found)
    labels.poison(found)
    assert labels.check(case, images, found) != ""


def test_the_networks_input_is_checked() -> None:
    case = labels.Case("otsu", 30, 30, 3, 2, "uniform", fused=True)
    images = labels.pictures(case, 2, Path("nowhere"), "cpu")
    out = Labeler()(images, labels.NORMALISE)
    assert labels.check(case, images, out) == ""
    assert out.input is not None
    out.input[0, 0, 0, 0] = 9
    assert labels.check(case, images, out) == "image 0: the input"


def test_the_grid_covers_every_target() -> None:
    cases = labels.gpu_cases((*labels.SYNTHETIC, "real"))
    assert len(set(cases)) == len(cases)
    rows = [_row(**labels.asdict(case)) for case in cases]
    rows += [_row(by=peer.name, content="real", images_per_second=1e5) for peer in peers.ELSEWHERE["cuda"]]
    rows += [_row(by=peer.name, device="cpu", content="real", images_per_second=1e5) for peer in peers.ON_CPU]
    assert _values(rows) == [0.9, 1.0, 0.9, 0.9, 1.0, 50.0, 0.9, 200.0, 200.0, 200.0, 200.0]


def test_targets_take_the_worst_content() -> None:
    rows = [
        _row(of_copy=0.9, microseconds=50.0),
        _row(content="constant", of_copy=0.7, microseconds=60.0),
        _row(batch=16, of_copy=0.1, microseconds=9.0),
        _row(batch=16, content="constant", of_copy=0.1, microseconds=10.0),
        _row(method="ght", microseconds=55.0),
        _row(method="ght", content="constant", microseconds=63.0),
        _row(by="kornia", images_per_second=1e6),
    ]
    assert _values(rows) == [0.7, 1.2, None, None, pytest.approx(1.1), 10.0, None, None, 20.0, None, None]


def test_rows_that_are_wrong_or_of_a_cpu_meet_no_target() -> None:
    assert _values([_row(wrong="the mask"), _row(device="cpu")]) == [None] * 11


def test_plain_torch_and_cpu_peers_agree_with_the_specification() -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, 32, 48, 3), np.uint8)
    processes, plain_torch = partial(peers.opencv_processes, processes=3), partial(peers.plain_torch, device="cpu")
    for prepare in (peers.scikit_image, peers.opencv, processes, plain_torch):
        prepared = prepare(images)
        prepared.call()
        assert peers.agreement(images, prepared.masks()) == 1
        prepared.close()


def test_a_peer_that_is_absent_or_fails_says_why() -> None:
    def fail(images: peers.Images) -> peers.Prepared:
        raise RuntimeError(f"no way with {len(images)} images")

    images = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(RuntimeError, match=r"^not installed$"):
        peers.measure(peers.Peer("Absent", "no_such_module", (), 1, "RGB", fail), images, "uniform", "cpu")
    with pytest.raises(RuntimeError, match=r"^no way with 1 images$"):
        peers.measure(peers.Peer("Broken", "numpy", (), 1, "RGB", fail), images, "uniform", "cpu")


def test_the_first_set_that_data_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["line", str(tmp_path)])
    (tmp_path / "one").mkdir()
    assert result.data("line", ["one"]) == tmp_path
    expected = (
        f"benchmarks.line: {tmp_path}/two is missing; give the folder of the datasets: python -m benchmarks.line DATA"
    )
    with pytest.raises(SystemExit, match=f"^{expected}$"):
        result.data("line", ["one", "two", "three"])


@pytest.mark.parametrize("limits", [{}, {"copy_bytes_per_second": 4.2e12}])
def test_the_chart_is_drawn(tmp_path: Path, limits: dict[str, float]) -> None:
    rows = [_row(batch=n, content=c) for n in (16, 1024) for c in labels.SYNTHETIC]
    roofline.chart(rows, limits, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes()[:4] == b"\x89PNG"


def test_the_markdown_table_shows_the_largest_batch_of_the_peers_content() -> None:
    rows = [
        _row(batch=16, content="real", images_per_second=1.0),
        _row(content="real", images_per_second=1_234_567.0, of_copy=0.812),
        _row(content="constant", images_per_second=2e6),
        _row(by="kornia", given="gray", content="real", images_per_second=10_000.0, of_copy=None),
    ]
    text = measurements.labels({"h200-labels.json": {"device": "h200", "date": "2026-11-23", "rows": rows}})
    link = "[h200, 2026-11-23](../benchmarks/results/h200-labels.json)"
    assert text.splitlines()[2:] == [
        f"| medsass: otsu | 224 × 224 RGB, real | 1024 | 1,234,567 | 81% | {link} |",
        f"| kornia: otsu | 224 × 224 gray, real | 1024 | 10,000 |  | {link} |",
    ]


def _without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `on_gpu` run here: CPU tensors, calls in turn for a graph, the clock for events, `Labeler` for the kernels."""

    def label(case: labels.Case, images: torch.Tensor, out: cuda.Labels) -> None:
        made = Labeler(case.method)(images, labels.NORMALISE if case.fused else None)
        for name in ("mask", "threshold", "separability", *(["input"] if case.fused else [])):
            getattr(out, name).copy_(getattr(made, name))

    pictures, empty = labels.pictures, torch.empty
    monkeypatch.setattr(labels, "pictures", lambda case, count, data, _: pictures(case, count, data, "cpu"))
    monkeypatch.setattr(labels, "launch", label)
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **{**options, "device": "cpu"}))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(roofline, "captured", roofline.in_turn)
    monkeypatch.setattr(roofline, "device_time", roofline.host_time)
    monkeypatch.setattr(roofline, "REPEATS", 2)


@pytest.mark.parametrize("fused", [False, True])
def test_a_gpu_case_rotates_and_is_checked(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    _without_gpu(monkeypatch)
    case = labels.Case("otsu", 20, 30, 3, 2, "uniform", fused)
    row = labels.on_gpu(case, Path("nowhere"), cache=5000, copy=1e12)
    assert (row["wrong"], row["sets"], row["launches"]) == ("", (2 if fused else 5), 20)
    assert row["bytes"] == 2 * 600 * (10 if fused else 4)
    assert row["of_copy"] == pytest.approx(row["bytes"] / row["microseconds"] * 1e6 / 1e12)


def test_a_launch_that_writes_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_gpu(monkeypatch)
    monkeypatch.setattr(labels, "launch", lambda case, images, out: (case, images, out))
    row = labels.on_gpu(labels.Case("otsu", 20, 30, 3, 2, "uniform"), Path("nowhere"), cache=5000, copy=1e12)
    assert row["wrong"] == "image 0: otsu threshold -1000.0"


def test_refinements_stand_in_a_table_of_their_own() -> None:
    images = labels.pictures(labels.Case("otsu", 24, 20, 3, 2, "uniform"), 2, Path("nowhere"), "cpu")
    rows = [refine._row(text, images, "uniform") for text in ("", "border")]
    threshold = _row(content="uniform", batch=1)
    assert roofline.comparable([*rows, threshold]) == [threshold]
    assert labels.targets([row | {"device": "cuda"} for row in rows]) == labels.targets([])
    shown = refine.markdown_table({"x.json": {"device": "x", "date": "2026-01-01", "rows": [threshold, *rows]}})
    first, second = (row["microseconds"] / 2 for row in rows)
    assert [line.split("|")[1:4] for line in shown.splitlines()[2:]] == [
        [" Otsu: gray, threshold, mask ", f" {first:,.1f} ", "  "],
        [" Otsu and `border` ", f" {second:,.1f} ", f" {second - first:+,.1f} "],
    ]


def test_a_failing_check_ends_the_program_after_the_result_is_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["labels", str(tmp_path)])
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(roofline, "REPEATS", 1)
    monkeypatch.setattr(labels, "cpu_cases", lambda contents: [labels.Case("otsu", 20, 20, 3, 2, contents[0])])
    monkeypatch.setattr(labels, "check", lambda *_: "the mask")
    monkeypatch.setattr(refine, "STEPS", ("", "border"))
    monkeypatch.setattr(
        peers, "measure", lambda _, images, content, __: [_row(by="x", content=content, batch=len(images))]
    )
    monkeypatch.setattr(peers, "ELSEWHERE", {"cpu": peers.ON_CPU[:1]})
    monkeypatch.setattr(peers, "ON_CPU", ())
    with pytest.raises(SystemExit, match="1 rows differ"):
        labels.main()
    shown = capsys.readouterr()
    assert "real images: skipped" in shown.err
    saved = json.loads(shown.out.splitlines()[-1])
    assert [row["wrong"] for row in saved["rows"]] == ["the mask", "", "", ""]
    assert {target["value"] for target in saved["targets"]} == {None}
    assert sorted(path.suffix for path in (tmp_path / "results").iterdir()) == [".json", ".png"]
