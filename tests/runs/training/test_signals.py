"""Signals are noted while a training runs, and not outside of it."""

import os
import signal
import threading

import pytest

from medsass.runs.training import signals


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_noted_and_the_old_handlers_come_back(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with signals.heard() as stopping:
        assert stopping == []
        os.kill(os.getpid(), number)
        assert stopping == [name]
    assert signal.getsignal(number) is before


def test_the_second_interrupt_ends_at_once() -> None:
    with signals.heard() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping == ["SIGINT"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_hear_nothing() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with signals.heard() as stopping:
            inside.append((signal.getsignal(signal.SIGTERM), list(stopping)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, [])]
