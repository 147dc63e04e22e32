"""Which steps fit the memory."""

import copy
from pathlib import Path

import pytest
import torch

from medsass.data.loading.loader import Batch
from medsass.methods import method
from medsass.methods.method import Outcome
from medsass.runs.distributed import ALONE
from medsass.runs.training import fit
from medsass.runs.training.trainer import Trainer
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("light_file")


def test_what_fits_is_found_without_a_trace(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(shards, tmp_path)
    _crowd(trainer, monkeypatch, 5)
    before = copy.deepcopy(trainer.method.state_dict())
    assert [fit.fits(trainer, images) for images in (16, 6, 5, 1)] == [False, False, True, True]
    assert fit.micro_batches(trainer) == 4
    torch.testing.assert_close(dict(trainer.method.state_dict()), dict(before), rtol=0, atol=0)
    assert all(item.grad is None for item in trainer.method.parameters())
    _crowd(trainer, monkeypatch, 0)
    with pytest.raises(fit.OutOfMemoryError, match="not even one image of 32 x 32 fits the GPU's memory"):
        fit.micro_batches(trainer)


@pytest.mark.parametrize(
    ("batch", "accumulate", "most", "count"),
    [(50, 1, 6, 10), (50, 5, 6, 10), (48, 1, 3, 16), (7, 1, 6, 7), (16, 1, 16, 1)],
)
def test_any_number_of_micro_batches_that_divides_the_batch_is_tried(
    batch: int, accumulate: int, most: int, count: int, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(shards, tmp_path, batch_size=batch, accumulate=accumulate)
    monkeypatch.setattr(fit, "fits", lambda _, images: images <= most)
    assert fit.micro_batches(trainer) == count


def _crowd(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Memory that holds that many images at once."""
    original = type(trainer.method).forward

    def forward(batch: Batch, progress: float) -> Outcome:
        if len(batch.images) > most:
            raise torch.OutOfMemoryError
        return original(trainer.method, batch, progress)

    monkeypatch.setattr(trainer.method, "forward", forward)


def _trainer(shards: Path, run: Path, **options: object) -> Trainer:
    torch.manual_seed(0)
    config = tiny(shards, run, **options)
    return Trainer(config, method.make(config, "bright"), "cpu", ALONE)
