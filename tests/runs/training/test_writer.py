"""What is written while training goes on: in order, of copies, all of it at the end, and errors come out."""

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medsass import temporary
from medsass.models import checkpoint
from medsass.runs.training import writer
from medsass.runs.training.writer import Log, Writer, copied
from tests.support.trainings import assert_whole


class Lines(Log):
    """A log that writes metrics.jsonl alone."""

    def __init__(self, run: Path) -> None:
        self.run, self.closed = run, False

    def epoch(self, history: list[dict[str, Any]]) -> None:
        (self.run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))

    def samples(self, path: Path, epoch: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _line(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "val_iou_target": 0.5}


def test_what_is_written_is_as_it_was_when_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, original = threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *values: go.wait(30) and original(*values))
    weights, history = torch.ones(3), [_line(1)]
    with Writer(tmp_path, Lines(tmp_path)) as kept:
        kept.checkpoint({"model": {"w": weights}, "history": history})
        weights.fill_(7)
        history[0]["epoch"] = 9
        go.set()
    saved = checkpoint.load(tmp_path / "last.pt")
    assert saved["model"]["w"].tolist() == [1, 1, 1]
    assert saved["history"] == [_line(1)]


def test_an_epoch_is_all_there_at_the_end_and_the_checkpoint_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, original = list[str](), checkpoint.save

    def spy(path: Path, content: dict[str, Any]) -> None:
        written.append(path.name)
        original(path, content)

    monkeypatch.setattr(checkpoint, "save", spy)
    state = {"model": {"w": torch.ones(2)}, "history": [_line(1)]}
    image, mask = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)
    with Writer(tmp_path, Lines(tmp_path)) as kept:
        kept.epoch(state, 1, state["model"], [image, mask, mask])
        state["history"].append(_line(2))
        kept.epoch(state, 1, None, [image, mask, mask])
    assert written == ["best.pt", "last.pt", "last.pt"]
    assert_whole(tmp_path)
    assert checkpoint.load(tmp_path / "best.pt")["epoch"] == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    for name in ("progress.png", "samples.png"):
        assert Image.open(tmp_path / name).size[0] > 100


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written."""
    monkeypatch.setattr(temporary, "created", lambda folder: (open("/dev/full", "wb"), folder / "part"))  # noqa: PTH123, SIM115


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_comes_out_with_the_next_thing_and_at_the_end(tmp_path: Path) -> None:
    with Writer(tmp_path, Lines(tmp_path)) as kept:
        kept.checkpoint({"model": {}})
        with pytest.raises(OSError, match=r"No space left on device: '.*last\.pt'"):
            kept.checkpoint({"model": {}})
    with pytest.raises(OSError, match="No space left"), Writer(tmp_path, Lines(tmp_path)) as kept:
        kept.checkpoint({"model": {}})


@pytest.mark.usefixtures("full_disk")
def test_an_error_of_the_training_is_the_one_that_is_seen(tmp_path: Path) -> None:
    kept = Writer(tmp_path, Lines(tmp_path))
    kept.checkpoint({"model": {}})
    with pytest.raises(FloatingPointError), kept:
        raise FloatingPointError


def test_a_process_that_does_not_write_writes_nothing(tmp_path: Path) -> None:
    with Writer(tmp_path, None) as kept:
        kept.checkpoint({"model": {}})
        kept.epoch({"history": [_line(1)]}, 1, {}, [])
    assert list(tmp_path.iterdir()) == []


def test_no_thread_stays_and_the_log_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for full in (False, True):
        log = Lines(tmp_path)
        if full:
            monkeypatch.setattr(temporary, "created", lambda _: (_ for _ in ()).throw(OSError))
        with suppress(OSError), Writer(tmp_path, log) as kept:
            kept.checkpoint({"model": {}})
        assert log.closed
    assert not [thread.name for thread in threading.enumerate() if "writer" in thread.name]


@pytest.mark.gpu
def test_steps_after_a_checkpoint_are_not_in_it(tmp_path: Path) -> None:
    weights = torch.ones(1 << 20, device="cuda")
    with Writer(tmp_path, Lines(tmp_path)) as kept:
        torch.cuda._sleep(100_000_000)
        kept.checkpoint({"model": {"w": weights}})
        weights.fill_(7)
    assert checkpoint.load(tmp_path / "last.pt")["model"]["w"].eq(1).all()


def test_a_copy_shares_no_memory() -> None:
    held = {"a": [torch.ones(2, requires_grad=True), 3], "b": {"c": "text"}, "d": None}
    made = copied(held)
    assert made["a"][0].data_ptr() != held["a"][0].data_ptr()  # type: ignore[index]
    assert not made["a"][0].requires_grad
    assert made["a"][1:] == [3]
    assert (made["b"], made["d"]) == ({"c": "text"}, None)


def test_samples_are_drawn_six_at_most(tmp_path: Path) -> None:
    image, mask = np.zeros((9, 8, 8, 3), np.uint8), np.zeros((9, 8, 8), np.uint8)
    for count in (6, 9):
        writer.draw_samples([image[:count], mask[:count], mask[:count]], tmp_path / f"{count}.png")
    assert Image.open(tmp_path / "6.png").size == Image.open(tmp_path / "9.png").size
