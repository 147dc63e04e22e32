"""Tasks side by side: in this process, or in several that share the cores of a CPU or the memory of GPUs."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

A_GPU = 4  # processes on one GPU at most: more only wait for one another

_BESIDE = 3 << 30  # bytes of a process on a GPU beside torch's: the CUDA context, DALI's buffers, cuDNN's workspaces
_USABLE = 0.9  # share of a GPU's free memory that is given away

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Workers:
    """The place of each process, a GPU as CUDA_VISIBLE_DEVICES names it or "" on a CPU, and the CPU threads of each."""

    places: tuple[str, ...]
    threads: int


def plan(jobs: int, threads: int, device: str, peak: int | None) -> Workers:
    """Workers for --jobs and --threads, of which 0 leaves the choice. peak: bytes of a GPU that a task is known to take,
    None where that is not known: then one at a time.
    """
    gpus = visible() if device == "cuda" else ("",)
    if device == "cuda" and peak is not None and not jobs:
        counts = [fitting(free, peak) for free in _free(len(gpus))]
        places = tuple(gpu for turn in range(A_GPU) for gpu, count in zip(gpus, counts, strict=True) if turn < count)
    else:
        places = tuple(gpus[index % len(gpus)] for index in range(jobs or 1))
    return Workers(places, threads or max(1, (os.cpu_count() or 1) // len(places)))


def fitting(free: int, peak: int) -> int:
    """Processes that fit side by side on a GPU with `free` bytes, if each takes `peak` of torch's: 1 to A_GPU."""
    return max(1, min(A_GPU, int(free * _USABLE) // (peak + _BESIDE)))


def visible() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return tuple(named.split(",")) if named else tuple(map(str, range(torch.cuda.device_count())))


def _free(gpus: int) -> list[int]:
    return [torch.cuda.mem_get_info(index)[0] for index in range(gpus)]


def run(
    function: Callable[[Task], Outcome], tasks: Sequence[Task], workers: Workers, *, apart: bool = False
) -> Generator[tuple[Task, Outcome]]:
    """Each task with `function(task)`, as they are done. With one worker in this process, unless `apart`, which keeps
    what CUDA holds out of it.

    An interrupt ends the other processes at once. Raises `ChildProcessError` where one of them was killed.
    """
    if len(workers.places) == 1 and not apart:
        for task in tuple(tasks):
            yield task, function(task)
        return
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    places = context.Queue()
    for place in workers.places:
        places.put(place)
    with ProcessPoolExecutor(len(workers.places), context, _begin, (places, workers.threads)) as pool:
        futures: dict[Future[Outcome], Task] = {pool.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], _result(future)
        except BaseException:  # GeneratorExit too: whoever stops asking wants no more of them
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _result(future: "Future[Outcome]") -> Outcome:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process was killed, most likely for want of memory; what is finished is kept: start again with "
            "fewer --jobs"
        ) from error


def _begin(places: Any, threads: int) -> None:
    """In a new worker: its GPU, before CUDA looks; its threads; an interrupt ends it without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if place := places.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = place
    torch.set_num_threads(threads)
