"""Tasks side by side: their number, and failures that end all at once."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from medsass.runs.experiment import workers
from medsass.runs.experiment.workers import Workers


@pytest.mark.parametrize(
    ("free", "peak", "fit"),
    [(80 << 30, 4 << 30, 4), (24 << 30, 6 << 30, 2), (12 << 30, 8 << 30, 1), (4 << 30, 8 << 30, 1)],
)
def test_as_many_fit_as_the_memory_holds_but_four_at_most(free: int, peak: int, fit: int) -> None:
    """0.9 of what is free, each with 3 GiB beside torch's."""
    assert workers.fitting(free, peak) == fit


def test_a_cpu_runs_one_task_on_all_cores_and_several_share_them() -> None:
    cores = os.cpu_count() or 1
    assert workers.plan(0, 0, "cpu", None) == Workers(("",), cores)
    assert workers.plan(cores, 0, "cpu", None) == Workers(("",) * cores, 1)
    assert workers.plan(3, 5, "cpu", None) == Workers(("", "", ""), 5)


def test_each_gpu_gets_what_fits_once_a_tasks_memory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.9 of the free 4, 80 and 10 GiB hold no task (one is tried all the same), 18 (four at most) and 2 of 4 GiB."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ([4, 80, 10][index] << 30, 99 << 30))
    assert workers.plan(0, 1, "cuda", None) == Workers(("2",), 1)
    assert sorted(workers.plan(0, 1, "cuda", 1 << 30).places) == ["2", "5", "5", "5", "5", "7", "7"]
    assert workers.plan(1, 1, "cuda", 1 << 30) == Workers(("2",), 1)
    assert workers.plan(4, 1, "cuda", 1 << 30) == Workers(("2", "5", "7", "2"), 1)


def _process(_task: int) -> int:
    return os.getpid()


def test_one_worker_is_this_process() -> None:
    assert list(workers.run(_process, [1, 2], Workers(("",), 1))) == [(1, os.getpid()), (2, os.getpid())]


def _place(task: Path) -> tuple[str, int]:
    task.touch()
    until = time.monotonic() + 60
    while len(list(task.parent.iterdir())) < 3 and time.monotonic() < until:  # no worker takes another's task
        time.sleep(0.02)
    return os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads()


def test_several_workers_have_a_gpu_and_threads_each(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "abc"]
    ended = dict(workers.run(_place, tasks, Workers(("7", "3", "7"), 1)))
    assert sorted(ended) == tasks
    assert sorted(ended.values()) == [("3", 1), ("7", 1), ("7", 1)]


def _kill(_task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported_with_the_remedy() -> None:
    with pytest.raises(ChildProcessError, match=r"was killed.*fewer --jobs"):
        list(workers.run(_kill, [1, 2, 3], Workers(("", ""), 1)))


def _wait(task: int) -> int:
    if task:
        signal.pause()
    return os.getpid()


def test_a_caller_that_stops_iterating_leaves_no_process_behind() -> None:
    ended = workers.run(_wait, [0, 1, 1], Workers(("",), 1), apart=True)
    _, pid = next(ended)
    ended.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
