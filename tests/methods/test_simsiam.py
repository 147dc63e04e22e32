"""SimSiam against its paper's equations, written out, and what its stop-gradient does."""

import pytest
import torch

from medsass.methods import optim
from medsass.methods.simsiam import SimSiam, distance
from tests.methods import baselines


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> SimSiam:
    for name in ("_OUT", "_BOTTLENECK"):
        monkeypatch.setattr(f"medsass.methods.simsiam.{name}", baselines.SMALL[f"medsass.methods.simsiam.{name}"])
    result = baselines.made("simsiam", "unet-resnet18")
    assert isinstance(result, SimSiam)
    return result


def _written_out(chosen: SimSiam, stop: bool) -> torch.Tensor:
    z = []
    for images in baselines.batch(chosen).views:
        z.append(chosen.projector(chosen.network.encoder(baselines.normalised(images))[-1].mean((2, 3))))  # type: ignore[operator]
    loss = torch.zeros(())
    for one, other in [(0, 1), (1, 0)]:
        p, target = chosen.predictor(z[one]), z[other].detach() if stop else z[other]
        cosine = (p * target).sum(1) / (p.square().sum(1).sqrt() * target.square().sum(1).sqrt())
        loss = loss - cosine.mean() / 2
    return loss


def _gradients(chosen: SimSiam, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    chosen.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: item.grad.clone() for name, item in chosen.named_parameters() if item.grad is not None}


def test_the_distance_is_the_negative_cosine() -> None:
    p, z = torch.tensor([[3.0, 4.0], [2.0, 0.0]]), torch.tensor([[0.0, 7.0], [-5.0, 0.0]])
    assert distance(p, z).item() == pytest.approx((-0.8 + 1) / 2)


def test_loss_and_gradient_are_those_with_the_stop_gradient(chosen: SimSiam) -> None:
    loss, expected = chosen(baselines.batch(chosen), 0.0).loss, _written_out(chosen, stop=True)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    found, expected_gradients = _gradients(chosen, loss), _gradients(chosen, expected)
    assert found.keys() == expected_gradients.keys()
    for name, gradient in found.items():
        assert (gradient - expected_gradients[name]).norm() <= 1e-2 * gradient.norm() + 1e-6, name


def test_without_the_stop_gradient_the_gradient_is_another(chosen: SimSiam) -> None:
    found = _gradients(chosen, chosen(baselines.batch(chosen), 0.0).loss)
    free = _gradients(chosen, _written_out(chosen, stop=False))
    weight = "projector.layers.0.weight"
    assert (found[weight] - free[weight]).norm() > 0.1 * free[weight].norm()


def test_gradients_reach_everything(chosen: SimSiam) -> None:
    found = _gradients(chosen, chosen(baselines.batch(chosen), 0.0).loss)
    assert {name for name, _ in chosen.named_parameters()} == {name for name, item in found.items() if item.any()}


def test_the_predictors_learning_rate_alone_stays(chosen: SimSiam) -> None:
    optimizer = optim.build(chosen.parameters(), chosen.regime, "cpu")
    optim.set_rate(optimizer, chosen.regime, 5, 10)
    rates = {id(item): group["lr"] for group in optimizer.param_groups for item in group["params"]}
    assert {rates[id(item)] for item in chosen.predictor.parameters()} == {0.05}
    others = [rates[id(item)] for part in (chosen.network, chosen.projector) for item in part.parameters()]
    assert others == pytest.approx([0.025] * len(others))
