"""The line that a user reads of an error: memory that ran out, by the errors that libraries really raise, and the others."""

import errno

import cv2
import numpy as np
import pytest
import torch

from medsass import errors
from medsass.cli import main
from medsass.runs.training import fit

HUGE = 1 << 52  # bytes


def _numpy() -> None:
    np.empty(HUGE, np.uint8)


def _torch() -> None:
    torch.empty(HUGE, dtype=torch.uint8)


def _opencv() -> None:
    cv2.resize(np.zeros((1, 1), np.uint8), (1 << 30, 1 << 20))


def _system() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def _plain() -> None:
    raise MemoryError


def _cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("fill", [_numpy, _torch, _opencv, _system, _plain, _cuda])
def test_memory_that_ran_out_is_one_line_with_what_to_lower(fill: object) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each its own
        fill()  # type: ignore[operator]
    assert errors.is_memory(raised.value)
    for command in main.commands:
        line = errors.line(raised.value, command)
        assert line is not None
        assert line.startswith("memory ran out (")
        assert "\n" not in line
    assert "a smaller --batch-size or --size" in (errors.line(raised.value, "train") or "")
    assert "take fewer --workers and go on with --resume" in (errors.line(raised.value, "shard") or "")
    assert "--tile 512" in (errors.line(raised.value, "predict") or "")


def test_advice_on_what_fits_is_not_replaced() -> None:
    said = "16 images at once do not fit, 4 do"
    assert errors.line(fit.OutOfMemoryError(said), "train") == said


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shape"), TypeError(), ZeroDivisionError()])
def test_a_bug_has_no_line(error: Exception) -> None:
    assert errors.line(error, "train") is None


def test_every_command_with_its_own_words_exists() -> None:
    assert {*errors._LOWER, *errors._AGAIN} <= set(main.commands)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_an_interrupt_says_how_to_go_on(command: str) -> None:
    assert errors.interrupted(KeyboardInterrupt("go on with: x"), command) == "interrupted; go on with: x"
    assert len(errors.interrupted(KeyboardInterrupt(), command).split("; ")) >= 2
