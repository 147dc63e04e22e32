"""How much memory is free."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

_CGROUPS = (  # versions 2 and 1: controllers in /proc/self/cgroup, folder, limit, usage, what of that could be dropped
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def host(root: Path = Path("/")) -> int:
    """Bytes that this machine, and the control groups of this process where they have a limit, have left. `root` holds
    the kernel's files, in proc and sys.
    """
    values = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    return min([int(values["MemAvailable"].split()[0]) * 1024, *_groups(root)])


def device() -> int:
    """Bytes that the current GPU has left."""
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def processes(world: int) -> int:
    """How many of the `world` processes of a training share this machine's memory: as many as torchrun says, or all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world))


def _groups(root: Path) -> Iterator[int]:
    """Bytes that each control group of this process with a limit has left."""
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for controller, mount, limit, usage, droppable in _CGROUPS:
        for _, controllers, path in lines:
            if controller not in controllers.split(","):
                continue
            own = Path(path.lstrip("/"))
            for folder in (
                root / mount / part for part in (own, *own.parents)
            ):  # in a container only the last may exist
                try:
                    most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                except OSError:
                    continue
                if most != "max":
                    yield max(0, int(most) - used + int(stat.get(droppable, 0)))
