"""The command that a finished training suggests: it fits the splits, the masks and what the run keeps."""

from pathlib import Path

import pytest

from medsass.config.options import Kept
from medsass.data.shards.manifest import Manifest, Split
from medsass.runs.training import report
from tests.conftest import tiny

EVALUATE = "medsass evaluate run shards"


@pytest.mark.parametrize(
    ("masks", "keeps", "command"),
    [
        ({"train": 6, "val": 2, "test": 2}, "network", EVALUATE),
        ({"train": 6, "val": 2}, "network", f"{EVALUATE} --split val"),
        ({"train": 6, "val": 2, "test": 0}, "network", f"{EVALUATE} --split val"),
        ({"train": 0, "val": 0, "other": 1}, "network", f"{EVALUATE} --split other"),
        ({"train": 6, "val": 0}, "network", f"{EVALUATE} --split train"),
        ({"train": 0, "val": 0, "test": 0}, "network", "medsass predict run IMAGE"),
        ({"train": 6, "val": 2, "test": 2}, "encoder", EVALUATE),
        ({"train": 6, "val": 0, "test": 2}, "encoder", "medsass export run --format timm"),
    ],
)
def test_the_next_command_fits_the_shards(
    masks: dict[str, int], keeps: Kept, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Manifest(
        {"name": "x", "polarity": "bright"}, {name: Split(samples=9, masks=count) for name, count in masks.items()}
    )
    report.suggest(tiny(Path("shards"), Path("run")), dataset, keeps)
    assert capsys.readouterr().out == f"Run directory: run   Next: {command}\n"


def test_a_path_with_a_space_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Manifest({"name": "x", "polarity": "bright"}, {"test": Split(samples=1, masks=1)})
    report.suggest(tiny(Path("my shards"), Path("run")), dataset, "network")
    assert capsys.readouterr().out.endswith("Next: medsass evaluate run 'my shards'\n")


def test_an_epoch_says_how_long_the_others_may_take_and_the_last_one_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = {"train_loss": 0.5, "val_loss": 0.25, "images_per_second": 310.4, "waited": 0.02, "seconds": 45.0}
    for epoch in (1, 3):
        report.epoch(tiny(Path("shards"), Path("run"), epochs=3), {**line, "epoch": epoch})
    first, last = capsys.readouterr().err.splitlines()
    assert first == "epoch 1/3  loss 0.5000  validation 0.2500    310 images/s  data wait 2%  45 s, at most 90 s left"
    assert last.endswith("data wait 2%  45 s")
