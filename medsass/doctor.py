"""`medsass doctor`: finds what is installed, what works here, and which path each command will take.

Each check runs in a process of its own: GPU packages can hang or crash on import where driver and libraries do not fit
(cuCIM 26.10 hangs when it is imported after torch or DALI), and that is then a finding like any other.
"""

import importlib
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from medsass import __version__

_PATIENCE = 90  # seconds for a check: the first import of a GPU package from a slow disk takes long


@dataclass(frozen=True)
class Finding:
    """A line of the report: the part, whether it works, and details."""

    name: str
    works: bool
    detail: str


def findings() -> list[Finding]:
    """Check each part, from the interpreter to the GPU. Never raises: a failure is a finding."""
    first = Finding("medsass", True, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    with ThreadPoolExecutor(4) as pool:
        return [first, *pool.map(_try, CHECKS)]


def paths(found: list[Finding]) -> list[tuple[str, str]]:
    """Return pairs of a command and the path it will take with `--device auto`, from the findings."""
    works = {item.name: item.works for item in found}
    train = "DALI and the network on the CPU (float32)"
    shard = "reads with Pillow and tifffile, checks each image with DALI on the CPU"
    if not works["DALI on the CPU"]:
        shard = train = "cannot run: install DALI with pip install 'medsass[cuda13]' (or [cuda12])"
    elif works["GPU"] and works["DALI on the GPU"] and works["CuPy"]:
        train = "DALI decodes and the network trains on the GPU (bf16)"
    elif works["GPU"]:
        train = "cannot run on the GPU, because DALI or CuPy does not work there: take --device cpu"
    cuda = "CUDA kernels" if works["CuPy"] else "cannot run on the GPU without CuPy: pip install 'medsass[cuda13]'"
    return [
        ("shard", shard),
        ("info", "OpenCV on the CPU"),
        ("train, evaluate, demo", train),
        ("predict", f"network on the {'GPU' if works['GPU'] else 'CPU'}"),
        ("label", cuda if works["GPU"] else "OpenCV and NumPy on the CPU"),
    ]


def _try(name: str) -> Finding:
    """Run one check in a new interpreter."""
    program = f"from medsass import doctor; doctor.answer({name!r})"
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return Finding(name, False, f"no answer within {_PATIENCE} s")
    last = (done.stdout.strip().splitlines() or [f"ended with exit code {done.returncode}"])[-1]
    return Finding(name, done.returncode == 0, last[:160] + ("…" if len(last) > 160 else ""))


def answer(name: str) -> None:
    """Run one check in this process, print its answer, and exit with code 1 if it fails."""
    try:
        print(CHECKS[name]())
    except Exception as error:  # reports any failure of a foreign package
        print(" ".join(str(error).split()) or type(error).__name__)
        sys.exit(1)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("not installed") from error


def _gpu() -> str:
    torch = _module("torch")
    if not torch.cuda.is_available():
        raise RuntimeError("no usable NVIDIA GPU: everything runs on the CPU")
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, {torch.cuda.device_count()} in all"


def _dali(device: str) -> str:
    """Decode a small generated JPEG with DALI."""
    if device == "gpu" and not _module("torch").cuda.is_available():
        raise RuntimeError("no GPU")
    cv2, dynamic = _module("cv2"), _module("nvidia.dali.experimental.dynamic")
    data = cv2.imencode(".jpg", np.full((16, 16, 3), 128, np.uint8))[1].ravel()
    image = dynamic.decoders.image(dynamic.as_tensor(data), device=device)
    if tuple(np.asarray(image.cpu()).shape) != (16, 16, 3):
        raise RuntimeError("decoded a 16 x 16 JPEG to another shape")
    if device == "gpu":
        return "decodes JPEG on the GPU"
    for name in ("nvidia-dali-cuda130", "nvidia-dali-cuda120"):
        with suppress(PackageNotFoundError):
            return f"{version(name)} ({name})"
    return "version unknown"


def _cupy() -> str:
    cupy = _module("cupy")
    count = cupy.cuda.runtime.getDeviceCount()
    if int(cupy.arange(4).sum()) != 6:  # compiles with NVRTC and launches
        raise RuntimeError("a compiled kernel gave a wrong sum")
    return f"{cupy.__version__}, {count} GPU"


CHECKS: dict[str, Callable[[], str]] = {
    "torch": lambda: str(_module("torch").__version__),
    "GPU": _gpu,
    "DALI on the CPU": lambda: _dali("cpu"),
    "DALI on the GPU": lambda: _dali("gpu"),
    "CuPy": _cupy,
    "cuCIM": lambda: str(_module("cucim").__version__),
    "OpenCV": lambda: str(_module("cv2").__version__),
    "segmentation-models-pytorch": lambda: str(_module("segmentation_models_pytorch").__version__),
    "timm": lambda: str(_module("timm").__version__),
}
