"""BYOL against its paper's equations, written out."""

import math

import pytest
import torch

from medsass.methods.byol import BYOL, distance
from tests.methods import baselines


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> BYOL:
    monkeypatch.setattr("medsass.methods.byol._HIDDEN", 64)
    result = baselines.made("byol", "unet-resnet18")
    assert isinstance(result, BYOL)
    baselines.disturbed(result.target)
    return result


def test_the_distance_is_that_of_the_unit_vectors() -> None:
    q, z = torch.tensor([[3.0, 4.0], [2.0, 0.0]]), torch.tensor([[0.0, 7.0], [-5.0, 0.0]])
    assert distance(q, z).item() == pytest.approx(((2 - 2 * 0.8) + 4) / 2)


def test_the_loss_is_the_papers_of_both_orders_of_the_views(chosen: BYOL) -> None:
    batch = baselines.batch(chosen)
    first, second = (baselines.normalised(images) for images in batch.views)

    def online(x: torch.Tensor) -> torch.Tensor:
        return chosen.predictor(chosen.projector(chosen.network.encoder(x)[-1].mean((2, 3))))  # type: ignore[operator]

    def target(x: torch.Tensor) -> torch.Tensor:
        return chosen.target_projector(chosen.target.encoder(x)[-1].mean((2, 3)))  # type: ignore[operator]

    expected = 0.0
    for q, z in [(online(first), target(second)), (online(second), target(first))]:
        for a, b in zip(q, z, strict=True):
            expected += (2 - 2 * (a @ b / (a.norm() * b.norm())).item()) / len(q)
    assert chosen(batch, 0.3).loss.item() == pytest.approx(expected, rel=1e-4)


def test_gradients_reach_all_of_the_online_network_and_nothing_of_the_target(chosen: BYOL) -> None:
    chosen(baselines.batch(chosen), 0.0).loss.backward()
    idle = [name for name, item in chosen.named_parameters() if item.grad is None or not item.grad.any()]
    assert {name.split(".")[0] for name in idle} == {"target", "target_projector"}
    assert {name for name, item in chosen.named_parameters() if not item.requires_grad} == set(idle)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_the_target_follows_with_the_papers_schedule_of_tau(chosen: BYOL, progress: float) -> None:
    tau = 1 - (1 - 0.996) * (math.cos(math.pi * progress) + 1) / 2
    pairs = [(chosen.network, chosen.target), (chosen.projector, chosen.target_projector)]
    expected = [
        tau * old + (1 - tau) * new
        for online, target in pairs
        for new, old in zip(online.parameters(), target.parameters(), strict=True)
    ]
    chosen.after_step(progress)
    found = [item for _, target in pairs for item in target.parameters()]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_the_target_starts_as_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.methods.byol._HIDDEN", 64)
    fresh = baselines.made("byol", "unet-resnet18")
    torch.testing.assert_close(dict(fresh.target.state_dict()), dict(fresh.network.state_dict()), rtol=0, atol=0)  # type: ignore[operator, union-attr]


def test_the_second_view_alone_is_inverted_at_times_and_the_first_is_always_blurred(chosen: BYOL) -> None:
    first, second = (view.augment for view in chosen.views)
    assert first is not None
    assert second is not None
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    assert chosen.val_views == chosen.views
