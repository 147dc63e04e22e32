"""`benchmarks.train` and `benchmarks.scaling` without a clock: contenders, what they compute, rows, targets."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from benchmarks import measurements, scaling, train
from benchmarks.support import ablations, result, training
from benchmarks.support.ablations import UNRECORDED
from benchmarks.support.training import Contender, Running
from benchmarks.train import Case, Plan
from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch, Loader, LoaderConfig
from medsass.methods import method
from medsass.methods.segmentation import Segmentation
from medsass.runs.distributed import ALONE
from medsass.runs.training.trainer import Trainer
from tests.conftest import tiny
from tests.support import effort, forks


def _contenders(config: TrainConfig, where: str = "cpu") -> list[Contender]:
    return training.contenders(config, where) + ablations.contenders(config, where)


pytestmark = pytest.mark.usefixtures("light")
CPU = [contender.name for contender in _contenders(tiny(Path(), Path()))]


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.support.peers.cores", lambda: 1)


def _named(shards: Path, name: str) -> Contender:
    config = tiny(shards, Path("run"), batch_size=4)
    return next(contender for contender in _contenders(config) if contender.name == name)


@pytest.mark.parametrize("name", CPU)
def test_every_contender_trains_and_ends(name: str, shards: Path) -> None:
    pace = training.run(_named(shards, name), 0.1, "cpu")
    assert pace.images_per_second > 0
    assert 0 <= pace.waited <= 1
    assert pace.memory == 0


def test_the_ceiling_sees_one_batch_and_the_line_all(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []
    original = Trainer._step

    def spy(self: Trainer, parts: list[Batch]) -> Any:
        seen.append(parts[0].keys)
        return original(self, parts)

    monkeypatch.setattr(Trainer, "_step", spy)
    for name, expected in (("ceiling", 1), ("line", 8)):
        seen.clear()
        running = _named(shards, name).start()
        for _ in range(8):
            next(running.steps)
        assert len(set(seen)) == expected, name


def _prepared(config: Any, change: Any = None) -> tuple[Trainer, Batch, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    trainer = Trainer(config, method.make(config, "dark"), "cpu", ALONE)
    if change:
        change(trainer)
    batch = next(iter(Loader(LoaderConfig(config.shards, "train", 32, 4))))
    assert isinstance(trainer.method, Segmentation)
    return trainer, batch, trainer.method.prepare(batch)


@pytest.mark.parametrize("change", [ablations._channels_first, ablations._labels_on_host, ablations._labels_apart])
def test_ablations_compute_the_same(change: Any, shards: Path) -> None:
    config = tiny(shards, Path("run"), batch_size=4)
    _, _, (target, images) = _prepared(config)
    trainer, _, (found, changed) = _prepared(config, change)
    assert torch.equal(target, found)
    torch.testing.assert_close(images, changed)
    assert changed.is_contiguous() == (change is ablations._channels_first)
    weight = trainer.method.network.encoder.layers[0].weight  # type: ignore[union-attr, index]
    assert weight.is_contiguous() or change is not ablations._channels_first


def test_what_cannot_be_recorded_is_not_and_the_rest_is() -> None:
    ablated = ablations.contenders(tiny(Path(), Path()), "cuda")
    found = {contender.name: contender.start.args[0] for contender in ablated}  # type: ignore[attr-defined]
    assert {name for name, config in found.items() if not config.graphs} == {"no graphs", "neither", *UNRECORDED}
    assert {name for name, config in found.items() if not config.compile} == {"no compile", "neither"}


def test_opencvs_masks_are_of_the_dark_side() -> None:
    image = np.full((1, 8, 8, 3), 200, np.uint8)
    image[0, :, :3] = 20
    mask = training.otsu(torch.from_numpy(image))
    assert mask[0].tolist() == [[1] * 3 + [0] * 5] * 8


def test_operations_are_those_of_the_convolutions() -> None:
    side = 16
    forward = side * side * 9 * (3 * 8 + 8 * 1) * 2
    # backward: of each weight as much again, and of each input but the image
    assert training.flops("unet-resnet18", side) == forward * 2 + side * side * 9 * 8 * 2


def test_waiting_is_measured_anew_after_each_look(shards: Path) -> None:
    running: Running = _named(shards, "paper's way").start()
    next(running.steps)
    assert 0 <= running.waited() <= 1


def _row(way: str, batch: int, speed: float, **more: Any) -> dict[str, Any]:
    row = {"model": "unet-resnet50", "size": 224, "batch": batch, "way": way, "images_per_second": speed, "waited": 0.01,
           "least": speed * 0.9, "most": speed * 1.1, "of_matrix_peak": 0.4, "peak_memory": 2e9}  # fmt: skip
    return {**row, **more}


ROWS = [
    _row("line", 16, 950.0), _row("ceiling", 16, 1000.0), _row("paper's way", 16, 190.0),
    _row("line", 64, 1960.0), _row("ceiling", 64, 2000.0), _row("paper's way", 64, 490.0),
    _row("line", 256, 2600.0), _row("ceiling", 256, 2650.0),
    {"way": "paper run", "model": "unet-resnet50", "size": 224, "batch": 16, "seconds": 80.0},
]  # fmt: skip


def test_targets_take_the_worst_measured_value() -> None:
    found = [target.value for target in train.targets(ROWS, "cuda")]
    assert found == [pytest.approx(0.98), 0.95, pytest.approx(4.0), 2600.0, 80.0, None]
    small = [_row("line", 16, 40.0, model="unet-resnet18"), _row("ceiling", 16, 41.0, model="unet-resnet18")]
    assert [target.value for target in train.targets(small, "cpu")] == [None, None, None, None, None, 0.01]


def _result(name: str, rows: list[dict[str, Any]], targets: list[result.Target]) -> dict[str, Any]:
    return {"device": name, "date": "2026-11-25", "rows": rows, "targets": [asdict(target) for target in targets]}


def test_the_readme_distinguishes_measured_from_missing() -> None:
    results = {"h200-train.json": _result("h200", ROWS, train.targets(ROWS, "cuda"))}
    lines = measurements.training(results).splitlines()
    assert lines[2].startswith("| unet-resnet50 224², batch 16: line | 950.0 | 0.95 | 40% | 1.0% | 2.0 GB | [h200, ")
    assert len(lines) == 2 + 8  # the paper run has a pace of another kind
    aims = measurements.aims(results).splitlines()
    assert aims[3].startswith("| the same at the paper's batch 16 | ≥ 0.95 ratio | 0.95 ([h200, ")
    assert aims[-1].endswith("| ≤ 0.05 share | not yet measured |")


def test_small_images_make_shards_that_load(tmp_path: Path) -> None:
    folder = tmp_path / "data/isic2017/ISIC-2017_Training_Data"
    folder.mkdir(parents=True)
    for name, level in (("a", 40), ("b", 200)):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((100, 90, 3), level, np.uint8))
    scaling.write_small(tmp_path / "data", tmp_path / "small", 5)
    (batch,) = Loader(LoaderConfig(tmp_path / "small", "train", 64, 8))
    levels = batch.images.double().mean((1, 2, 3)).tolist()
    assert levels == pytest.approx([40, 200, 40, 200, 40], abs=2)
    assert batch.keys == tuple(f"{number:06d}" for number in range(5))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shards: Path, nuclei_folder: Path) -> Path:
    """A small DATA and a folder for results, for both programs."""
    for folder in ("isic2017/ISIC-2017_Training_Data", "dsb2018"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    image = cv2.imread(str(next((nuclei_folder / "images").iterdir())))
    assert image is not None
    cv2.imwrite(str(tmp_path / "data/isic2017/ISIC-2017_Training_Data/a.jpg"), image)
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["train", str(tmp_path / "data")])
    monkeypatch.setattr("medsass.data.sharding.shard.write", lambda config: config.out.symlink_to(shards))
    return tmp_path


def test_the_whole_of_train(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("unet-resnet18", 32, 4)
    monkeypatch.setattr(train, "PLANS", {"cpu": Plan((case,), case, 0.05, 1)})
    monkeypatch.setattr(training, "_MATRIX", {"cpu": (64, torch.float32)})
    train.main()
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["way"] for row in saved["rows"]] == CPU
    assert all(row["of_matrix_peak"] > 0 for row in saved["rows"])
    assert sorted(path.suffix for path in (small / "results").iterdir()) == [".json", ".png"]


def _stay_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run torchrun's command once, in a fork and with a light network, and the tasks of a pool in this process."""

    def run(line: list[str], **_: object) -> None:
        fork = forks.server().start(folder / "log", line[line.index("medsass") + 1 :], ["light"])
        assert fork.wait() == 0, fork.err

    pool = SimpleNamespace(apply=lambda function, values: function(*values))
    context = SimpleNamespace(Pool=lambda _: nullcontext(pool))
    monkeypatch.setattr(scaling, "subprocess", SimpleNamespace(run=run, DEVNULL=0))
    monkeypatch.setattr(scaling, "multiprocessing", SimpleNamespace(get_context=lambda _: context))


def test_the_whole_of_scaling(small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not effort.everything():
        _stay_here(small, monkeypatch)
    monkeypatch.setattr(scaling, "SIZES", {"cpu": ("unet-resnet18", (64, 32))})
    changes = {"SAMPLES": (300,), "PROCESSES": (2,), "_SECONDS": 0.1, "_TURNS": 1, "_EPOCHS": 1}
    for name, value in changes.items():
        monkeypatch.setattr(scaling, name, value)
    scaling.main()
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["kind"] for row in saved["rows"]] == ["processes", "dataset", "size", "size"]
    assert all(row["images_per_second"] > 0 for row in saved["rows"])
    assert len(saved["rows"][0]["train_loss"]) == 1
    table = measurements.scaled({"cpu-scaling.json": saved}).splitlines()
    assert table[2].startswith("| unet-resnet18 32², 2 processes | ")
    assert len(table) == 6
    assert (small / "results").is_dir()
