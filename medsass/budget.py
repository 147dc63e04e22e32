"""How much memory reading one image may take, checked before it is taken: a file of a few kilobytes may promise gigabytes.

The budget is `MEDSASS_MEMORY` (such as 8G) in the environment, else half of the memory that is free when it is first asked
for. `medsass shard` asks once, before its workers start, and tells them. Each of them takes its share at once; an image that
needs more is read while the others wait. So what is left out does not depend on the number of workers.

A variable of the environment and not an option: it holds for all commands, for Python and for worker processes, and changes no
byte of what is written. Estimates count the copies that a reader makes; they are no measurements.
"""

import os
import re
import resource
from functools import cache
from pathlib import Path

VARIABLE = "MEDSASS_MEMORY"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SLACK = 1 << 30  # bytes beside an image that libraries may take: their threads, buffers and caches
_CGROUPS = (  # versions 2 and 1: controller in /proc/self/cgroup, folder, limit, usage, its part that can be dropped
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)

TOO_MUCH = f"reading it took more than the {{:,.1f}} GB of memory that medsass allows one image; if it is worth that, set {VARIABLE} higher"

_share: int | None = None  # bytes that this process may take while others read too


class ExceededError(ValueError):
    """Reading an image would take more than the budget; the text says how much, and what to do."""


class ScarceError(MemoryError):
    """Reading an image takes more than this worker's share of the budget: it is to be read while others wait."""


@cache
def limit() -> int:
    """Return the bytes of memory that reading one image may take, the same all through a process.

    Raises:
        ValueError: where `MEDSASS_MEMORY` is no size.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return free() // 2
    if not (match := _SIZE.fullmatch(text)):
        raise ValueError(f"{VARIABLE} must be a size in bytes, such as 8G or 500M; got '{text}'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def check(size: float, what: str = "reading it") -> None:
    """Refuse what would take `size` bytes of memory, where that is more than the budget.

    Raises:
        ExceededError: with the remedy.
        ScarceError: in a worker process, where it is within the budget and above the worker's share.
    """
    if _share is not None and size <= _share:
        return
    if size > limit():
        raise ExceededError(
            f"{what} would take {size / 1e9:,.1f} GB of memory, more than the {limit() / 1e9:,.1f} GB that medsass allows one "
            f"image; if it is worth that, and the machine has it, set {VARIABLE}={size / 1e9 + 0.1:.1f}G"
        )
    if _share is not None:
        raise ScarceError


def check_packed(stored: int, unpacked: float, what: str = "unpacking it") -> None:
    """Refuse data that would take `unpacked` bytes and are more than eight times what is `stored` of them. Raises as `check`."""
    if unpacked > 8 * stored:
        check(unpacked, what)


def share(size: int | None, root: Path = Path("/")) -> None:
    """Let this worker process take `size` bytes at once, None for all of the budget.

    What a decoder takes beyond that, whatever a header promised, is refused by the kernel, as a backstop, where proc below `root`
    says what is taken already.
    """
    global _share
    _share = size
    try:
        held = int((root / "proc/self/statm").read_bytes().split()[5]) * resource.getpagesize()  # of data and stack
    except (OSError, IndexError):
        return
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = held + (limit() if size is None else size) + _SLACK
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def free(root: Path = Path("/")) -> int:
    """Return the free bytes of this machine, or of this process's control groups where their limits leave less.

    `root` holds the kernel's files, in proc and sys.
    """
    try:
        values = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
        free = int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # where /proc is hidden; caches count as taken
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        lines = []
    for controller, mount, limit, usage, droppable in _CGROUPS:
        own = [Path(path.lstrip("/")) for _, controllers, path in lines if controller in controllers.split(",")]
        for group in (ancestor for path in own for ancestor in (path, *path.parents)):
            folder = root / mount / group  # in a container only the last may exist
            try:
                most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if most != "max":
                free = min(free, max(0, int(most) - used + int(stat.get(droppable, 0))))
    return free
