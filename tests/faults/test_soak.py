"""A long training of a tiny network, 10,000 steps, watched from outside: its memory, files and threads must not grow."""

import os
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from tests.support import built, forks
from tests.support.forks import Fork
from tests.support.trainings import assert_whole, command, history

STEPS, EPOCHS = 100, 100
MEBIBYTE = 1 << 20


class Look(NamedTuple):
    """Resident bytes, open files and threads of a process after that many epochs."""

    epochs: int
    memory: int
    files: int
    threads: int


def _look(fork: Fork, run: Path) -> Look:
    process, lines = Path(f"/proc/{fork.pid}"), run / "metrics.jsonl"
    epochs = lines.read_text().count("\n") if lines.is_file() else 0
    pages = int((process / "statm").read_text().split()[1])
    files, threads = (len(list((process / name).iterdir())) for name in ("fd", "task"))
    return Look(epochs, pages * os.sysconf("SC_PAGE_SIZE"), files, threads)


@pytest.mark.slow
def test_ten_thousand_steps_hold_no_more_than_the_first_thousands(tmp_path: Path) -> None:
    shards, run = built.build(tmp_path / "shards", splits={"train": 4 * STEPS, "val": 4}), tmp_path / "run"
    words = command(shards, run, epochs=EPOCHS, patience=0, save_every=0.02)
    fork = forks.server().start(tmp_path / "log", words, ["light"])
    looks = list[Look]()
    while not forks.ended(fork, 0.1):
        with suppress(OSError):  # it may have ended since
            looks.append(_look(fork, run))
    assert fork.wait() == 0, fork.err
    assert_whole(run)
    lines = history(run)
    assert len(lines) * STEPS == 10_000
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    early = [look for look in looks if 30 <= look.epochs < 50]  # Python has collected what drawing leaves behind
    late = [look for look in looks if look.epochs >= EPOCHS - 10]
    assert len(early) > 5
    assert len(late) > 5
    # A look may fall on a checkpoint that is being written: the median leaves such moments out.
    assert median(look.threads for look in late) <= max(look.threads for look in early)
    assert median(look.files for look in late) <= max(look.files for look in early)
    before, after = (median(look.memory for look in some) for some in (early, late))
    assert after < 1.015 * before, f"{(after - before) / MEBIBYTE:.1f} MiB more than {before / MEBIBYTE:.0f}"
