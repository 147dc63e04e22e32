"""Faults planted into a copy of the kernels' source, which the emulated tests of the kernels must notice."""

import faulthandler
import os
import signal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medsass.labels import compiler
from tests.kernels.labelled import between_walls, draw, image_of, label_and_check
from tests.support import emulation as em

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


def _plant(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Replace `old`, which stands in the source once. Kernels that other tests have loaded stay as they are."""
    text = compiler.source(compiler.Variant("label.cu"))
    assert text.count(old) == 1
    monkeypatch.setattr(compiler, "source", lambda _: text.replace(old, new))
    monkeypatch.setattr(em, "library", em.library.__wrapped__)


def test_a_missing_barrier_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of("bimodal", (37, 53), np.random.default_rng(0), "rgb")
    label_and_check(image[None], "auto")
    merge = "    merge_columns(block->columns, block->counts);\n"
    _plant(monkeypatch, f"    __syncthreads();\n{merge}", merge)
    with pytest.raises(AssertionError):
        label_and_check(image[None], "auto")


def test_a_stage_that_is_refilled_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, "        __syncwarp();\n        fetch(", "        fetch(")
    with pytest.raises(AssertionError):
        label_and_check(image_of("bimodal", (131, 200), np.random.default_rng(12), "rgb")[None], "auto")


def test_a_wrong_rule_for_ties_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.repeat([120, 127, 134], [20, 30, 20]).astype(np.uint8)
    image = np.repeat(levels.reshape(1, 7, 10, 1), 3, axis=3)
    label_and_check(image, "bright")
    _plant(monkeypatch, "if (!greater(square_times(a, db), square_times(b, da))) continue;", "if (greater(square_times(b, da), square_times(a, db))) continue;")  # fmt: skip
    with pytest.raises(AssertionError):
        label_and_check(image, "bright")


def _signal(images: NDArray[Any]) -> int:
    """Return the signal that ends a process which labels these images, 0 if none does."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        em.label(images, "auto")
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def test_a_byte_beside_the_image_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = draw("bimodal", (16, 32), np.random.default_rng(0)).astype(np.uint8)
    images = between_walls(np.repeat(levels[None, ..., None], 3, axis=3), True)
    assert _signal(images) == 0
    _plant(monkeypatch, "if (first + i < end) copy_16", "if (first + i <= end) copy_16")
    assert _signal(images) == signal.SIGSEGV


def test_threads_that_wait_for_one_another_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = "    __syncthreads();\n    merge_columns(block->columns, block->counts);\n"
    _plant(monkeypatch, before, f"    if (threadIdx.x == 0) __syncwarp();\n{before}")
    assert _signal(image_of("bimodal", (16, 32), np.random.default_rng(0), "rgb")[None]) == signal.SIGABRT
