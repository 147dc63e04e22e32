"""SIGINT (Ctrl-C) and SIGTERM during a training: noted when they arrive, acted on between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """A request to stop; `signal` is the name of the signal that arrived, "" before one does."""

    signal: str = ""

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal, and restore the default, so that a second one ends the process at once."""
        self.signal = signal.Signals(number).name
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def heard() -> Iterator[Stop]:
    """Note signals while the block runs. Outside of the main thread none arrive."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
