"""Faults in the worker processes of `medsass shard`, laid in the server that these are forked from."""

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest

from medsass.data.dali import Decoder
from medsass.data.formats import damage
from medsass.data.formats.photos import integrity
from medsass.data.sharding import sample, source_file
from medsass.data.sharding.workers import forkserver, tasks

SEGFAULT, KILLED, LEAVES, ENDLESS = b"segmentation fault", b"killed", b"leaves", b"never ends"


def arm(segfaults: Sequence[bytes] = (SEGFAULT,)) -> None:
    """Let the decoder die of the marks, and take away the checks that come before it."""
    decode = Decoder.__call__

    def die(self: Decoder, files: Sequence[Any]) -> Any:
        for data in files:
            if any(mark in data for mark in segfaults):
                os.kill(os.getpid(), signal.SIGSEGV)
            if KILLED in data:
                os.kill(os.getpid(), signal.SIGKILL)
            if LEAVES in data:
                os._exit(3)
            while ENDLESS in data:
                time.process_time()
        return decode(self, files)

    Decoder.__call__ = die  # type: ignore[method-assign]
    integrity.check = lambda *_: None
    tasks._SECONDS = 0.2  # type: ignore[assignment]


def crowd() -> None:
    """Let no image be opened, because too many files are open."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    source_file.open_image = refuse  # type: ignore[assignment]


def fill() -> None:
    """Let an image need more memory than there is."""

    @damage.readable()
    def encode(*_: object) -> None:
        cv2.resize(np.zeros((1, 1), np.uint8), (1 << 30, 1 << 20))

    sample.encode = encode  # type: ignore[assignment]


@contextmanager
def workers(fault: str) -> Iterator[None]:
    """Let `medsass shard` of this process use workers with a fault, such as "fill()", while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forkserver, "_server", None)
        patch.setattr(
            forkserver, "_PROGRAM", f"from tests.support import deadly; deadly.{fault}; {forkserver._PROGRAM}"
        )
        yield
