"""Batches by number, from a pipeline that returns the batch's number."""

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.dlpack import from_dlpack

from medsass.data import dali
from medsass.data.dali import import_dali
from medsass.data.loading.prefetch import PipelineError, Prefetcher
from tests.support.effort import examples


@dataclass(frozen=True)
class Pair:
    number: int

    @property
    def feeds(self) -> dict[str, Any]:
        """The number for both inputs, in batches of one or two samples."""
        rows = 1 + self.number % 2
        batch = import_dali("nvidia.dali.tensors").TensorListCPU(np.full((rows, 1), self.number, np.float32))
        return dict.fromkeys(("one", "other"), batch)


def doubled(source: Callable[[str], Callable[[], Any]]) -> Any:
    """Build a pipeline of two inputs whose outputs are the first and their sum."""
    dali, fn, types = import_dali(), import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
    pipeline = dali.Pipeline(batch_size=2, num_threads=1, device_id=None, prefetch_queue_depth=2)
    with pipeline:
        one, other = (fn.external_source(source=source(name), dtype=types.FLOAT, ndim=1) for name in ("one", "other"))
        pipeline.set_outputs(one, one + other)
    pipeline.build()
    return pipeline


def numbers(prefetcher: Prefetcher[Pair], number: int) -> None:
    """Assert that batch `number` is the one returned."""
    inputs, (one, total) = prefetcher.get(number, cuda=False)
    assert inputs.number == number
    assert from_dlpack(one.as_tensor()).tolist() == [[number]] * (1 + number % 2)
    assert from_dlpack(total.as_tensor()).tolist() == [[2 * number]] * (1 + number % 2)


@pytest.fixture(scope="module")
def endless() -> Prefetcher[Pair]:
    return Prefetcher(Pair, doubled)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 6)), min_size=1, max_size=6))
@examples(40)
def test_any_batch_can_be_requested(endless: Prefetcher[Pair], runs: list[tuple[int, int]]) -> None:
    for start, count in runs:
        for number in range(start, start + count):
            numbers(endless, number)


@pytest.mark.parametrize("end", [1, 2, 3, 10])
def test_a_finite_prefetcher_gives_all_batches(end: int) -> None:
    prefetcher = Prefetcher(Pair, doubled, end)
    for _ in range(2):
        for number in range(end):
            numbers(prefetcher, number)
    with pytest.raises(IndexError):
        prefetcher.get(end, cuda=False)
    numbers(prefetcher, end - 1)


@pytest.mark.parametrize("bad", [0, 1, 2, 7])
def test_an_error_comes_in_place_of_its_batch(bad: int) -> None:
    def make(number: int) -> Pair:
        if number == bad:
            raise OSError("of that batch")
        return Pair(number)

    prefetcher = Prefetcher(make, doubled)
    for number in range(bad):
        numbers(prefetcher, number)
    for _ in range(2):
        with pytest.raises(OSError, match="of that batch"):
            prefetcher.get(bad, cuda=False)
    numbers(prefetcher, bad + 1)


@dataclass(frozen=True)
class Encoded:
    number: int

    @property
    def feeds(self) -> dict[str, Any]:
        """A tiny image file; number 3 is not an image."""
        header = b"P5 1 1 255\n" if self.number != 3 else b"no image"
        return {"files": dali.batch([dali.tensor(np.frombuffer(header + bytes([self.number]), np.uint8))])}


def decoding(source: Callable[[str], Callable[[], Any]]) -> Any:
    dali, fn, types = import_dali(), import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")
    pipeline = dali.Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=2)
    with pipeline:
        files = fn.external_source(source=source("files"), dtype=types.UINT8, ndim=1)
        pipeline.set_outputs(fn.decoders.image(files, device="cpu", output_type=types.GRAY))
    pipeline.build()
    return pipeline


def test_a_failed_pipeline_reports_its_batches_and_is_rebuilt() -> None:
    prefetcher: Prefetcher[Encoded] = Prefetcher(Encoded, decoding)
    for number in range(3):
        _, (image,) = prefetcher.get(number, cuda=False)
        assert from_dlpack(image.as_tensor()).item() == number
    with pytest.raises(PipelineError) as error:
        prefetcher.get(3, cuda=False)
    assert 3 in [inputs.number for inputs in error.value.batches]
    _, (image,) = prefetcher.get(4, cuda=False)
    assert from_dlpack(image.as_tensor()).item() == 4
    prefetcher.get(1, cuda=False)  # number 3 is in the pipeline now
    _, (image,) = prefetcher.get(6, cuda=False)  # and was not requested
    assert from_dlpack(image.as_tensor()).item() == 6


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("closed", [True, False])
def test_threads_end_with_the_prefetcher(closed: bool) -> None:
    gc.collect()
    before = threads()
    for _ in range(5):
        prefetcher = Prefetcher(Pair, doubled)
        numbers(prefetcher, 3)
        assert threads() > before
        if closed:
            prefetcher.close()
        del prefetcher
    deadline = time.monotonic() + 10
    while threads() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert threads() == before


def test_a_prefetcher_may_be_closed_twice_and_used_again() -> None:
    prefetcher = Prefetcher(Pair, doubled)
    numbers(prefetcher, 0)
    prefetcher.close()
    prefetcher.close()
    numbers(prefetcher, 1)
