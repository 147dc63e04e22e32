"""Benchmark results: one JSON document, in `benchmarks/results/<device>-<benchmark>.json` and as the last line of stdout."""

import datetime
import json
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medsass import files

RESULTS = Path(__file__).parents[1] / "results"
_PACKAGES = (
    "medsass",
    "torch",
    "nvidia-dali-cuda130",
    "cupy-cuda13x",
    "opencv-python-headless",
    "numpy",
    "segmentation-models-pytorch",
    "scikit-image",
    "kornia",
    "cvcuda-cu13",
    "cucim-cu13",
)


@dataclass(frozen=True)
class Target:
    """A figure to reach. `value` is the measured one, None if it was not measured."""

    name: str
    unit: str
    relation: str  # ">=" or "<="
    target: float
    value: float | None


def data(benchmark: str, folders: Iterable[str] = ()) -> Path:
    """Return the folder of the real images: the first argument, else `../shared/data`. Exits if one of `folders` is missing."""
    return check(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"), benchmark, folders)


def check(found: Path, benchmark: str, folders: Iterable[str]) -> Path:
    """Return `found`, the folder of the real images. Exits if one of `folders` is not in it."""
    for folder in folders:
        if not (found / folder).is_dir():
            sys.exit(
                f"benchmarks.{benchmark}: {found / folder} is missing; give the folder of the datasets: "
                f"python -m benchmarks.{benchmark} DATA"
            )
    return found


def device(where: str) -> str:
    """Return a short name of the machine: "h200" and the like for a GPU, "cpu-2core" and the like for a CPU."""
    if where == "cuda":
        import torch

        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower().removeprefix("nvidia ")).strip("-")
    return f"cpu-{os.cpu_count()}core"


def save(
    benchmark: str, where: str, rows: list[dict[str, Any]], targets: list[Target], limits: dict[str, float]
) -> Path:
    """Write the result, print it as one line, and return its path."""
    path = RESULTS / f"{device(where)}-{benchmark}.json"
    write(path, benchmark, where, rows, targets, limits)
    show(path)
    return path


def write(
    path: Path,
    benchmark: str,
    where: str,
    rows: list[dict[str, Any]],
    targets: list[Target],
    limits: dict[str, float],
    about: dict[str, Any] | None = None,
) -> None:
    """Write a result atomically, with the further fields of `about`."""
    content = {
        "benchmark": benchmark,
        "device": device(where),
        "date": datetime.date.today().isoformat(),
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
        "command": f"python -m benchmarks.{benchmark}",
        "limits": limits,
        **(about or {}),
        "rows": rows,
        "targets": [asdict(target) for target in targets],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(content, indent=1) + "\n")


def show(path: Path) -> None:
    """Print the result as the last line of stdout."""
    print(f"{path}", file=sys.stderr)
    print(json.dumps(json.loads(path.read_text())))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
