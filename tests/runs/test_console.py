"""Progress in a log: what a line says, when lines come, and that nothing of a terminal is in them."""

import io
import sys

import pytest

from medsass.runs import console
from medsass.runs.console import Bar


def _bar(title: str, total: int | None, unit: str = "images") -> tuple[Bar, list[float]]:
    clock = [100.0]
    return Bar(title, total, unit, lambda: clock[0]), clock


def test_a_line_says_how_much_how_fast_and_how_long() -> None:
    bar, clock = _bar("shard", None)
    assert bar.line() == "shard: starting"
    bar.reach(64, 5000)
    assert bar.line() == "shard: 64 of 5,000 images"  # the first call begins the measurement
    clock[0] += 4
    bar.reach(1304, 5000)
    assert bar.line() == "shard: 1,304 of 5,000 images, 310 images/s, 12 s left"
    clock[0] += 6  # nothing more has come
    assert bar.line() == "shard: 1,304 of 5,000 images, 124 images/s, 30 s left"


def test_what_an_interrupted_run_had_done_has_no_part_in_the_speed() -> None:
    bar, clock = _bar("epoch 3/9", 1000)
    bar.advance(600)
    clock[0] += 100
    bar.advance(100, "step 7 of 10, loss 0.5000")
    assert bar.line() == "epoch 3/9: 700 of 1,000 images, step 7 of 10, loss 0.5000, 1.00 images/s, 5.0 min left"
    bar.advance(100)
    assert "step 7 of 10" in bar.line()  # a remark stays until the next one


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "1.7 min"), (5999, "100.0 min"), (6000, "1.7 h")]
)
def test_durations_have_two_digits_or_so(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_in_a_log_a_line_comes_after_each_interval_and_none_before(monkeypatch: pytest.MonkeyPatch) -> None:
    log, waits = io.StringIO(), list[float]()

    class Clock:
        """An event on which two intervals pass at once."""

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            return len(waits) > 2

        def set(self) -> None:
            pass

    monkeypatch.setattr(console, "Event", Clock)
    monkeypatch.setattr(sys, "stderr", log)
    with console.progress("tune", 50, "candidates") as bar:
        bar.advance(1)
    assert waits == [console.EVERY] * 3
    assert console.EVERY == 30
    lines = log.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines if "1 of" in line or "0 of" in line] == lines
    assert len(lines) == 2
    assert log.getvalue().isprintable() or set(log.getvalue()) - {"\n"} <= set(map(chr, range(32, 127)))


def test_a_work_of_less_than_an_interval_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with console.progress("predict", 3) as bar:
        bar.advance(3)
    assert log.getvalue() == ""


def test_a_process_that_is_hushed_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "Thread", lambda **_: pytest.fail("started"))
    with console.hushed(True), console.progress("epoch 1/2", 3) as bar:
        bar.advance(1)


def test_a_terminal_shows_the_outer_bar_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "err", console.Console(file=io.StringIO(), force_terminal=True, width=200))
    with console.progress("linear head", 30, "epochs") as outer, console.progress("features of train", 3) as inner:
        inner.advance(1)
        outer.advance(1)
    shown = console.err.file.getvalue()  # type: ignore[attr-defined]
    assert "linear head" in shown
    assert "features" not in shown
    assert console._shown == []


def test_names_on_a_terminal_are_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "\x1b[2J\u202e[red]a\nmedsass: all is well"
    shown = r"\x1b[2J\u202e[red]a\nmedsass: all is well"
    for terminal in (True, False):
        stream = io.StringIO()
        made = console._Console(file=stream, force_terminal=terminal, no_color=True, markup=False, soft_wrap=True)
        made.print(name)
        made.print(console.table([name], [[name]]))
        monkeypatch.setattr(console, "err", made)
        with console.progress(name) as bar:
            bar.reach(1, 2, name)
            if terminal:
                made.print("x")  # draws the bar
        text = stream.getvalue()
        assert text.count(shown) >= 3
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
        assert "\nmedsass" not in text
    assert Bar(name, None, "images").line() == f"{shown}: starting"
