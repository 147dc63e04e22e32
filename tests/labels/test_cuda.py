"""The division of images among CUDA blocks, and what is refused."""

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medsass.labels import cuda
from tests.support.effort import examples

H200 = cuda.Limits(233_472, 232_448, 132)
A100 = cuda.Limits(167_936, 166_912, 108)
T4 = cuda.Limits(65_536, 65_536, 40)
RTX4090 = cuda.Limits(102_400, 101_376, 128)
DEVICES = {"H200": H200, "A100": A100, "T4": T4, "RTX 4090": RTX4090}
RGB, GRAY = cuda.Variant("label.cu"), cuda.Variant("label.cu", 1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

on_devices = pytest.mark.parametrize("limits", DEVICES.values(), ids=DEVICES.keys())


on_variants = pytest.mark.parametrize("variant", [RGB, GRAY], ids=["RGB", "gray"])


@pytest.mark.parametrize(("side", "variant"), [(1, RGB), (64, RGB), (224, RGB), (299, RGB), (224, GRAY), (299, GRAY)])
def test_a_small_image_is_one_block_on_an_h200_and_a_dermoscopic_one_is_read_once(
    side: int, variant: cuda.Variant
) -> None:
    plan = cuda.plan(side * side, variant, H200)
    assert (plan.blocks, plan.once) == (1, True)
    plan = cuda.plan(1408 * 1876, RGB, H200)
    assert plan.once
    assert plan.blocks > 1


@on_devices
@on_variants
@examples(300)
@given(st.one_of(st.integers(1, 1 << 22), st.integers(1, 1 << 24), st.integers(1, cuda.MOST_PIXELS)))
def test_blocks_cover_the_image_fit_a_multiprocessor_and_can_wait_for_one_another(
    limits: cuda.Limits, variant: cuda.Variant, pixels: int
) -> None:
    plan = cuda.plan(pixels, variant, limits)
    assert (plan.blocks - 1) * plan.chunk < pixels <= plan.blocks * plan.chunk
    assert plan.chunk % 16 == 0
    memory = cuda.shared(plan, variant)
    assert memory + cuda.RESERVED <= limits.shared
    assert memory <= limits.shared_block
    assert not plan.once or plan.blocks <= cuda.resident(plan, variant, limits)


@on_devices
def test_an_image_of_the_most_pixels_is_read_twice(limits: cuda.Limits) -> None:
    assert not cuda.plan(cuda.MOST_PIXELS, RGB, limits).once


@pytest.mark.parametrize("limits", [H200, A100], ids=["H200", "A100"])
def test_two_blocks_of_the_papers_images_fit_a_multiprocessor(limits: cuda.Limits) -> None:
    for variant in (RGB, GRAY):
        assert (
            cuda.resident(cuda.plan(224 * 224, variant, limits), variant, limits)
            >= (2 if limits == H200 else 1) * limits.processors
        )


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 4, 5, 4), torch.uint8),
        ((2, 4, 5, 3), torch.float32),
        ((2, 4, 5, 3), torch.uint16),
        ((4, 5), torch.uint8),
        ((2, 4, 5), torch.int16),
        ((2, 4, 5), torch.int8),
        ((1, 2, 4, 5, 3), torch.uint8),
    ],
)
def test_other_shapes_and_dtypes_are_refused(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"images must be \(N, H, W, 3\) uint8 RGB") as error:
        cuda._check(torch.empty(shape, dtype=dtype, device="meta"), "bright")
    assert str(error.value).endswith(f"got {shape}, {dtype}")


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((2, 4, 5, 3), torch.uint8, (3, 8)),
        ((2, 4, 5), torch.uint8, (1, 8)),
        ((2, 4, 5), torch.uint16, (1, 16)),
        ((2, 4, 3), torch.uint8, (1, 8)),
        ((1, 16_384, 8192), torch.uint8, (1, 8)),  # the most pixels
    ],
)
def test_channels_and_bits_of_a_batch(shape: tuple[int, ...], dtype: torch.dtype, expected: tuple[int, int]) -> None:
    assert cuda._check(torch.empty(shape, dtype=dtype, device="meta"), "dark") == (*expected, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.empty(0, 4, 5, 3, dtype=torch.uint8), r"must not be empty; got shape \(0, 4, 5, 3\)"),
        (torch.empty(2, 0, 5, dtype=torch.uint8), r"must not be empty; got shape \(2, 0, 5\)"),
        (torch.empty(2, 4, 0, 3, dtype=torch.uint8), r"must not be empty; got shape \(2, 4, 0, 3\)"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8).permute(0, 2, 3, 1), r"must be contiguous; .*\(60, 5, 1, 20\)"),
        (torch.zeros(2, 4, 10, dtype=torch.uint8)[:, :, ::2], "must be contiguous"),
        (torch.empty(1, 16_385, 8192, dtype=torch.uint8, device="meta"), f"at most {cuda.MOST_PIXELS} pixels; got 16385 x 8192"),
    ],
    ids=["no image", "no row", "no column", "transposed", "every other column", "too large"],
)  # fmt: skip
def test_other_batches_are_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"image.* {message}"):
        cuda._check(images, "bright")


def test_cpu_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="images must be on a CUDA device; got cpu"):
        cuda.label(torch.zeros(1, 4, 4, dtype=torch.uint8), "bright")


def test_numpy_batch_is_refused() -> None:
    pytest.importorskip("cupy", reason="needs CuPy")
    with pytest.raises(ValueError, match="a CUDA tensor or a CuPy array; got ndarray"):
        cuda.label(np.zeros((1, 4, 4), np.uint8), "bright")


BATCH = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
NORMALISE = cuda.Normalise(MEAN, STD)


def _allocated(batch: torch.Tensor = BATCH) -> cuda.Labels:
    return cuda._outputs(batch, NORMALISE, None)


def test_outputs_are_allocated_as_documented() -> None:
    out = _allocated()
    assert out.input is not None
    assert (tuple(out.mask.shape), out.mask.dtype) == ((2, 4, 6), torch.uint8)
    assert (tuple(out.threshold.shape), out.threshold.dtype) == ((2,), torch.float32)
    assert (tuple(out.separability.shape), out.separability.dtype) == ((2,), torch.float32)
    assert (tuple(out.input.shape), out.input.dtype) == ((2, 3, 4, 6), torch.bfloat16)
    assert out.input.permute(0, 2, 3, 1).is_contiguous()


def test_good_outputs_are_taken_as_they_are() -> None:
    out = _allocated()
    assert cuda._outputs(BATCH, NORMALISE, out) is out


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("mask", torch.zeros(2, 4, 5, dtype=torch.uint8)),
        ("mask", torch.zeros(2, 4, 6, dtype=torch.bool)),
        ("threshold", torch.zeros(3)),
        ("threshold", torch.zeros(2, dtype=torch.float64)),
        ("separability", torch.zeros(2, 1)),
        ("input", torch.zeros(2, 4, 6, 3, dtype=torch.bfloat16)),
        ("input", torch.zeros(2, 3, 4, 6, dtype=torch.float16)),
    ],
)
def test_outputs_of_other_shape_or_dtype_are_refused(name: str, tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=rf"out\.{name} must be") as error:
        cuda._outputs(BATCH, NORMALISE, replace(_allocated(), **{name: tensor}))
    assert str(error.value).endswith(f"got {tuple(tensor.shape)}, {tensor.dtype}, cpu")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("input", None, r"out\.input must be .*; got None"),
        ("input", torch.zeros(2, 3, 4, 6, dtype=torch.bfloat16), r"out\.input must be contiguous \(torch\.channels_last\); got strides"),
        ("mask", torch.zeros(2, 4, 12, dtype=torch.uint8)[:, :, ::2], r"out\.mask must be contiguous .*\(48, 12, 2\)"),
        ("mask", torch.empty(2, 4, 6, dtype=torch.uint8, device="meta"), r"out\.mask must be .*; got .*meta"),
    ],
    ids=["none", "channels first", "gaps", "another device"],
)  # fmt: skip
def test_outputs_that_cannot_be_written_are_refused(name: str, tensor: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cuda._outputs(BATCH, NORMALISE, replace(_allocated(), **{name: tensor}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_input_of_another_dtype_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"must be bfloat16, float16 or float32; got {dtype}"):
        cuda._outputs(BATCH, cuda.Normalise(MEAN, STD, dtype), None)


Launch = tuple[str, tuple[int, ...], int]  # kernel, grid, bytes of shared memory


def _launches(monkeypatch: pytest.MonkeyPatch, limits: cuda.Limits) -> list[Launch]:
    """Record launches in place of starting them, so that batches may be on the CPU."""
    launched: list[Launch] = []

    def write_down(_: Any, name: str, __: Any, grid: tuple[int, ...], ___: Any, shared: int = 0, **____: Any) -> None:
        launched.append((name, grid, shared))

    monkeypatch.setattr(cuda, "launch", write_down)
    monkeypatch.setattr(cuda, "_input", lambda images: (images, 0))
    monkeypatch.setattr(cuda, "limits", lambda _: limits)
    monkeypatch.setattr(cuda, "_on", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "_weights", lambda *_: torch.zeros(1))
    return launched


def test_image_that_fits_is_one_launch_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = _launches(monkeypatch, H200)
    cuda.label(torch.zeros(5, 224, 224, 3, dtype=torch.uint8), "bright")
    assert launched == [("label", (5,), cuda.BLOCK_BYTES + RGB.stage + 224 * 224 + cuda.SLACK)]


@pytest.mark.parametrize(
    ("dtype", "names"),
    [(torch.uint8, ["measure", "apply"]), (torch.uint16, ["ranges", "measure", "apply"])],
)
def test_image_that_does_not_fit_is_read_twice(
    dtype: torch.dtype, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = _launches(monkeypatch, T4)
    cuda.label(torch.zeros(2, 2816, 1876, dtype=dtype), "bright")
    blocks = -(-2816 * 1876 // cuda.REREAD_CHUNK)
    assert [(name, grid) for name, grid, _ in launched] == [(name, (2 * blocks,)) for name in names]


@pytest.mark.parametrize("limits", [H200, A100, T4, RTX4090], ids=str)
def test_adaptive_asks_for_no_more_shared_memory_than_a_block_may_have(
    limits: cuda.Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = _launches(monkeypatch, limits)
    try:
        cuda.adaptive(torch.zeros(1, 8, 8, dtype=torch.uint8), "bright", False, cuda.MOST_BLOCK_SIZE, 0.0)
    except ValueError as error:
        assert "block_size" in str(error)  # noqa: PT017 - to refuse is as good as to fit
    assert all(shared <= limits.shared_block for _, _, shared in launched)


def test_adaptive_takes_more_images_than_a_grid_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = _launches(monkeypatch, H200)
    cuda.adaptive(torch.zeros(70_000, 1, 1, dtype=torch.uint8), "bright", False, 3, 0.0)
    assert all(size <= 65_535 for _, grid, _ in launched for size in grid[1:])


@pytest.mark.parametrize("adaptive", [False, True])
def test_other_polarities_are_refused(adaptive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _launches(monkeypatch, H200)
    images = torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="polarity must be"):
        cuda.adaptive(images, "up", False, 3, 0.0) if adaptive else cuda.label(images, "up")
