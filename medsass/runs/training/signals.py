"""Asking a training to stop: SIGINT (Ctrl-C) and SIGTERM are heard between two steps, not in the middle of one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """`signal` is the name of the signal that came, "" as long as none did."""

    def __init__(self) -> None:
        self.signal = ""

    def __bool__(self) -> bool:
        return bool(self.signal)

    def hear(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal; the second one ends the process at once, as without this."""
        self.signal = signal.Signals(number).name
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@contextmanager
def heard() -> Iterator[Stop]:
    """Hear the signals while the block runs. Outside of the main thread nothing is heard."""
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
