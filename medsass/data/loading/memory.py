"""Free memory of the host and of the GPU."""

import os
from pathlib import Path

import torch

_CGROUPS = (  # versions 2 and 1: controller in /proc/self/cgroup, folder, limit, usage, its part that can be dropped
    ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def host(root: Path = Path("/")) -> int:
    """Return the free bytes of this machine, or of this process's control groups where their limits leave less.

    `root` holds the kernel's files, in proc and sys.
    """
    values = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
    free = int(values["MemAvailable"].split()[0]) * 1024
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


def device() -> int:
    """Return the free bytes of the current GPU."""
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def processes(world: int) -> int:
    """Return how many of a training's `world` processes share this machine: as torchrun says, or all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world))
