"""Losses over a batch of several processes equal those of one process over all of it."""

import pytest
import torch

from medsass.methods import collective
from medsass.methods.losses import LOSSES
from tests.support import forks

_LOSSES = ("tversky", "focal-tversky", "focal", "cross-entropy")


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1, 6, 6, generator=generator)
    target = (torch.rand(4, 6, 6, generator=generator) < torch.tensor([0.1, 0.2, 0.6, 0.9])[:, None, None]).byte()
    return logits, target


def _work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    logits, target = (part[2 * rank : 2 * rank + 2] for part in _batch())
    found = {}
    for name in _LOSSES:
        part = logits.clone().requires_grad_()
        loss = LOSSES[name](part, target)
        loss.backward()
        found[name] = (loss.detach(), part.grad)
    with collective.apart():
        found["apart"] = (LOSSES["tversky"](logits, target), collective.mean(torch.tensor(float(rank))))
    found["mean"] = (collective.mean(torch.tensor(float(rank))), torch.empty(0))
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("parts")
    started = [forks.server().call(folder / f"log-{rank}", _work, rank, str(folder)) for rank in range(2)]
    assert [fork.wait(60) for fork in started] == [0, 0], "".join(fork.err for fork in started)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", _LOSSES)
def test_two_processes_train_as_one(name: str, parts: list[dict[str, tuple[torch.Tensor, torch.Tensor]]]) -> None:
    logits, target = _batch()
    logits.requires_grad_()
    loss = LOSSES[name](logits, target)
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close((parts[0][name][0] + parts[1][name][0]) / 2, loss.detach())
    # What one process's images add to the gradient that DistributedDataParallel takes the mean of:
    gradient = torch.cat([part[name][1] for part in parts]) / 2
    torch.testing.assert_close(gradient, logits.grad)


def test_a_process_can_compute_by_itself(parts: list[dict[str, tuple[torch.Tensor, torch.Tensor]]]) -> None:
    logits, target = _batch()
    for rank, part in enumerate(parts):
        own = slice(2 * rank, 2 * rank + 2)
        torch.testing.assert_close(part["apart"][0], LOSSES["tversky"](logits[own], target[own]))
        assert part["apart"][1].item() == rank
        assert part["mean"][0].item() == 0.5


def test_one_process_needs_no_group() -> None:
    values = torch.tensor([1.0, 2.0])
    assert collective.total(values) is values
    assert collective.mean(values) is values
