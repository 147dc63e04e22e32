"""Label batches with the CUDA kernels.

Launches go to the caller's current stream (torch's for a torch tensor, CuPy's for a CuPy array), wait for nothing and
copy nothing to the host. With outputs passed in they allocate nothing but zeros, where blocks share an image or sums, and
can be captured in one of torch's CUDA graphs. The first call of a variant compiles it, which a capture does not allow:
make that call once before.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from medsass.config.options import check_ght
from medsass.labels import threshold as spec
from medsass.labels.compiler import BLOCK_BYTES, SHARED_BYTES, Limits, Variant, import_cupy, launch, limits, pointer

RESERVED = 1024  # bytes of shared memory a block that CUDA takes for itself
SLACK = 48  # bytes that alignment and the last wide read may take beyond a block's pixels
MOST_PIXELS = 1 << 27  # of an image: beyond it the exact sums would not fit their integers
MOST_BLOCK_SIZE = 255
TILE = 32  # adaptive.cu
MOST_SIDE = 65_535 * TILE  # tiles are the second and third dimension of the grid
REREAD_CHUNK = 1 << 16  # pixels a block where the image is read twice

_INPUTS = {None: 0, torch.bfloat16: 1, torch.float16: 2, torch.float32: 3}
_POLARITIES = {"bright": 0, "dark": 1, "auto": 2}
# The kernels' structs.
_GEOMETRY = np.dtype([(n, np.int32) for n in ("images", "pixels", "height", "width", "parts", "chunk", "polarity")])
_PARAMETERS = np.dtype([(name, np.float64) for name in ("nu", "tau2", "kappa", "omega")])
_NORMALISE = np.dtype([("scale", np.float32, 3), ("shift", np.float32, 3)])
_WINDOW = np.dtype([(name, np.int32) for name in ("height", "width", "block_size", "delta", "gaussian", "polarity")])


@dataclass(frozen=True)
class Normalise:
    """A request for the network's input: (x / 255 - mean) / std of each channel, as `dtype`.

    mean, std: three numbers each, for red, green and blue. Raises `ValueError` for other lengths, a std of 0 or another
    dtype.
    """

    mean: Sequence[float]
    std: Sequence[float]
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std):
            raise ValueError(f"mean and std must be three numbers each, std not 0; got {self.mean}, {self.std}")
        if self.dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise ValueError(f"the input's dtype must be bfloat16, float16 or float32; got {self.dtype}")


@dataclass(frozen=True)
class Labels:
    """The labels of a batch, or buffers for them; tensors on the batch's device.

    Attributes:
        mask: (N, H, W) uint8 in {0, 1}; from `Labeler` refined.
        threshold: (N,) float32 gray level, of the smoothed image where it is smoothed; NaN for the adaptive methods, whose
            threshold differs from pixel to pixel.
        separability: (N,) float32 in [0, 1], between-class over total variance of the gray levels of the two classes
            (for the adaptive methods: of the pixels above and not above their own threshold).
        input: the network's input (N, 3, H, W), channels-last, if a `Normalise` asks for it, else None.
        gray: (N, H, W) uint8, the image that was thresholded, if steps of the refinement made it; else None.
    """

    mask: torch.Tensor
    threshold: torch.Tensor
    separability: torch.Tensor
    input: torch.Tensor | None = None
    gray: torch.Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """Division of an image: its number of CUDA blocks, pixels a block (`chunk`), and whether they are read once."""

    blocks: int
    chunk: int
    once: bool


def plan(pixels: int, variant: Variant, limits: Limits) -> Plan:
    """Divide images of `pixels` pixels among CUDA blocks.

    One block where the image fits, preferably twice into a multiprocessor, so that one block loads while another solves;
    else several that share the image and wait for one another, where all of them can be resident; else two launches that
    read the image twice.
    """
    head = BLOCK_BYTES + variant.stage + SLACK
    rooms = {n: (min(limits.shared // n - RESERVED, limits.shared_block) - head) // 16 * 16 for n in (2, 1)}
    counts = [1 for room in rooms.values() if pixels <= room]
    counts += [-(-pixels // room) for n, room in rooms.items() if 0 < pixels <= n * limits.processors * room]
    if not counts:
        return Plan(math.ceil(pixels / REREAD_CHUNK), REREAD_CHUNK, once=False)
    chunk = math.ceil(pixels / counts[0] / 16) * 16
    return Plan(math.ceil(pixels / chunk), chunk, once=True)


def shared(plan: Plan, variant: Variant) -> int:
    """Return the bytes of shared memory of a block of `label`, or of `measure` where pixels are read twice."""
    return BLOCK_BYTES + variant.stage + (plan.chunk + SLACK if plan.once else 0)


def resident(plan: Plan, variant: Variant, limits: Limits) -> int:
    """Return how many blocks of `label` a GPU holds at once."""
    return limits.processors * min(variant.resident, limits.shared // (shared(plan, variant) + RESERVED))


def label(
    images: Any,
    polarity: str,
    ght: Sequence[float] | None = None,
    normalise: Normalise | None = None,
    out: Labels | None = None,
) -> Labels:
    """Label a batch on the GPU by Otsu, or by GHT if `ght` is given.

    The results equal those of `threshold.py`: Otsu's to the bit, GHT's except where the best scores differ by less than
    the last bits of the logarithm.

    Args:
        images: contiguous CUDA tensor or CuPy array: (N, H, W, 3) uint8 RGB, (N, H, W) uint8 or (N, H, W) uint16.
        polarity: "bright", "dark" or "auto".
        ght: (nu, tau, kappa, omega).
        normalise: also make the network's input; of uint8 images only.
        out: buffers for the results; allocated if None.

    Raises `ValueError` with the rule and the value seen.
    """
    images, stream = _input(images)
    channels, bits, side = _check(images, polarity)
    if normalise and bits == 16:
        raise ValueError("normalised input is made of uint8 images; got uint16")
    if ght is not None:
        check_ght(ght)
    (count, height, width), device = images.shape[:3], images.device.index
    pixels, where = height * width, (device, stream)
    variant = Variant("label.cu", channels, bits, ght is not None, _INPUTS[normalise.dtype if normalise else None])
    chosen = plan(pixels, variant, limits(device))
    several = chosen.blocks > 1 or not chosen.once
    with _on(stream, device):
        out = _outputs(images, normalise, out)
        work = torch.zeros(count * SHARED_BYTES, dtype=torch.uint8, device=images.device) if several else None
    nu, tau, kappa, omega = ght or (0.0, 0.0, 0.0, 0.0)
    geometry = np.array((count, pixels, height, width, chosen.blocks, chosen.chunk, side), _GEOMETRY)
    extra: tuple[Any, ...] = (geometry, np.array((nu, tau**2, kappa, omega), _PARAMETERS))
    if normalise:
        constants = np.array(spec.scale_and_shift(normalise.mean, normalise.std), _NORMALISE)
        extra = (*extra, pointer(out.input), constants)
    source, mask, space = pointer(images), pointer(out.mask), pointer(work)
    numbers = pointer(out.threshold), pointer(out.separability)
    blocks, bytes_ = count * chosen.blocks, shared(chosen, variant)
    if chosen.once:
        grid = (min(blocks, resident(chosen, variant, limits(device))),)
        arguments = (source, mask, *numbers, space, *extra)
        launch(variant, "label", where, grid, arguments, shared=bytes_, cooperative=several)  # blocks may wait
        return out
    if bits == 16:
        launch(variant, "ranges", where, (blocks,), (source, space, geometry))
    launch(variant, "measure", where, (blocks,), (source, *numbers, space, *extra), shared=bytes_)
    launch(variant, "apply", where, (blocks,), (source, mask, space, geometry))
    return out


def adaptive(
    images: Any, polarity: str, gaussian: bool, block_size: int, offset: float, out: Labels | None = None
) -> Labels:
    """Label a batch on the GPU by local thresholds, with the results of `threshold.py`.

    Args:
        images: contiguous CUDA tensor or CuPy array, (N, H, W, 3) uint8 RGB or (N, H, W) uint8.
        polarity: "bright", "dark" or "auto".
        gaussian: whether the neighbourhood's mean is weighted with a Gaussian.
        block_size: side of the neighbourhood in pixels, odd.
        offset: the constant that is subtracted from the mean.
        out: buffers for the results; allocated if None.

    Raises `ValueError` with the rule and the value seen.
    """
    images, stream = _input(images)
    channels, bits, wanted = _check(images, polarity)
    if bits == 16:
        raise ValueError("adaptive labels are made of uint8 images; got uint16")
    if not 3 <= block_size <= MOST_BLOCK_SIZE or block_size % 2 == 0:
        raise ValueError(f"block_size must be odd, from 3 to {MOST_BLOCK_SIZE}; got {block_size}")
    (count, height, width), device = images.shape[:3], images.device.index
    window = np.array((height, width, block_size, math.ceil(offset), int(gaussian), wanted), _WINDOW)
    if max(height, width) > MOST_SIDE:
        raise ValueError(
            f"an image may be at most {MOST_SIDE} pixels wide or high for adaptive labels; got {width} x {height}"
        )
    side = TILE + block_size - 1
    shared = (side * side + 3) // 4 * 4 + side * TILE * 4
    room = limits(device).shared_block
    if shared > room:
        raise ValueError(
            f"block_size {block_size} needs {shared} bytes of shared memory, this GPU has {room}; take less"
        )
    with _on(stream, device):
        out = _outputs(images, None, out)
        sums = torch.zeros(count * 6, dtype=torch.int64, device=images.device)
        weights = pointer(_weights(block_size, device))
    mask, total = pointer(out.mask), pointer(sums)
    numbers = pointer(out.threshold), pointer(out.separability)
    variant, where = Variant("adaptive.cu", channels), (device, stream)
    tiles = (count, -(-width // TILE), -(-height // TILE))
    launch(variant, "adaptive", where, tiles, (pointer(images), mask, total, weights, window), shared=shared)
    launch(variant, "finish", where, (count, 8), (mask, *numbers, total, window))
    return out


def _input(images: Any) -> tuple[torch.Tensor, int]:
    """Return the batch as a torch tensor on the same memory, and the stream that the caller works on."""
    if isinstance(images, torch.Tensor):
        if not images.is_cuda:
            raise ValueError(f"images must be on a CUDA device; got {images.device}")
        return images, torch.cuda.current_stream(images.device).cuda_stream
    cupy = import_cupy()
    if not isinstance(images, cupy.ndarray):
        raise ValueError(f"images must be a CUDA tensor or a CuPy array; got {type(images).__name__}")
    return torch.utils.dlpack.from_dlpack(images), int(cupy.cuda.get_current_stream().ptr)


def _on(stream: int, device: int) -> torch.cuda.StreamContext:
    """Direct torch's work to the stream of the kernels, which is not torch's current one if a CuPy array was passed.

    Stream 0 has to be named: ExternalStream(0) is not the default stream but one of torch's pool.
    """
    if stream == 0:
        return torch.cuda.stream(torch.cuda.default_stream(device))
    return torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device))  # type: ignore[no-untyped-call]


def _check(images: torch.Tensor, polarity: str) -> tuple[int, int, int]:
    """Return the channels and bits of a batch and the kernels' number of the polarity, or raise `ValueError`."""
    shape = tuple(images.shape)
    rgb = images.ndim == 4 and shape[3] == 3 and images.dtype == torch.uint8
    if not rgb and not (images.ndim == 3 and images.dtype in (torch.uint8, torch.uint16)):
        raise ValueError(
            f"images must be (N, H, W, 3) uint8 RGB, (N, H, W) uint8 or (N, H, W) uint16; got {shape}, {images.dtype}"
        )
    if images.numel() == 0:
        raise ValueError(f"images must not be empty; got shape {shape}")
    if not images.is_contiguous():
        raise ValueError(
            f"images must be contiguous; got strides {images.stride()} for shape {shape}; call .contiguous()"
        )
    if shape[1] * shape[2] > MOST_PIXELS:
        raise ValueError(f"an image may have at most {MOST_PIXELS} pixels; got {shape[1]} x {shape[2]}")
    if polarity not in _POLARITIES:
        raise ValueError(f"polarity must be one of {', '.join(_POLARITIES)}; got '{polarity}'")
    return (3 if rgb else 1), (16 if images.dtype == torch.uint16 else 8), _POLARITIES[polarity]


def _outputs(images: torch.Tensor, normalise: Normalise | None, out: Labels | None) -> Labels:
    """Allocate the outputs, or check those that were passed in."""
    n, h, w = images.shape[:3]
    plain, device = torch.contiguous_format, images.device
    wanted: dict[str, tuple[tuple[int, ...], torch.dtype, torch.memory_format]] = {
        "mask": ((n, h, w), torch.uint8, plain),
        "threshold": ((n,), torch.float32, plain),
        "separability": ((n,), torch.float32, plain),
    }
    if normalise:
        wanted["input"] = ((n, 3, h, w), normalise.dtype, torch.channels_last)
    if out is None:
        return Labels(
            **{name: torch.empty(s, dtype=t, device=device, memory_format=m) for name, (s, t, m) in wanted.items()}
        )
    for name, (shape, dtype, layout) in wanted.items():
        given: torch.Tensor | None = getattr(out, name)
        if given is None or tuple(given.shape) != shape or given.dtype != dtype or given.device != device:
            seen = "None" if given is None else f"{tuple(given.shape)}, {given.dtype}, {given.device}"
            raise ValueError(f"out.{name} must be {shape}, {dtype}, {device}; got {seen}")
        if not given.is_contiguous(memory_format=layout):
            raise ValueError(f"out.{name} must be contiguous ({layout}); got strides {given.stride()}")
    return out


@functools.cache
def _weights(block_size: int, device: int) -> torch.Tensor:
    return torch.from_numpy(spec.gaussian_weights(block_size).astype(np.int32)).to(f"cuda:{device}")
