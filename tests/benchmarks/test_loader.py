"""`benchmarks.loader` without a clock: turns, rows, targets, table, chart, and the whole program on generated images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import loader
from benchmarks.loader import Plan
from benchmarks.support import loaders, result
from benchmarks.support.images import Case, Source
from benchmarks.support.loaders import Batch, Batches, Contender


def test_a_turn_measures_whole_rounds_and_closes_its_batches() -> None:
    ended, given_out = [], []

    def start(_: Source) -> Batches:
        try:
            while True:
                given_out.append(1)
                yield Batch(torch.zeros(5), None)
        finally:
            ended.append(1)

    pace = loader.run(Contender("x", "", "cpu", "cpu", (), start, processes=3), Source(Path(), 5), Plan(0.0, 0.0, 1))
    assert pace.images == 30
    assert len(given_out) == 12
    assert ended == [1]


def test_turns_alternate_and_a_way_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    started: list[str] = []

    def starts(name: str, broken: bool) -> Contender:
        def start(_: Source) -> Batches:
            started.append(name)
            if broken:
                raise RuntimeError("no such thing\nand more")
            while True:
                yield Batch(torch.zeros(5), None)

        return Contender(name, "", "cpu", "cpu", ("torch", "none-such"), start)

    contenders = [starts("a", False), starts("b", True), starts(loaders.DECODING, False)]
    rows = loader.measure(Case("c", ""), Source(Path(), 5), contenders, Plan(0.0, 0.0, 3))
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


def test_targets_are_ratios_of_measured_speeds() -> None:
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


def test_the_markdown_table() -> None:
    text = loader.markdown_table({"h200-loader.json": {"device": "h200", "date": "2026-11-24", "rows": ROWS}})
    link = "[h200, 2026-11-24](../benchmarks/results/h200-loader.json)"
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
        (case.name, contender.name, contender.cached) for case in cases for contender in loaders.contenders("cpu", 2)
    ]
    assert all(row["images"] > 16 for row in saved["rows"])
    assert [target["value"] is None for target in saved["targets"]] == [False, False, True]
    assert set(saved["limits"]) == {f"decode_images_per_second, {case.name}, cpu" for case in cases}
    assert sorted(path.suffix for path in (tmp_path / "results").iterdir()) == [".json", ".png"]
