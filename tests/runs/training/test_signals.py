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


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_first_signal_is_answered_and_the_second_ends_at_once(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    number = getattr(signal, name)
    with signals.heard() as stopping:
        os.kill(os.getpid(), number)
        assert stopping == [name]
        assert capsys.readouterr().err == f"{name}: saves and stops after this step; a second one stops at once\n"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL  # a third waits for nothing


def test_the_second_signal_waits_for_what_is_held() -> None:
    done = []

    def save(stopping: signals.Heard) -> None:
        with stopping.held():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            done.append("saved")
        done.append("went on")

    with signals.heard() as stopping, pytest.raises(KeyboardInterrupt):
        save(stopping)
    assert done == ["saved"]


def test_other_threads_hear_nothing() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with signals.heard() as stopping:
            inside.append((signal.getsignal(signal.SIGTERM), list(stopping)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, [])]
