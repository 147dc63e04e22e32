"""Pace, and the share of the time that a step waited for data."""

import time

import pytest

from medsass.runs.training import meter
from medsass.runs.training.meter import Meter


def test_the_time_in_the_loaders_hands_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(meter, "monotonic", lambda: clock[0])
    measured = Meter("cpu")
    for loading, computing in [(1.0, 3.0), (0.5, 2.5), (1.5, 1.5)]:
        clock[0] += loading
        measured.ready()
        clock[0] += computing
        measured.done(20)
    assert measured.read() == {"images_per_second": pytest.approx(6.0), "waited": pytest.approx(0.3)}


def test_what_is_done_between_two_steps_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 5.0, 6.0, 10.0])  # made, done, asked, ready, read
    monkeypatch.setattr(meter, "monotonic", lambda: next(times))
    made = meter.Meter("cpu")
    made.done(4)
    made.asked()
    made.ready()
    assert made.read()["waited"] == pytest.approx(0.1)


def test_text_says_what_a_user_wants_to_know() -> None:
    assert meter.text({"waited": 0.126}) == "data wait 13%"
    assert meter.text({"waited": 0.0, "gpu_memory": 12.34e9}) == "data wait 0%  12.3 GB of GPU memory"


@pytest.mark.gpu
def test_on_a_gpu_idle_time_between_steps_is_waiting() -> None:
    import torch

    measured = Meter("cuda")
    for _ in range(3):
        time.sleep(0.1)
        measured.ready()
        torch.cuda._sleep(20_000_000)
        measured.done(1)
    torch.cuda.synchronize()
    values = measured.read()
    assert 0.3 < values["waited"] < 1.0
    assert values["gpu_memory"] >= 0
