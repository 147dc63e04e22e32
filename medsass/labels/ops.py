"""Labelling as operators of torch, so that `torch.compile` traces through it: `medsass::label`, `medsass::label_input`,
`medsass::input`, and for refinements `medsass::before` and `medsass::after`.

They run the CUDA kernels or the CPU code depending on where the images are. Each has a fake kernel that gives the shapes.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch

from medsass.config.refine import parse
from medsass.labels import cpu, cuda, refine, threshold
from medsass.labels.cuda import Normalise

# Spelled out, because what torch infers from type hints differs between its versions.
_OPTIONS = "Tensor images, str method, str polarity, float[] ght, int block_size, float offset"

Two = tuple[torch.Tensor, torch.Tensor]
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@torch.library.custom_op("medsass::label", mutates_args=(), schema=f"({_OPTIONS}) -> (Tensor, Tensor, Tensor)")
def label(
    images: torch.Tensor, method: str, polarity: str, ght: Sequence[float], block_size: int, offset: float
) -> Three:
    """Return mask (N, H, W) uint8 in {0, 1}, threshold (N,) float32 and separability (N,) float32 of a batch."""
    if images.is_cuda:
        images = images.contiguous()
        if method in cpu.ADAPTIVE:
            out = cuda.adaptive(images, polarity, method == "adaptive-gaussian", block_size, offset)
        else:
            out = cuda.label(images, polarity, ght if method == "ght" else None)
        return out.mask, out.threshold, out.separability
    labelled = [cpu.label(image, method, polarity, ght, block_size, offset) for image in images.numpy()]
    masks, *numbers = zip(*labelled, strict=True)
    levels, separability = (torch.tensor(values, dtype=torch.float32) for values in numbers)
    return torch.from_numpy(np.stack(masks)), levels, separability


@label.register_fake
def _(images: torch.Tensor, method: str, polarity: str, ght: Sequence[float], block_size: int, offset: float) -> Three:  # noqa: ARG001
    n, h, w = images.shape[:3]
    levels, separability = images.new_empty((n,), dtype=torch.float32), images.new_empty((n,), dtype=torch.float32)
    return images.new_empty((n, h, w), dtype=torch.uint8), levels, separability


@torch.library.custom_op(
    "medsass::label_input",
    mutates_args=(),
    schema=f"({_OPTIONS}, float[] mean, float[] std, ScalarType dtype) -> (Tensor, Tensor, Tensor, Tensor)",
)
def label_input(
    images: torch.Tensor, method: str, polarity: str, ght: Sequence[float], block_size: int, offset: float,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Four:  # fmt: skip
    """Return the results of `label`, and the network's input (N, 3, H, W) of `dtype`, channels-last.

    On the GPU Otsu and GHT read the batch once for all four.
    """
    if images.is_cuda and method not in cpu.ADAPTIVE:
        out = cuda.label(images.contiguous(), polarity, ght if method == "ght" else None, Normalise(mean, std, dtype))
        assert out.input is not None
        return out.mask, out.threshold, out.separability, out.input
    return *label(images, method, polarity, ght, block_size, offset), input(images, mean, std, dtype)


@label_input.register_fake
def _(
    images: torch.Tensor, method: str, polarity: str, ght: Sequence[float], block_size: int, offset: float,
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype,
) -> Four:  # fmt: skip
    return *label(images, method, polarity, ght, block_size, offset), input(images, mean, std, dtype)


@torch.library.custom_op(
    "medsass::input", mutates_args=(), schema="(Tensor images, float[] mean, float[] std, ScalarType dtype) -> Tensor"
)
def input(images: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> torch.Tensor:  # noqa: A001
    """Return the network's input (N, 3, H, W) of `dtype`, channels-last, where it is not made with the labels.

    The values are those of `threshold.normalised`; a gray channel stands for all three.
    """
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    rgb = images if images.ndim == 4 else images.unsqueeze(-1)
    return (rgb * scale + shift).to(dtype).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


@input.register_fake
def _(images: torch.Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> torch.Tensor:  # noqa: ARG001
    n, h, w = images.shape[:3]
    return images.new_empty((n, 3, h, w), dtype=dtype).to(memory_format=torch.channels_last)


@functools.cache
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Cached on the device: a CUDA graph that is being captured must not copy them from the host."""
    return tuple(torch.from_numpy(constant).to(device) for constant in threshold.scale_and_shift(mean, std))


@torch.library.custom_op("medsass::before", mutates_args=(), schema="(Tensor images, str steps) -> (Tensor, Tensor)")
def before(images: torch.Tensor, steps: str) -> Two:
    """Apply the steps before the threshold to a uint8 batch: gray image, and 1 outside of the field of view."""
    gray, outside = refine.of_images(images, parse(steps))
    return (gray.clone(memory_format=torch.contiguous_format) if gray is images else gray), outside


before.register_fake(lambda images, _: (images.new_empty(images.shape[:3]), images.new_empty(images.shape[:3])))


@torch.library.custom_op(
    "medsass::after", mutates_args=(), schema="(Tensor mask, Tensor? outside, str steps) -> Tensor"
)
def after(mask: torch.Tensor, outside: torch.Tensor | None, steps: str) -> torch.Tensor:
    """Apply the steps after the threshold to a mask (N, H, W) uint8 in {0, 1}; nothing in `outside` is foreground."""
    return refine.of_mask(mask, outside, parse(steps))


after.register_fake(lambda mask, *_: torch.empty_like(mask, memory_format=torch.contiguous_format))
