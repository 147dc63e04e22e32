"""Tasks side by side: in this process, or in several that share the cores of a CPU or the memory of GPUs."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
    """The place of each process (a GPU as CUDA_VISIBLE_DEVICES names it, "" on a CPU) and the CPU threads of each."""

    places: tuple[str, ...]
    threads: int


def plan(jobs: int, threads: int, device: str, peak: int | None) -> Workers:
    """Plan workers for --jobs and --threads; 0 leaves the choice here. A task takes `peak` bytes on a GPU; where that is
    not known, None, one task runs at a time.
    """
    gpus = [""]
    if device == "cuda":
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpus = named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]
    if device == "cuda" and peak is not None and not jobs:
        counts = [fitting(torch.cuda.mem_get_info(index)[0], peak) for index in range(len(gpus))]
        places = tuple(gpu for turn in range(A_GPU) for gpu, count in zip(gpus, counts, strict=True) if turn < count)
    else:
        places = tuple(gpus[index % len(gpus)] for index in range(jobs or 1))
    return Workers(places, threads or max(1, (os.cpu_count() or 1) // len(places)))


def fitting(free: int, peak: int) -> int:
    """Count the processes that fit side by side on a GPU with `free` bytes, if each takes `peak` of torch's: 1 to A_GPU."""
    return max(1, min(A_GPU, int(free * _USABLE) // (peak + _BESIDE)))


def run(
    function: Callable[[Task], Outcome], tasks: Sequence[Task], workers: Workers, *, apart: bool = False
) -> Generator[tuple[Task, Outcome]]:
    """Yield each task with `function(task)`, as they finish. A single worker is this process, unless `apart`, which keeps
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
                yield futures[future], future.result()
        except BaseException as error:  # GeneratorExit too: whoever stops asking wants no more of them
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise ChildProcessError(
                    "a worker process was killed, most likely because memory ran out; finished cells are kept: start again "
                    "with fewer --jobs"
                ) from error
            raise


def _begin(places: Any, threads: int) -> None:
    """Set up a new worker: its GPU, before CUDA looks; its threads; an interrupt ends it silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if place := places.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = place
    torch.set_num_threads(threads)
