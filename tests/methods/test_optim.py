"""Optimisers: which parameters are decayed, and the schedules of learning rate and decay."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from medsass.methods import optim
from medsass.methods.method import Regime


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _decay_of(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    return {id(item): group["weight_decay"] for group in optimizer.param_groups for item in group["params"]}


@pytest.mark.parametrize("decay_norms", [True, False])
def test_parameters_of_one_dimension_are_decayed_only_where_the_regime_says_so(decay_norms: bool) -> None:
    network = _network()
    found = _decay_of(optim.build(network.parameters(), Regime(weight_decay=0.3, decay_norms=decay_norms), "cpu"))
    for name, item in network.named_parameters():
        matrix = name in ("0.weight", "2.weight")
        assert found.pop(id(item)) == (0.3 if matrix or decay_norms else 0.0), name
    assert not found


def test_parameters_without_a_gradient_are_left_out() -> None:
    network = _network()
    network[0].requires_grad_(False)
    found = _decay_of(optim.build(network.parameters(), Regime(), "cpu"))
    assert set(found) == {id(item) for part in (network[1], network[2]) for item in part.parameters()}


def test_the_learning_rate_of_marked_parameters_alone_stays() -> None:
    network = _network()
    for item in network[2].parameters():
        item.constant = True  # type: ignore[attr-defined]
    regime = Regime("sgd", lr=0.5, warmup=0.5)
    optimizer = optim.build(network.parameters(), regime, "cpu")
    for step, factor in enumerate((1 / 3, 2 / 3, 1, 0.5)):
        assert optim.set_rate(optimizer, regime, step, 4) == pytest.approx(0.5 * factor)
        for group in optimizer.param_groups:
            fixed = any(item is network[2].weight for item in group["params"])
            assert group["lr"] == pytest.approx(0.5 * (1 if fixed else factor))
        optimizer.step()


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.04), (0.25, 0.04 + 0.36 * 0.1464466), (0.5, 0.22), (1.0, 0.4)])  # fmt: skip
def test_the_decay_goes_to_its_end_by_half_a_cosine_or_stays_where_it_has_none(
    progress: float, expected: float
) -> None:
    regime = Regime(weight_decay=0.04, final_weight_decay=0.4, decay_norms=False)
    optimizer = optim.build(_network().parameters(), regime, "cpu")
    optim.decay(optimizer, regime, progress)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == pytest.approx([0, expected])
    constant = Regime(weight_decay=0.04)
    optimizer = optim.build(_network().parameters(), constant, "cpu")
    optim.decay(optimizer, constant, progress)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.04]


def test_each_gradient_is_clipped_by_itself() -> None:
    long, short, idle = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    long.grad, short.grad = torch.tensor([30.0, 40.0]), torch.tensor([0.3, 0.4])
    optim.clip([long, short, idle], Regime(clip=3.0))
    torch.testing.assert_close(long.grad, torch.tensor([1.8, 2.4]), rtol=1e-5, atol=0)
    assert torch.equal(short.grad, torch.tensor([0.3, 0.4]))
    optim.clip([long], Regime())
    torch.testing.assert_close(long.grad, torch.tensor([1.8, 2.4]), rtol=1e-5, atol=0)


def test_lars_scales_the_step_of_what_is_decayed_by_the_norms_of_weight_and_gradient() -> None:
    network = _network()
    regime = Regime("lars", lr=0.2, weight_decay=0.1, decay_norms=False)
    optimizer = optim.build(network.parameters(), regime, "cpu")
    network(torch.randn(8, 3, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    weight, bias = network[0].weight, network[2].bias
    assert weight.grad is not None
    assert bias.grad is not None
    trust = 0.001 * weight.norm() / (weight.grad.norm() + 0.1 * weight.norm())  # You et al. 2017, equation 6
    expected = weight - 0.2 * trust * (weight.grad + 0.1 * weight), bias - 0.2 * bias.grad
    optimizer.step()
    torch.testing.assert_close((weight, bias), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)  # fmt: skip
def test_the_optimiser_is_the_one_that_is_named_with_the_regimes_numbers(name: str, kind: type) -> None:
    regime = replace(Regime(lr=0.02, betas=(0.8, 0.9), momentum=0.7), optimizer=name)
    optimizer = optim.build(_network().parameters(), regime, "cpu")
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.02
    assert group.get("betas", (0.8, 0.9)) == (0.8, 0.9)
    assert group.get("momentum", 0.7) == 0.7


def _rates(chosen: range, steps: int, warmup: float) -> list[float]:
    """Learning rates, as shares of the peak."""
    regime = Regime(lr=1.0, warmup=warmup)
    optimizer = optim.build(_network().parameters(), regime, "cpu")
    return [optim.set_rate(optimizer, regime, step, steps) for step in chosen]


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.05), (40, 0.5), (7, 0.3), (100, 0.0)])
def test_the_learning_rate_rises_linearly_and_falls_by_half_a_cosine(steps: int, warmup: float) -> None:
    rise = round(steps * warmup)
    expected = [(s + 1) / (rise + 1) for s in range(rise)]
    expected += [(1 + math.cos(math.pi * (s - rise) / (steps - rise))) / 2 for s in range(rise, steps + 1)]
    assert _rates(range(steps + 1), steps, warmup) == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_peaks_at_1_and_ends_at_0_and_a_warmup_of_all_steps_only_rises() -> None:
    values = _rates(range(201), 200, 0.1)
    assert max(values) == values[20] == 1
    assert values[200] == pytest.approx(0, abs=1e-12)
    assert values[:21] == sorted(values[:21])
    assert values[20:] == sorted(values[20:], reverse=True)
    assert _rates(range(10), 10, 1.0) == pytest.approx([(s + 1) / 11 for s in range(10)])
    assert math.isfinite(*_rates(range(10, 11), 10, 1.0))
