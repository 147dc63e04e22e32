"""Runs the kernels' own source on the CPU: a host compiler, `cuda.h` in place of CUDA, and `launch.cpp` to call them."""

import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.labels import compiler
from medsass.labels import threshold as spec
from medsass.labels.blur import weights
from medsass.labels.components import blocks_per_image

HERE = Path(__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")
POISON = 0xA5

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DTYPES = {1: np.uint16, 2: np.float16, 3: np.float32}


class Geometry(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("images", "pixels", "height", "width", "parts", "chunk", "polarity")]


class Window(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("height", "width", "block_size", "delta", "gaussian", "polarity")]


class Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("height", "width", "blocks", "diagonal")]


class Blur(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("height", "width", "radius")] + [("pixels", ctypes.c_uint64)]


@dataclass(frozen=True)
class Result:
    """The outputs of a kernel, as `cuda.Labels` in NumPy; bfloat16 input as its bits."""

    mask: NDArray[np.uint8]
    threshold: NDArray[np.float32]
    separability: NDArray[np.float32]
    input: NDArray[Any] | None


@functools.cache
def library(variant: compiler.Variant) -> ctypes.CDLL:
    """Return the shared library of a variant, compiled once for each text."""
    text = f'#include "{HERE / "cuda.h"}"\n{compiler.source(variant)}\n'
    text += f'#define {variant.file.removesuffix(".cu").upper()}\n#include "{HERE / "launch.cpp"}"\n'
    everything = text + (HERE / "cuda.h").read_text() + (HERE / "launch.cpp").read_text()
    folder = Path(tempfile.gettempdir()) / "medsass-emulation"
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(everything.encode()).hexdigest()[:24]}.so"
    if not path.exists():
        source, part = path.with_suffix(".cpp"), path.with_suffix(".part")
        source.write_text(text)
        flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-w"]
        subprocess.run([str(COMPILER), *flags, str(source), "-o", str(part)], check=True)
        part.replace(path)
    return ctypes.CDLL(str(path))


def label(
    images: NDArray[Any],
    polarity: str,
    ght: Sequence[float] | None = None,
    input_kind: int = 0,
    parts: int = 1,
    *,
    once: bool = True,
) -> Result:
    """Run `label` (or, with `once` False, `ranges`, `measure` and `apply`) on poisoned outputs."""
    images = np.ascontiguousarray(images)
    n, h, w = images.shape[:3]
    channels = 3 if images.ndim == 4 else 1
    variant = compiler.Variant("label.cu", channels, images.itemsize * 8, ght is not None, input_kind)
    chunk = -(-(h * w) // parts)
    geometry = Geometry(n, h * w, h, w, -(-(h * w) // chunk), chunk, {"bright": 0, "dark": 1, "auto": 2}[polarity])
    mask = np.full((n, h, w), POISON, np.uint8)
    threshold, separability = np.full(n, np.inf, np.float32), np.full(n, np.inf, np.float32)
    workspace = np.zeros(n * compiler.SHARED_BYTES, np.uint8)
    values = np.full((n, h, w, 3), 1, _DTYPES[input_kind]) if input_kind else None
    nu, tau, kappa, omega = ght or (0.0, 0.0, 0.0, 0.0)
    parameters = np.array((nu, tau**2, kappa, omega))
    constants = np.concatenate(spec.scale_and_shift(MEAN, STD))
    run = library(variant).run_label if once else library(variant).run_measure
    buffers = (_at(array) for array in (images, mask, threshold, separability, workspace))
    run(*buffers, n, geometry, _at(parameters), _at(values), _at(constants))
    return Result(mask, threshold, separability, values)


def adaptive(images: NDArray[np.uint8], polarity: str, gaussian: bool, block_size: int, offset: float) -> Result:
    """Run `adaptive` and `finish` on poisoned outputs."""
    images = np.ascontiguousarray(images)
    n, h, w = images.shape[:3]
    variant = compiler.Variant("adaptive.cu", 3 if images.ndim == 4 else 1)
    code = library(variant)
    mask = np.full((n, h, w), POISON, np.uint8)
    threshold, separability = np.zeros(n, np.float32), np.full(n, np.inf, np.float32)
    sums, weights = np.zeros((n, 6), np.uint64), spec.gaussian_weights(block_size).astype(np.uint32)
    window = Window(
        h, w, block_size, int(np.ceil(offset)), int(gaussian), {"bright": 0, "dark": 1, "auto": 2}[polarity]
    )
    code.run_adaptive(_at(images), _at(mask), _at(threshold), _at(separability), _at(sums), n, _at(weights), window)
    return Result(mask, threshold, separability, None)


def components(masks: NDArray[np.uint8], connectivity: int) -> NDArray[np.int32]:
    """Run `begin`, `join` and `flatten` of components.cu on (N, H, W) masks and poisoned labels."""
    masks = np.ascontiguousarray(masks)
    n, h, w = masks.shape
    code = library(compiler.Variant("components.cu", 1))
    labels = np.full((n, h, w), 0x5A5A5A5A, np.int32)
    sizes = Sizes(h, w, blocks_per_image(h, w), int(connectivity == 8))
    code.run_components(_at(masks), _at(labels), n, sizes)
    return labels


def blur(gray: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Run `across` and `down` of blur.cu on (N, H, W) gray images and poisoned outputs."""
    gray = np.ascontiguousarray(gray)
    sums, smooth = np.full(gray.shape, 0xA5A5A5A5, np.uint32), np.full_like(gray, POISON)
    radius = len(weights(sigma)) // 2
    half = np.array(weights(sigma)[radius:], np.uint32)
    code = library(compiler.Variant("blur.cu", 1))
    code.run_blur(_at(gray), _at(sums), _at(smooth), _at(half), Blur(*gray.shape[1:], radius, gray.size))
    return smooth


def _at(array: NDArray[Any] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data if array is not None else None)
