"""Peers of the labelling kernels: gray, Otsu and mask by other libraries and by plain torch.

Each peer prepares what it needs outside of the timed region (uploads, and ready-made gray if its row says so, which
favours the peer) and then labels the whole batch in one call. `agreement` is the share of pixels that equal the specification.
"""

import importlib
import importlib.util
import mmap
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.support import result, roofline
from medsass.labels import threshold as spec

Images = NDArray[np.uint8]
PATIENCE = 120  # seconds that a GPU library's first import may take
ROUNDS = 10  # so that starting the processes' work is a small part of it
CHECKED = 8  # images of a batch whose masks are compared with the specification's


@dataclass(frozen=True)
class Prepared:
    """A peer with its batch.

    call: labels the batch. masks: returns the masks of the last call, (N, H, W), not 0 above the threshold. close: ends
    what was started.
    """

    call: roofline.Call
    masks: Callable[[], Any]
    close: roofline.Call = lambda: None


@dataclass(frozen=True)
class Peer:
    """A library to compare with.

    module, packages: its import name and distributions. most: images to give it at most. given: RGB or gray. prepare:
    uploads a batch. calls: in one pair of device events. rounds: that a call labels the batch.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    most: int
    given: str
    prepare: Callable[[Images], Prepared]
    calls: int = 1
    rounds: int = 1


def opencv(images: Images) -> Prepared:
    """Prepare cv2.cvtColor and cv2.threshold, an image a call, on one core."""
    cv2.setNumThreads(1)
    masks = np.empty(images.shape[:3], np.uint8)
    return Prepared(lambda: _label(images, masks), lambda: masks)


def _label(images: Images, masks: Images) -> None:
    for image, mask in zip(images, masks, strict=True):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU, dst=mask)


_shared: list[Images] = []  # images and masks of `opencv_processes`, for the processes that are forked from this one


def opencv_processes(images: Images, processes: int) -> Prepared:
    """Prepare `opencv` in several processes, ROUNDS times a call. Threads would wait for the GIL: calls take 15 us."""
    cv2.setNumThreads(1)
    masks = np.frombuffer(mmap.mmap(-1, images.size // 3), np.uint8).reshape(images.shape[:3])
    _shared[:] = [images, masks]
    pool = multiprocessing.get_context("fork").Pool(processes)
    shares = list(pairwise(np.linspace(0, len(images), processes + 1).astype(int).tolist()))

    def end() -> None:
        # Not `terminate`: a SIGTERM that comes while a fork starts is lost where Python handles it, as `cells` does.
        pool.close()
        pool.join()

    return Prepared(lambda: pool.map_async(_label_share, shares, chunksize=1).get(PATIENCE), lambda: masks, end)


def _label_share(share: tuple[int, int]) -> None:
    images, masks = (array[slice(*share)] for array in _shared)
    for _ in range(ROUNDS):
        _label(images, masks)


def scikit_image(images: Images) -> Prepared:
    """Prepare skimage.filters.threshold_otsu, an image a call."""
    from skimage.filters import threshold_otsu

    gray = spec.gray(images)
    return _keeping(lambda: np.stack([image > threshold_otsu(image) for image in gray]), lambda masks: masks)


def _keeping(label: Callable[[], Any], to_array: Callable[[Any], Any]) -> Prepared:
    """Prepare a peer whose `label` returns the masks of a batch, which `to_array` brings to the host."""
    made: list[Any] = []

    def call() -> None:
        made[:] = [label()]

    return Prepared(call, lambda: to_array(made[0]))


def plain_torch(images: Images, device: str) -> Prepared:
    """Prepare a batched Otsu in plain torch, as one would write it without kernels."""
    batch = torch.from_numpy(images).to(device)
    return _keeping(lambda: torch_otsu(batch), lambda masks: masks.cpu().numpy())


def torch_otsu(images: torch.Tensor) -> torch.Tensor:
    """Return (N, H, W) bool, True above Otsu's threshold, of (N, H, W, 3) uint8: scatter_add and float64 arithmetic."""
    red, green, blue = images.to(torch.int32).unbind(-1)
    gray = (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15
    index = gray.flatten(1).long()
    ones = torch.ones((), dtype=torch.int32, device=images.device).expand_as(index)
    counts = torch.zeros(len(images), 256, dtype=torch.int32, device=images.device).scatter_add_(1, index, ones)
    weights = counts.double().cumsum(1)
    levels = (counts * torch.arange(256, device=images.device)).double().cumsum(1)
    count, total = weights[:, -1:], levels[:, -1:]
    between = (total * weights - count * levels) ** 2 / (weights * (count - weights)).clamp(min=1)
    return gray > between.argmax(1)[:, None, None]


def kornia(images: Images, device: str) -> Prepared:
    """Prepare kornia.filters.otsu_threshold on the whole batch."""
    otsu_threshold = importlib.import_module("kornia.filters").otsu_threshold
    gray = torch.from_numpy(spec.gray(images)).unsqueeze(1).to(device)
    return _keeping(lambda: otsu_threshold(gray)[0], lambda masks: masks[:, 0].cpu().numpy())


def cucim(images: Images) -> Prepared:
    """Prepare cucim.skimage.filters.threshold_otsu, an image a call; each waits for the device."""
    import cupy
    from cucim.skimage.filters import threshold_otsu

    gray = cupy.asarray(spec.gray(images))

    def label() -> Any:
        masks = [image > threshold_otsu(image) for image in gray]
        cupy.cuda.get_current_stream().synchronize()
        return masks

    return _keeping(label, lambda masks: cupy.asnumpy(cupy.stack(masks)))


def cv_cuda(images: Images) -> Prepared:
    """Prepare cvcuda.cvtcolor and cvcuda.threshold with OTSU on the whole batch, into preallocated buffers."""
    cvcuda = importlib.import_module("cvcuda")
    n, h, w = images.shape[:3]
    source = torch.from_numpy(images).cuda()
    gray, mask = (torch.empty(n, h, w, 1, dtype=torch.uint8, device="cuda") for _ in range(2))
    levels = torch.zeros(n, dtype=torch.float64, device="cuda")
    ones = torch.ones(n, dtype=torch.float64, device="cuda")
    torch.cuda.synchronize()
    rgb, between, made = (cvcuda.as_tensor(_Buffer(tensor), "NHWC") for tensor in (source, gray, mask))
    found, most = (cvcuda.as_tensor(_Buffer(tensor), "N") for tensor in (levels, ones))
    kind = int(cvcuda.ThresholdType.OTSU) | int(cvcuda.ThresholdType.BINARY)

    def call() -> None:  # on CV-CUDA's default stream, which is torch's
        cvcuda.cvtcolor_into(between, rgb, cvcuda.ColorConversion.RGB2GRAY)
        cvcuda.threshold_into(made, between, found, most, kind)

    return Prepared(call, lambda: mask[..., 0].cpu().numpy())


class _Buffer:
    """A CUDA tensor marked as ready: without a stream from torch, CV-CUDA would wait for the whole device."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor
        self.__cuda_array_interface__ = {**tensor.__cuda_array_interface__, "version": 3, "stream": -1}


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_OPENCV = ("cv2", ("opencv-python-headless", "opencv-python"))
ON_CPU = (
    Peer("OpenCV, one core", *_OPENCV, 1024, "RGB", opencv),
    Peer("OpenCV, all cores", *_OPENCV, 8192, "RGB", lambda images: opencv_processes(images, cores()), 1, ROUNDS),
    Peer("scikit-image, one core", "skimage", ("scikit-image",), 64, "gray", scikit_image),
)
ELSEWHERE = {
    "cpu": (
        Peer("plain torch, CPU", "torch", ("torch",), 64, "RGB", lambda images: plain_torch(images, "cpu")),
        Peer("kornia, CPU", "kornia", ("kornia",), 64, "gray", lambda images: kornia(images, "cpu")),
    ),
    "cuda": (
        Peer("plain torch", "torch", ("torch",), 1024, "RGB", lambda images: plain_torch(images, "cuda"), 5),
        Peer("kornia", "kornia", ("kornia",), 1024, "gray", lambda images: kornia(images, "cuda"), 5),
        Peer("CV-CUDA", "cvcuda", ("cvcuda-cu13", "cvcuda-cu12"), 1024, "RGB", cv_cuda, 20),
        Peer("cuCIM", "cucim.skimage.filters", ("cucim-cu13", "cucim-cu12"), 64, "gray", cucim),
    ),
}


def unusable(module: str) -> str:
    """Return why a module cannot be used after torch, else "". Tried in a process of its own, because some hang."""
    if module in sys.modules:
        return ""
    if importlib.util.find_spec(module.split(".")[0]) is None:
        return "not installed"
    program = f"import torch; torch.cuda.is_available() and torch.cuda.init(); import {module}"
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"its import does not end within {PATIENCE} s"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["import fails"])[-1][:200]


def measure(peer: Peer, images: Images, content: str, where: str) -> list[dict[str, Any]]:
    """Return the row of a peer. Raises `RuntimeError` with the reason if it is not installed or cannot be used."""
    if reason := unusable(peer.module):
        raise RuntimeError(reason)
    images, where = images[: peer.most], "cpu" if peer in ON_CPU else where
    prepared = peer.prepare(images)
    timer = roofline.device_time if where == "cuda" else roofline.host_time
    try:
        prepared.call()
        share = agreement(images[:CHECKED], prepared.masks()[:CHECKED])
        timing = timer(roofline.in_turn([prepared.call] * peer.calls), peer.calls * peer.rounds)
    finally:
        prepared.close()
    n, h, w = images.shape[:3]
    print(f"{peer.name}: {n / timing.seconds:,.0f} images/s, agreement {share:.4f}", file=sys.stderr)
    row = {
        "by": peer.name,
        "version": next(iter(result.versions(peer.packages).values()), "unknown"),
        "device": where,
        "method": "otsu",
        "height": h,
        "width": w,
        "channels": 3,
        "given": peer.given,
        "batch": n,
        "content": content,
        "fused": False,
        "microseconds": timing.seconds * 1e6,
        "least_microseconds": timing.least * 1e6,
        "repeats": timing.repeats,
        "images_per_second": n / timing.seconds,
        "agreement": share,
    }
    return [row]


def agreement(images: Images, masks: NDArray[Any]) -> float:
    """Return the share of pixels whose mask equals the specification's."""
    grays = spec.gray(images)
    wanted = np.stack([gray > spec.otsu(spec.histogram(gray)) for gray in grays])
    return float((wanted == (masks != 0)).mean())
