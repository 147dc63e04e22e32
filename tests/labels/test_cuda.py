"""How images are shared out among blocks, what is refused, and (with a GPU) labels against the NumPy statements."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import cuda
from medsass.labels import threshold as spec
from tests.kernels.test_label import GHT, KINDS, POLARITIES, check, draw, image_of

H200 = cuda.Limits(233_472, 232_448, 132)
A100 = cuda.Limits(167_936, 166_912, 108)
T4 = cuda.Limits(65_536, 65_536, 40)
RTX4090 = cuda.Limits(102_400, 101_376, 128)
DEVICES = {"H200": H200, "A100": A100, "T4": T4, "RTX 4090": RTX4090}
COUNTABLE = 1 << 20  # histogram.cuh: pixels a block may count
RESERVED = 1024  # bytes of shared memory that CUDA takes for itself a block
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

on_devices = pytest.mark.parametrize("limits", DEVICES.values(), ids=DEVICES.keys())


@pytest.mark.parametrize("side", [1, 64, 224, 256, 299])
def test_small_image_is_one_part_on_an_h200(side: int) -> None:
    plan = cuda.plan(side * side, H200)
    assert (plan.parts, plan.once) == (1, True)


def test_dermoscopic_image_is_read_once_on_an_h200() -> None:
    plan = cuda.plan(1408 * 1876, H200)
    assert plan.once
    assert plan.parts > 1


@on_devices
def test_image_of_the_most_pixels_is_read_twice(limits: cuda.Limits) -> None:
    assert not cuda.plan(cuda.MOST_PIXELS, limits).once


@on_devices
@settings(deadline=None, max_examples=300)
@given(st.one_of(st.integers(1, 1 << 22), st.integers(1, cuda.MOST_PIXELS)))
def test_parts_cover_the_image_and_none_is_empty(limits: cuda.Limits, pixels: int) -> None:
    plan = cuda.plan(pixels, limits)
    assert (plan.parts - 1) * plan.chunk < pixels <= plan.parts * plan.chunk
    assert plan.chunk <= COUNTABLE


@on_devices
@settings(deadline=None, max_examples=300)
@given(st.integers(1, 1 << 24))
def test_two_blocks_fit_a_multiprocessor(limits: cuda.Limits, pixels: int) -> None:
    plan = cuda.plan(pixels, limits)
    block = cuda.BLOCK_BYTES + (plan.chunk + cuda.SLACK if plan.once else 0)
    assert 2 * (block + RESERVED) <= limits.shared
    assert block <= limits.shared_block


@on_devices
@settings(deadline=None, max_examples=300)
@given(st.integers(1, 1 << 24))
def test_parts_that_wait_for_one_another_can_all_be_resident(limits: cuda.Limits, pixels: int) -> None:
    plan = cuda.plan(pixels, limits)
    assert not plan.once or plan.parts <= 2 * limits.processors


@on_devices
def test_parts_begin_on_16_pixel_boundaries(limits: cuda.Limits) -> None:
    assert all(cuda.plan(pixels, limits).chunk % 16 == 0 for pixels in range(1, 3_000_000, 9_973))


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
        cuda._check(torch.empty(shape, dtype=dtype, device="meta"))
    assert str(error.value).endswith(f"got {shape}, {dtype}")


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((2, 4, 5, 3), torch.uint8, (3, 8)),
        ((2, 4, 5), torch.uint8, (1, 8)),
        ((2, 4, 5), torch.uint16, (1, 16)),
        ((2, 4, 3), torch.uint8, (1, 8)),
    ],
)
def test_channels_and_bits_of_a_batch(shape: tuple[int, ...], dtype: torch.dtype, expected: tuple[int, int]) -> None:
    assert cuda._check(torch.empty(shape, dtype=dtype, device="meta")) == expected


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (2, 0, 5), (2, 4, 0, 3)])
def test_empty_batch_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images must not be empty") as error:
        cuda._check(torch.empty(shape, dtype=torch.uint8))
    assert str(shape) in str(error.value)


def test_transposed_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="images must be contiguous") as error:
        cuda._check(torch.zeros(2, 3, 4, 5, dtype=torch.uint8).permute(0, 2, 3, 1))
    assert "(60, 5, 1, 20)" in str(error.value)


def test_every_other_column_is_refused() -> None:
    with pytest.raises(ValueError, match="images must be contiguous"):
        cuda._check(torch.zeros(2, 4, 10, dtype=torch.uint8)[:, :, ::2])


def test_oversized_image_is_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {cuda.MOST_PIXELS} pixels; got 16385 x 8192"):
        cuda._check(torch.empty(1, 16_385, 8192, dtype=torch.uint8, device="meta"))


def test_image_of_the_most_pixels_is_accepted() -> None:
    assert cuda._check(torch.empty(1, 16_384, 8192, dtype=torch.uint8, device="meta")) == (1, 8)


def test_cpu_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="images must be on a CUDA device; got cpu"):
        cuda.label(torch.zeros(1, 4, 4, dtype=torch.uint8), "bright")


def test_numpy_batch_is_refused() -> None:
    pytest.importorskip("cupy", reason="needs CuPy")
    with pytest.raises(ValueError, match="a CUDA tensor or a CuPy array; got ndarray"):
        cuda.label(np.zeros((1, 4, 4), np.uint8), "bright")


BATCH = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
NORMALISE = cuda.Normalise(MEAN, STD)


def _allocated(batch: torch.Tensor = BATCH) -> cuda.Outputs:
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


def test_missing_input_output_is_refused() -> None:
    with pytest.raises(ValueError, match=r"out\.input must be .*; got None"):
        cuda._outputs(BATCH, NORMALISE, replace(_allocated(), input=None))


def test_input_output_that_is_not_channels_last_is_refused() -> None:
    planar = torch.zeros(2, 3, 4, 6, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"out\.input must be contiguous \(torch\.channels_last\); got strides"):
        cuda._outputs(BATCH, NORMALISE, replace(_allocated(), input=planar))


def test_mask_output_with_gaps_is_refused() -> None:
    gaps = torch.zeros(2, 4, 12, dtype=torch.uint8)[:, :, ::2]
    with pytest.raises(ValueError, match=r"out\.mask must be contiguous") as error:
        cuda._outputs(BATCH, None, replace(_allocated(), mask=gaps))
    assert "(48, 12, 2)" in str(error.value)


def test_outputs_on_another_device_are_refused() -> None:
    elsewhere = torch.empty(2, 4, 6, dtype=torch.uint8, device="meta")
    with pytest.raises(ValueError, match=r"out\.mask must be .*; got .*meta"):
        cuda._outputs(BATCH, None, replace(_allocated(), mask=elsewhere))


@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_input_of_another_dtype_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"must be bfloat16, float16 or float32; got {dtype}"):
        cuda._outputs(BATCH, cuda.Normalise(MEAN, STD, dtype), None)


Launch = tuple[str, tuple[int, ...], int]  # kernel, grid, bytes of shared memory


def _launches(monkeypatch: pytest.MonkeyPatch, limits: cuda.Limits) -> list[Launch]:
    """What `cuda` launches from here on, which is only written down: batches may lie on the CPU."""
    launched: list[Launch] = []

    def write_down(_: Any, __: Any, ___: Any, grid: tuple[int, ...], name: str, shared: int, ____: Any) -> None:
        launched.append((name, grid, shared))

    monkeypatch.setattr(cuda, "launch", write_down)
    monkeypatch.setattr(cuda, "_input", lambda images: (images, 0))
    monkeypatch.setattr(cuda, "limits", lambda _: limits)
    monkeypatch.setattr(cuda, "_on", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "_workspace", lambda *_: torch.zeros(1))
    monkeypatch.setattr(cuda, "_sums", lambda *_: torch.zeros(1))
    monkeypatch.setattr(cuda, "_weights", lambda *_: torch.zeros(1))
    return launched


def test_image_that_fits_is_one_launch_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = _launches(monkeypatch, H200)
    cuda.label(torch.zeros(5, 224, 224, 3, dtype=torch.uint8), "bright")
    assert launched == [("label", (5,), cuda.BLOCK_BYTES + 224 * 224 + cuda.SLACK)]


@pytest.mark.parametrize(
    ("dtype", "names"),
    [(torch.uint8, ["measure", "apply"]), (torch.uint16, ["ranges", "measure", "apply"])],
)
def test_image_that_does_not_fit_is_read_twice(
    dtype: torch.dtype, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = _launches(monkeypatch, T4)
    cuda.label(torch.zeros(2, 1408, 1876, dtype=dtype), "bright")
    parts = -(-1408 * 1876 // cuda.REREAD_CHUNK)
    assert [(name, grid) for name, grid, _ in launched] == [(name, (2 * parts,)) for name in names]


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


# With a GPU, from here on.

gpu = pytest.mark.gpu
LARGE = [(1, 224, 224), (2, 299, 299), (2, 480, 480), (2, 512, 512), (2, 1408, 1876)]
FORMS = ("rgb", "gray", "gray16")


def _batch(n: int, shape: tuple[int, int], form: str, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return np.stack([image_of(str(rng.choice(KINDS)), shape, rng, form) for _ in range(n)])


def _on_gpu(images: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(images).cuda()


def _poisoned(images: torch.Tensor, normalise: cuda.Normalise | None = None) -> cuda.Outputs:
    out = cuda._outputs(images, normalise, None)
    for tensor in (out.mask, out.threshold, out.separability, out.input):
        if tensor is not None:
            tensor.fill_(165)
    return out


def _label_and_check(images: NDArray[Any], polarity: str, ght: Sequence[float] | None = None) -> None:
    check(images, polarity, ght, _arrays(cuda.label(_on_gpu(images), polarity, ght)))


def _arrays(out: cuda.Outputs) -> Any:
    """`out` with NumPy arrays, on the host."""
    return cuda.Outputs(out.mask.cpu().numpy(), out.threshold.cpu().numpy(), out.separability.cpu().numpy())  # type: ignore[arg-type]


def _workspaces_are_zero() -> bool:
    torch.cuda.synchronize()
    return not any(bool(workspace.any()) for workspace in cuda._workspaces.values())


@gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("form", FORMS)
def test_gpu_otsu_of_every_kind_is_as_stated(form: str, polarity: str, kind: str) -> None:
    rng = np.random.default_rng(1)
    images = np.stack([image_of(kind, (61, 83), rng, form) for _ in range(5)])
    _label_and_check(images, polarity)


@gpu
@pytest.mark.parametrize("parameters", GHT.values(), ids=GHT.keys())
@pytest.mark.parametrize("form", FORMS)
def test_gpu_ght_is_as_stated(form: str, parameters: tuple[float, float, float, float]) -> None:
    for seed in range(10):
        _label_and_check(_batch(4, (37 + seed, 64 - 3 * seed), form, seed), "auto", parameters)


@gpu
@pytest.mark.parametrize("size", LARGE, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_gpu_labels_of_usual_sizes_are_as_stated(form: str, size: tuple[int, int, int]) -> None:
    n, *shape = size
    for seed, ght in enumerate((None, GHT["documents"])):
        _label_and_check(_batch(n, (shape[0], shape[1]), form, seed), "auto", ght)
    assert _workspaces_are_zero()


@gpu
@pytest.mark.parametrize("form", FORMS)
def test_gpu_image_that_is_read_twice_is_as_stated(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "plan", lambda pixels, _: cuda.Plan(-(-pixels // 4096), 4096, once=False))
    _label_and_check(_batch(3, (233, 301), form, 2), "auto")
    assert _workspaces_are_zero()


@gpu
def test_gpu_10_000_random_shapes_are_as_stated() -> None:
    rng = np.random.default_rng(2026)
    for seed in range(10_000):
        shape = int(rng.integers(1, 48)), int(rng.integers(1, 48))
        form, polarity = str(rng.choice(FORMS)), str(rng.choice(POLARITIES))
        _label_and_check(_batch(int(rng.integers(1, 5)), shape, form, seed), polarity)


@gpu
@pytest.mark.parametrize("offset", range(1, 16))
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_gpu_unaligned_images_are_as_stated(form: str, offset: int) -> None:
    images = _batch(2, (45, 31), form, offset)
    buffer = torch.zeros(images.nbytes + 16, dtype=torch.uint8, device="cuda")
    view = buffer[offset : offset + images.nbytes].view(images.shape)
    view.copy_(torch.from_numpy(images))
    check(images, "auto", None, _arrays(cuda.label(view, "auto")))


@gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("form", ["rgb", "gray"])
@pytest.mark.parametrize("shape", [(31, 45), (224, 224), (480, 481)])
def test_gpu_input_is_normalised_and_rounded_as_stated(shape: tuple[int, int], form: str, dtype: torch.dtype) -> None:
    images = _batch(3, shape, form, 3)
    normalise = cuda.Normalise(MEAN, STD, dtype)
    on_gpu = _on_gpu(images)
    out = cuda.label(on_gpu, "auto", normalise=normalise, out=_poisoned(on_gpu, normalise))
    assert out.input is not None
    rgb = images if form == "rgb" else np.repeat(images[..., None], 3, axis=3)
    wanted = torch.from_numpy(spec.normalised(rgb, MEAN, STD)).to(dtype).permute(0, 3, 1, 2)
    assert torch.equal(out.input.cpu(), wanted)
    check(images, "auto", None, _arrays(out))


@gpu
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(29, 43), (480, 481)])
def test_gpu_every_byte_of_given_outputs_is_written(shape: tuple[int, int], form: str) -> None:
    images = _batch(3, shape, form, 4)
    on_gpu = _on_gpu(images)
    out = _poisoned(on_gpu)
    assert cuda.label(on_gpu, "dark", out=out) is out
    check(images, "dark", None, _arrays(out))


@gpu
@pytest.mark.parametrize("gaussian", [False, True], ids=["mean", "gaussian"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (33, 31), (224, 224), (480, 512)])
def test_gpu_adaptive_is_as_stated(shape: tuple[int, int], form: str, gaussian: bool) -> None:
    state = spec.adaptive_gaussian if gaussian else spec.adaptive_mean
    for seed, (block, offset, polarity) in enumerate([(3, 0.5, "bright"), (51, -2.0, "auto"), (99, 7.3, "dark")]):
        images = _batch(3, shape, form, seed)
        on_gpu = _on_gpu(images)
        out = cuda.adaptive(on_gpu, polarity, gaussian, block, offset, out=_poisoned(on_gpu))
        for image, mask in zip(images, out.mask.cpu().numpy(), strict=True):
            gray = spec.gray(image) if form == "rgb" else image
            constant = gray.min() == gray.max()
            above = state(gray, block, offset).astype(bool)
            wanted = np.zeros_like(gray) if constant else spec.foreground(above, polarity)
            assert np.array_equal(mask, wanted)
        assert out.threshold.isnan().all()
        assert ((out.separability >= 0) & (out.separability <= 1)).all()


@gpu
@pytest.mark.parametrize("block", [2, 50, 1, 257])
def test_gpu_adaptive_refuses_other_block_sizes(block: int) -> None:
    with pytest.raises(ValueError, match=f"block_size must be odd, from 3 to {cuda.MOST_BLOCK_SIZE}; got {block}"):
        cuda.adaptive(torch.zeros(1, 8, 8, dtype=torch.uint8, device="cuda"), "bright", False, block, 0.0)


@gpu
def test_gpu_adaptive_refuses_16_bits() -> None:
    with pytest.raises(ValueError, match="adaptive labels are made of uint8 images; got uint16"):
        cuda.adaptive(_on_gpu(np.zeros((1, 8, 8), np.uint16)), "bright", False, 3, 0.0)


@gpu
def test_gpu_adaptive_of_the_largest_block_is_as_stated() -> None:
    image = image_of("bimodal", (70, 90), np.random.default_rng(5), "gray")
    mask = cuda.adaptive(_on_gpu(image[None]), "bright", True, cuda.MOST_BLOCK_SIZE, 1.0).mask[0].cpu().numpy()
    assert np.array_equal(mask, spec.adaptive_gaussian(image, cuda.MOST_BLOCK_SIZE, 1.0))


@gpu
@pytest.mark.parametrize("shape", [(224, 224), (480, 480)])
def test_gpu_label_runs_on_torchs_current_stream(shape: tuple[int, int]) -> None:
    first, second = _batch(4, shape, "rgb", 6), _batch(4, shape, "rgb", 7)
    host = torch.from_numpy(second).pin_memory()
    images = _on_gpu(first)
    cuda.label(images, "auto")  # compiles
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # device cycles: what follows is wrong unless it waits on this stream
        images.copy_(host, non_blocking=True)
        out = cuda.label(images, "auto")
    stream.synchronize()
    check(second, "auto", None, _arrays(out))


@gpu
@pytest.mark.parametrize("shape", [(224, 224), (480, 480)])
def test_gpu_cupy_array_on_a_cupy_stream_is_as_stated(shape: tuple[int, int]) -> None:
    import cupy

    images = _batch(3, shape, "gray", 8)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        out = cuda.label(cupy.asarray(images), "bright")
    stream.synchronize()
    check(images, "bright", None, _arrays(out))


@gpu
@pytest.mark.parametrize("shape", [(224, 224), (1408, 1876)])
@pytest.mark.parametrize("form", ["rgb", "gray16"])
def test_gpu_graph_replays_on_new_contents(form: str, shape: tuple[int, int]) -> None:
    contents = [_batch(2, shape, form, seed) for seed in (9, 10, 11)]
    images = _on_gpu(contents[0])
    out = _poisoned(images)
    cuda.label(images, "auto", out=out)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        cuda.label(images, "auto", out=out)
    for new in contents[1:]:
        images.copy_(torch.from_numpy(new))
        out.mask.fill_(165)
        graph.replay()
        torch.cuda.synchronize()
        check(new, "auto", None, _arrays(out))


@gpu
@pytest.mark.parametrize("shape", [(64, 64), (480, 480)])
def test_gpu_label_never_waits_for_the_device(shape: tuple[int, int]) -> None:
    images = _batch(2, shape, "rgb", 12)
    on_gpu = _on_gpu(images)
    out = _poisoned(on_gpu, NORMALISE)
    cuda.label(on_gpu, "auto", normalise=NORMALISE, out=out)  # compiles
    cuda.adaptive(on_gpu, "auto", True, 11, 0.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cuda.label(on_gpu, "auto", normalise=NORMALISE, out=out)
        cuda.adaptive(on_gpu, "auto", True, 11, 0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    check(images, "auto", None, _arrays(out))


@gpu
def test_gpu_large_images_on_two_streams_at_once_are_as_stated() -> None:
    batches = [_batch(8, (1408, 1876), "gray", seed) for seed in (13, 14)]
    on_gpu, streams = [_on_gpu(batch) for batch in batches], [torch.cuda.Stream() for _ in batches]
    outs = [_poisoned(images) for images in on_gpu]
    torch.cuda.synchronize()
    for _ in range(20):
        for images, out, stream in zip(on_gpu, outs, streams, strict=True):
            with torch.cuda.stream(stream):
                cuda.label(images, "auto", out=out)
    torch.cuda.synchronize()
    for batch, out in zip(batches, outs, strict=True):
        check(batch, "auto", None, _arrays(out))
    assert _workspaces_are_zero()


@gpu
@pytest.mark.parametrize("form", FORMS)
def test_gpu_images_of_several_parts_leave_the_workspace_clean(form: str) -> None:
    for seed in range(50):
        n = 1 + seed % 3
        _label_and_check(_batch(n, (480 + seed, 512 - seed), form, seed), "auto")
    assert _workspaces_are_zero()


@gpu
def test_gpu_batch_that_grows_and_shrinks_is_as_stated() -> None:
    for seed, n in enumerate((1, 9, 2, 17, 1)):
        _label_and_check(_batch(n, (401, 399), "gray", seed), "auto")
    assert _workspaces_are_zero()


@gpu
def test_gpu_ties_take_the_first_maximiser_at_every_block_count() -> None:
    for side in (6, 60, 300, 600):
        levels = np.repeat(np.array([3, 128, 253], np.uint8), side * side // 3).reshape(1, side, side)
        mixed = np.random.default_rng(side).permutation(levels.ravel()).reshape(levels.shape)
        assert float(cuda.label(_on_gpu(mixed), "bright").threshold[0]) == 3


@gpu
def test_gpu_histogram_counts_a_million_equal_pixels_without_overflow() -> None:
    image = draw("constant", (1408, 1876), np.random.default_rng(15)).astype(np.uint8)
    image[0, 0] = 0
    _label_and_check(image[None], "auto")


@gpu
def test_gpu_compiled_op_equals_the_statement() -> None:
    pytest.importorskip("medsass.labels.ops", reason="medsass.labels.ops is not there")
    images = _batch(3, (96, 100), "rgb", 16)
    options = ("otsu", "auto", list(GHT["minimum error"]), 51, 0.0)
    plain = torch.ops.medsass.label(_on_gpu(images), *options)

    @torch.compile(fullgraph=True)
    def labelled(batch: torch.Tensor) -> Any:
        return torch.ops.medsass.label(batch, *options)

    compiled = labelled(_on_gpu(images))
    for out in (plain, compiled):
        check(images, "auto", None, _arrays(cuda.Outputs(*out)))


@gpu
def test_gpu_cupy_stream_does_not_race_with_torchs_stream() -> None:
    # What the kernel counts on being zero must be zeroed on the stream of the kernel, here CuPy's, not on torch's.
    import cupy

    images = np.stack([image_of("bimodal", (64, 64), np.random.default_rng(seed), "gray") for seed in range(3)])
    wanted = cuda.adaptive(_on_gpu(images), "bright", False, 11, 0.0).separability.cpu()  # compiles
    stream, batch = cupy.cuda.Stream(non_blocking=True), cupy.asarray(images)
    torch.cuda.synchronize()
    dirty = torch.full((3, 6), 1 << 20, dtype=torch.int64, device="cuda")
    del dirty  # the next allocation of this size gets this memory
    torch.cuda._sleep(200_000_000)  # device cycles that torch's stream is behind
    with stream:
        out = cuda.adaptive(batch, "bright", False, 11, 0.0)
    stream.synchronize()
    torch.cuda.synchronize()
    assert torch.equal(out.separability.cpu(), wanted)
