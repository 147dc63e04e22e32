"""SIGINT (Ctrl-C) and SIGTERM during a training: the first stops it between two steps, a second one at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from medsass.runs import console


class Heard(list[str]):
    """The names of the signals that have come."""

    _holding = _late = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Put off the `KeyboardInterrupt` of a second signal until the block, which saves an epoch, has ended."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._late:
            raise KeyboardInterrupt

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: note the first, raise `KeyboardInterrupt` at the second; a third has its default action."""
        self.append(signal.Signals(number).name)
        if len(self) == 1:
            with suppress(RuntimeError):  # it may have come while stderr was being written to
                console.err.print(f"{self[0]}: saves and stops after this step; a second one stops at once")
            return
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        self._late = True
        if not self._holding:
            raise KeyboardInterrupt


@contextmanager
def heard() -> Iterator[Heard]:
    """Note the names of signals while the block runs. Outside of the main thread none arrive."""
    names = Heard()
    if threading.current_thread() is not threading.main_thread():
        yield names
        return
    before = {number: signal.signal(number, names.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield names
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
