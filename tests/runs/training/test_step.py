"""One step of the optimiser: what it runs in, and on a GPU that nothing waits and that recording changes nothing."""

import contextlib
import gc
import warnings
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods import method
from medsass.methods.method import Outcome
from medsass.runs import device
from medsass.runs.distributed import ALONE
from medsass.runs.training.step import _parallel, _Recording, precision
from medsass.runs.training.trainer import Trainer
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


@pytest.mark.usefixtures("light")
def test_bf16_on_a_cpu_learns_as_float32_does(shards: Path) -> None:
    losses = []
    for name in ("fp32", "bf16"):
        trainer = _trainer(shards, "cpu", precision=name)
        for _ in trainer.steps():
            pass
        losses.append(trainer.finish_epoch()["train_loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


class _Stream:
    def wait_stream(self, _: object) -> None:
        pass


class _Graph:
    replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CUDA graphs that record nothing; of each word that is put into the list one recording fails with it."""
    failures: list[str] = []

    @contextlib.contextmanager
    def graph(*_: object, **__: object) -> Iterator[None]:
        yield
        if failures:
            raise RuntimeError(failures.pop())

    for name, value in (
        ("Stream", _Stream),
        ("current_stream", _Stream),
        ("stream", lambda _: contextlib.nullcontext()),
        ("synchronize", lambda: None),
        ("CUDAGraph", _Graph),
        ("graph", graph),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    return failures


def _batch() -> Batch:
    return Batch(torch.zeros(4, 32, 32, 3, dtype=torch.uint8))


@pytest.mark.parametrize(("failures", "recorded"), [(0, True), (2, True), (3, False), (9, False)])
def test_a_recording_that_fails_three_times_is_given_up_with_one_warning(
    failures: int, recorded: bool, pretended: list[str]
) -> None:
    pretended += ["operation not permitted when stream is capturing"] * failures
    done: list[float] = []

    def step(parts: Sequence[Batch], progress: float) -> list[Outcome]:
        done.append(progress)
        return [Outcome(parts[0].images.float().mean())]

    recording = _Recording()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number in range(12):
            assert recording(step, _batch(), number).loss == 0
    assert recording.failed is not recorded
    assert len(warned) == (not recorded)
    assert (recording._graph is not None) is recorded
    if not recorded:
        assert "not permitted when stream is capturing" in str(warned[0].message)
        assert {0, 1, 2, 6, 7, 8, 9, 10, 11} <= set(done)  # every call ran as it is


@pytest.mark.usefixtures("pretended", "light")
def test_a_recorded_step_is_freed_without_the_collector(shards: Path) -> None:
    trainer = _trainer(shards, "cpu", batch_size=4)
    trainer.step.recorded = True
    steps = trainer.steps()
    for _ in range(6):
        next(steps)
    steps.close()
    assert trainer.step._recording is not None
    held = [weakref.ref(item) for item in (trainer.step, trainer.method, trainer.step.optimizer)]
    trainer.train_loader.close()
    gc.collect()
    gc.disable()
    try:
        del trainer, steps
        assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def _losses(shards: Path, where: str, **options: object) -> list[float]:
    trainer = _trainer(shards, where, batch_size=4, **options)
    return [trainer._means._totals["loss"].item() for _ in trainer.steps()]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("options", "close"),
    [
        ({"precision": "fp32", "accumulate": 2}, 0.02),
        ({"precision": "fp32", "cache": "device"}, 0.02),
        ({"precision": "fp32", "refine": "blur:1,border,holes"}, 0.02),
        ({"precision": "bf16"}, 0.05),
        ({"precision": "fp16"}, 0.05),
    ],
    ids=str,
)
def test_a_gpu_learns_as_a_cpu_does(shards: Path, options: dict[str, object], close: float) -> None:
    on_cpu = _losses(shards, "cpu", **{**options, "precision": "fp32"})
    assert _losses(shards, "cuda", compile=False, **options) == pytest.approx(on_cpu, rel=close)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_medsass_plus_learns_on_a_gpu(shards: Path, graphs: bool) -> None:
    losses = _losses(shards, "cuda", method="medsass-plus", graphs=graphs, compile=False)
    means = [total / (number + 1) for number, total in enumerate(losses)]
    assert all(0 < mean < 1 for mean in means)
    assert means[-1] < means[0]


@pytest.mark.gpu
def test_one_process_of_several_computes_what_it_does_alone(shards: Path) -> None:
    alone = _losses(shards, "cuda", precision="fp32", graphs=False, compile=False)
    torch.distributed.init_process_group("nccl", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        trainer = _trainer(shards, "cuda", precision="fp32", graphs=False, compile=False, batch_size=4)
        trainer.step._run = _parallel(trainer.method)
        joined = [trainer._means._totals["loss"].item() for _ in trainer.steps()]
    finally:
        torch.distributed.destroy_process_group()
    assert joined == pytest.approx(alone, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "graphs", "compiled"),
    [("bf16", False, False), ("bf16", True, True), ("fp16", False, True), ("fp32", True, False)],
)
def test_no_step_waits_for_the_gpu(shards: Path, precision: str, graphs: bool, compiled: bool) -> None:
    trainer = _trainer(shards, "cuda", precision=precision, graphs=graphs, compile=compiled, batch_size=4)
    steps = trainer.steps()
    for _ in range(6):  # compile and record
        next(steps)
    trainer._check_loss = lambda: None  # type: ignore[method-assign]
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
    monkeypatch.setattr("medsass.runs.training.trainer._REPORT_EVERY", 1e9)
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
