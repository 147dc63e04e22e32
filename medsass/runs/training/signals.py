"""SIGINT (Ctrl-C) and SIGTERM during a training: noted when they arrive, acted on between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heard() -> Iterator[list[str]]:
    """Note the names of signals while the block runs, in the list that it gets. Outside of the main thread none arrive."""
    names: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield names
        return

    def note(number: int, _frame: FrameType | None) -> None:
        names.append(signal.Signals(number).name)
        # From here on by default, so that a second one ends the process at once.
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield names
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
