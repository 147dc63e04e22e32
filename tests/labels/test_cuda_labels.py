"""With a GPU: labels against the NumPy statements."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medsass.labels import cuda
from medsass.labels import threshold as spec
from tests.kernels.labelled import GHT, KINDS, POLARITIES, check, draw, image_of

pytestmark = pytest.mark.gpu

NORMALISE = cuda.Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LARGE = [(1, 224, 224), (2, 299, 299), (2, 480, 480), (2, 512, 512), (2, 1408, 1876)]
FORMS = ("rgb", "gray", "gray16")


def _batch(n: int, shape: tuple[int, int], form: str, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return np.stack([image_of(str(rng.choice(KINDS)), shape, rng, form) for _ in range(n)])


def _on_gpu(images: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(images).cuda()


def _poisoned(images: torch.Tensor, normalise: cuda.Normalise | None = None) -> cuda.Labels:
    out = cuda._outputs(images, normalise, None)
    for tensor in (out.mask, out.threshold, out.separability, out.input):
        if tensor is not None:
            tensor.fill_(165)
    return out


def _label_and_check(images: NDArray[Any], polarity: str, ght: Sequence[float] | None = None) -> None:
    check(images, polarity, ght, _arrays(cuda.label(_on_gpu(images), polarity, ght)))


def _arrays(out: cuda.Labels) -> Any:
    """`out` with NumPy arrays, on the host."""
    return cuda.Labels(out.mask.cpu().numpy(), out.threshold.cpu().numpy(), out.separability.cpu().numpy())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("form", FORMS)
def test_gpu_otsu_of_every_kind_is_as_stated(form: str, polarity: str, kind: str) -> None:
    rng = np.random.default_rng(1)
    images = np.stack([image_of(kind, (61, 83), rng, form) for _ in range(5)])
    _label_and_check(images, polarity)


@pytest.mark.parametrize("parameters", GHT.values(), ids=GHT.keys())
@pytest.mark.parametrize("form", FORMS)
def test_gpu_ght_is_as_stated(form: str, parameters: tuple[float, float, float, float]) -> None:
    for seed in range(10):
        _label_and_check(_batch(4, (37 + seed, 64 - 3 * seed), form, seed), "auto", parameters)


@pytest.mark.parametrize("size", LARGE, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_gpu_labels_of_usual_sizes_are_as_stated(form: str, size: tuple[int, int, int]) -> None:
    n, *shape = size
    for seed, ght in enumerate((None, GHT["documents"])):
        _label_and_check(_batch(n, (shape[0], shape[1]), form, seed), "auto", ght)


@pytest.mark.parametrize("form", FORMS)
def test_gpu_image_that_is_read_twice_is_as_stated(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "plan", lambda pixels, *_: cuda.Plan(-(-pixels // 4096), 4096, once=False))
    _label_and_check(_batch(3, (233, 301), form, 2), "auto")


def test_gpu_random_shapes_are_as_stated(request: pytest.FixtureRequest) -> None:
    rng = np.random.default_rng(2026)
    for seed in range(request.config.getoption("--shapes")):
        shape = int(rng.integers(1, 48)), int(rng.integers(1, 48))
        form, polarity = str(rng.choice(FORMS)), str(rng.choice(POLARITIES))
        _label_and_check(_batch(int(rng.integers(1, 5)), shape, form, seed), polarity)


@pytest.mark.parametrize("offset", range(1, 16))
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_gpu_unaligned_images_are_as_stated(form: str, offset: int) -> None:
    images = _batch(2, (45, 31), form, offset)
    buffer = torch.zeros(images.nbytes + 16, dtype=torch.uint8, device="cuda")
    view = buffer[offset : offset + images.nbytes].view(images.shape)
    view.copy_(torch.from_numpy(images))
    check(images, "auto", None, _arrays(cuda.label(view, "auto")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("form", ["rgb", "gray"])
@pytest.mark.parametrize("shape", [(31, 45), (224, 224), (480, 481)], ids=str)
def test_gpu_input_is_normalised_and_rounded_as_stated(shape: tuple[int, int], form: str, dtype: torch.dtype) -> None:
    images = _batch(3, shape, form, 3)
    normalise = replace(NORMALISE, dtype=dtype)
    on_gpu = _on_gpu(images)
    out = cuda.label(on_gpu, "auto", normalise=normalise, out=_poisoned(on_gpu, normalise))
    assert out.input is not None
    rgb = images if form == "rgb" else np.repeat(images[..., None], 3, axis=3)
    wanted = torch.from_numpy(spec.normalised(rgb, NORMALISE.mean, NORMALISE.std)).to(dtype).permute(0, 3, 1, 2)
    assert torch.equal(out.input.cpu(), wanted)
    check(images, "auto", None, _arrays(out))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(29, 43), (480, 481)])
def test_gpu_every_byte_of_given_outputs_is_written(shape: tuple[int, int], form: str) -> None:
    images = _batch(3, shape, form, 4)
    on_gpu = _on_gpu(images)
    out = _poisoned(on_gpu)
    assert cuda.label(on_gpu, "dark", out=out) is out
    check(images, "dark", None, _arrays(out))


@pytest.mark.parametrize("gaussian", [False, True], ids=["mean", "gaussian"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (33, 31), (224, 224), (480, 512)], ids=str)
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


@pytest.mark.parametrize("block", [2, 50, 1, 257])
def test_gpu_adaptive_refuses_other_block_sizes(block: int) -> None:
    with pytest.raises(ValueError, match=f"block_size must be odd, from 3 to {cuda.MOST_BLOCK_SIZE}; got {block}"):
        cuda.adaptive(torch.zeros(1, 8, 8, dtype=torch.uint8, device="cuda"), "bright", False, block, 0.0)


def test_gpu_adaptive_refuses_16_bits() -> None:
    with pytest.raises(ValueError, match="adaptive labels are made of uint8 images; got uint16"):
        cuda.adaptive(_on_gpu(np.zeros((1, 8, 8), np.uint16)), "bright", False, 3, 0.0)


def test_gpu_adaptive_of_the_largest_block_is_as_stated() -> None:
    image = image_of("bimodal", (70, 90), np.random.default_rng(5), "gray")
    mask = cuda.adaptive(_on_gpu(image[None]), "bright", True, cuda.MOST_BLOCK_SIZE, 1.0).mask[0].cpu().numpy()
    assert np.array_equal(mask, spec.adaptive_gaussian(image, cuda.MOST_BLOCK_SIZE, 1.0))


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


@pytest.mark.parametrize("shape", [(224, 224), (480, 480)])
def test_gpu_cupy_array_on_a_cupy_stream_is_as_stated(shape: tuple[int, int]) -> None:
    import cupy

    images = _batch(3, shape, "gray", 8)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        out = cuda.label(cupy.asarray(images), "bright")
    stream.synchronize()
    check(images, "bright", None, _arrays(out))


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


def test_gpu_large_images_on_eight_streams_at_once_are_as_stated() -> None:
    batches = [_batch(4, (1408, 1876), "gray", seed) for seed in range(8)]
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


@pytest.mark.parametrize("form", FORMS)
def test_gpu_images_of_several_parts_are_as_stated(form: str) -> None:
    for seed in range(50):
        n = 1 + seed % 3
        _label_and_check(_batch(n, (480 + seed, 512 - seed), form, seed), "auto")


def test_gpu_batch_that_grows_and_shrinks_is_as_stated() -> None:
    for seed, n in enumerate((1, 9, 2, 17, 1)):
        _label_and_check(_batch(n, (401, 399), "gray", seed), "auto")


def test_gpu_ties_take_the_first_maximiser_at_every_block_count() -> None:
    for side in (6, 60, 300, 600):
        levels = np.repeat(np.array([3, 128, 253], np.uint8), side * side // 3).reshape(1, side, side)
        mixed = np.random.default_rng(side).permutation(levels.ravel()).reshape(levels.shape)
        assert float(cuda.label(_on_gpu(mixed), "bright").threshold[0]) == 3


def test_gpu_histogram_counts_a_million_equal_pixels_without_overflow() -> None:
    image = draw("constant", (1408, 1876), np.random.default_rng(15)).astype(np.uint8)
    image[0, 0] = 0
    _label_and_check(image[None], "auto")


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
        check(images, "auto", None, _arrays(cuda.Labels(*out)))


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
