"""The processes of a training: those that torchrun started, or this one alone."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from medsass.errors import ElsewhereError, Stopped

T = TypeVar("T")

_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "TCPStore", "Broken pipe")


@dataclass(frozen=True)
class Ranks:
    """A process among `world`; rank 0 writes. torchrun has restarted them `restarts` times after a failure."""

    rank: int = 0
    world: int = 1
    restarts: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def any(self, value: bool) -> bool:
        """Tell whether `value` is true on any process. Waits for all of them, not for their GPUs."""
        if self.world == 1:
            return value
        held = torch.tensor(int(value))
        distributed.all_reduce(held, distributed.ReduceOp.MAX)
        return bool(held.item())

    def gather(self, value: T) -> list[T]:
        """Return the `value` of every process, by rank."""
        if self.world == 1:
            return [value]
        held: list[Any] = [None] * self.world
        distributed.all_gather_object(held, value)
        return held

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Copy the values of the first process into `tensors`."""
        if self.world > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def first_alone(self, work: Callable[[], T]) -> T | None:
        """Let the first process do `work` while the others wait, and return its result there, None elsewhere.

        Where it fails, its error is raised there, and `ElsewhereError` on the others.
        """
        failure: BaseException | None = None
        result = None
        if self.first:
            try:
                result = work()
            except Exception as error:
                failure = error
        if self.any(failure is not None):
            raise failure or ElsewhereError("another process of this training failed, and says why")
        return result


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started while the block runs; without torchrun this one is alone.

    On GPUs each process takes the GPU of its local rank. Raises `ConnectionError` where another process is gone, and
    `ValueError` where there are fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if world == 1:
        yield Ranks(restarts=restarts)
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun started process {local} on this machine, which has {torch.cuda.device_count()} GPUs; "
                "give --nproc-per-node at most that many"
            )
        torch.cuda.set_device(local)
    ranks, clean = Ranks(int(os.environ["RANK"]), world, restarts), False
    try:
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        store, _, _ = next(rendezvous("env://"))
        # torchrun keeps the store over restarts, with the addresses of processes that are gone (PyTorch issue 135712),
        # so each start has its own prefix; not on several machines, which may count the starts differently.
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            store = PrefixStore(f"start {restarts}", store)
        distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=world)
        yield ranks
        clean = True
    except Stopped:
        clean = True
        raise
    except RuntimeError as error:
        if not any(mark in str(error) for mark in _LOST):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it now, and would cut off the message
        # What gloo or NCCL say, without their source file and their advice.
        reason = re.sub(r"\[/\S*\] ", "", str(error).strip().splitlines()[0]).split(". ")[0].rstrip(". ")
        raise ConnectionError(
            f"process {ranks.rank} of {world} lost another one ({reason}); see what that one said; what its "
            "last checkpoint holds is kept: go on with the same torchrun command and --resume"
        ) from error
    finally:
        if clean and distributed.is_initialized():  # after an error NCCL would wait here for processes that are gone
            with suppress(RuntimeError):  # another process may have left already
                distributed.destroy_process_group()


def began() -> float:
    """Return when the parent process, such as torchrun, began, in seconds since the epoch."""
    ticks = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
