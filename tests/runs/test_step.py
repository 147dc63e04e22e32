"""One step of the optimiser: what it runs in, and on a GPU that nothing waits and that recording changes nothing."""

from pathlib import Path

import pytest
import torch

from medsass.config import TrainConfig
from medsass.methods import method
from medsass.runs import device
from medsass.runs.ranks import ALONE
from medsass.runs.step import precision
from medsass.runs.trainer import Trainer
from tests.conftest import tiny


def _config(**options: object) -> TrainConfig:
    return tiny(Path("shards"), Path("run"), **options)


def test_a_cpu_computes_in_float32_unless_asked() -> None:
    assert precision(_config(), "cpu") == "fp32"
    assert precision(_config(precision="bf16"), "cpu") == "bf16"
    with pytest.raises(ValueError, match="--precision fp16 is for GPUs"):
        precision(_config(precision="fp16"), "cpu")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_gpu_computes_in_what_it_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert precision(_config(), "cuda") == expected
    assert precision(_config(precision="fp32"), "cuda") == "fp32"


def _trainer(shards: Path, where: str, **options: object) -> Trainer:
    config = tiny(shards, Path("run"), device=where, **options)
    device.seed(0, where)
    return Trainer(config, method.make(config, "bright"), where, ALONE)


def test_bf16_on_a_cpu_learns_as_float32_does(shards: Path) -> None:
    losses = []
    for name in ("fp32", "bf16"):
        trainer = _trainer(shards, "cpu", precision=name)
        for _ in trainer.steps():
            pass
        losses.append(trainer.finish_epoch()["train_loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_no_step_waits_for_the_gpu(shards: Path, precision: str, graphs: bool, compiled: bool) -> None:
    trainer = _trainer(shards, "cuda", precision=precision, graphs=graphs, compile=compiled, batch_size=4)
    steps = trainer.steps()
    for _ in range(6):  # compile and record
        next(steps)
    trainer._look = lambda: None  # type: ignore[method-assign]
    try:
        torch.cuda.set_sync_debug_mode("error")
        parts = [next(iter(trainer.train_loader.epoch(0)))]
        for _ in range(3):
            trainer._step(parts)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_the_loop_between_two_looks_does_not_wait(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(shards, "cuda", batch_size=4)
    monkeypatch.setattr("medsass.runs.trainer._REPORT_EVERY", 1e9)
    for _ in trainer.steps():
        pass
    trainer.finish_epoch()
    steps = trainer.steps()
    next(steps)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(trainer.steps_an_epoch - 2):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_recorded_and_compiled_steps_compute_what_plain_ones_do(shards: Path) -> None:
    curves = []
    for graphs, compiled in [(False, False), (True, False), (True, True)]:
        trainer = _trainer(shards, "cuda", graphs=graphs, compile=compiled, precision="fp32", batch_size=4)
        losses = []
        for _ in trainer.steps():
            losses.append(trainer._means._totals["loss"].item())
        curves.append(losses)
    assert curves[1] == pytest.approx(curves[0], rel=2e-2)
    assert curves[2] == pytest.approx(curves[0], rel=2e-2)


@pytest.mark.gpu
def test_the_learning_rate_reaches_a_recorded_step(shards: Path) -> None:
    trainer = _trainer(shards, "cuda", batch_size=4, warmup=0.0)
    for number, _ in enumerate(trainer.steps()):
        rate = trainer.step.optimizer.param_groups[0]["lr"]
        assert isinstance(rate, torch.Tensor)
        assert rate.is_cuda
        if number == 5:
            break
    trainer.regime = type(trainer.regime)(lr=0.0, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in trainer.method.named_parameters()}
    trainer._step([next(iter(trainer.train_loader.epoch(0)))])
    for name, p in trainer.method.named_parameters():
        assert torch.equal(before[name], p), name


@pytest.mark.gpu
def test_a_run_resumes_on_a_gpu(shards: Path, tmp_path: Path) -> None:
    trainer = _trainer(shards, "cuda", batch_size=8)
    next(trainer.steps())
    torch.save(trainer.state(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True)
    config = trainer.config
    resumed = Trainer(config, method.make(config, "bright"), "cuda", ALONE)
    resumed.load(saved)
    assert sum(1 for _ in resumed.steps()) == trainer.steps_an_epoch - 1
