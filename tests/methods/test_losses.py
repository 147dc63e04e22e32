"""Each loss against its formula in NumPy float64, its limits, and inputs that break naive ones."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medsass.config.options import Loss
from medsass.methods.losses import LOSSES

Array = NDArray[np.float64]


def _tversky(p: Array, y: Array) -> float:
    tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    return float(1 - tp / (tp + 0.3 * fp + 0.7 * fn))


def _focal_tversky(p: Array, y: Array) -> float:
    return float(_tversky(p, y) ** (3 / 4))


def _focal(p: Array, y: Array) -> float:
    q, a = np.where(y == 1, p, 1 - p), np.where(y == 1, 0.25, 0.75)
    return float((-a * (1 - q) ** 2 * np.log(q)).mean())


def _cross_entropy(p: Array, y: Array) -> float:
    return float(-np.log(np.where(y == 1, p, 1 - p)).mean())


FORMULAS: dict[str, Callable[[Array, Array], float]] = {
    "focal-tversky": _focal_tversky,
    "tversky": _tversky,
    "focal": _focal,
    "cross-entropy": _cross_entropy,
}


def _target(seed: int) -> torch.Tensor:
    return torch.from_numpy((np.random.default_rng(seed).random((3, 8, 9)) < 0.4).astype(np.uint8))


def _logits(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed + 99).normal(0, 2, (3, 1, 8, 9)).astype(np.float32))


def test_the_losses_are_those_that_can_be_chosen() -> None:
    assert set(LOSSES) == set(get_args(Loss)) == set(FORMULAS)


@pytest.mark.parametrize("name", get_args(Loss))
@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_its_formula(name: str, seed: int) -> None:
    logits, target = _logits(seed), _target(seed)
    p = 1 / (1 + np.exp(-logits[:, 0].numpy().astype(np.float64)))
    expected = FORMULAS[name](p, target.numpy().astype(np.float64))
    loss = LOSSES[name](logits, target)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", get_args(Loss))
def test_a_perfect_prediction_costs_nothing_and_has_a_finite_gradient(name: str) -> None:
    target = _target(0)
    for scale in (30.0, 60.0):
        logits = (scale * (2 * target.float() - 1)[:, None]).requires_grad_()
        loss = LOSSES[name](logits, target)
        loss.backward()
        assert loss.item() < 1e-4
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", get_args(Loss))
def test_an_inverted_prediction_costs_more_than_an_undecided_one(name: str) -> None:
    target = _target(0)
    sign = (2 * target.float() - 1)[:, None]
    assert LOSSES[name](-5 * sign, target) > LOSSES[name](0 * sign, target)


@pytest.mark.parametrize("name", ["tversky", "focal-tversky"])
def test_missing_pixels_cost_more_than_as_many_false_alarms(name: str) -> None:
    target = torch.zeros(1, 10, 10, dtype=torch.uint8)
    target[0, :4] = 1
    missing, false_alarm = target.clone(), target.clone()
    missing[0, 0], false_alarm[0, 9] = 0, 1
    costs = [LOSSES[name](30.0 * (2 * mask.float() - 1)[:, None], target).item() for mask in (missing, false_alarm)]
    power = {"tversky": 1, "focal-tversky": 0.75}[name]
    expected = [(1 - 30 / (30 + 0.7 * 10)) ** power, (1 - 40 / (40 + 0.3 * 10)) ** power]
    assert costs == pytest.approx(expected, rel=1e-4)
    assert costs[0] > costs[1]


@pytest.mark.parametrize("name", get_args(Loss))
@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
@pytest.mark.parametrize("fill", [0, 1])
def test_a_target_of_one_class_gives_a_finite_loss_and_gradient(name: str, scale: float, fill: int) -> None:
    logits = (scale * _logits(1)).requires_grad_()
    loss = LOSSES[name](logits, torch.full((3, 8, 9), fill, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", get_args(Loss))
def test_the_gradient_points_towards_the_target(name: str) -> None:
    target = _target(0)
    logits = torch.zeros(3, 1, 8, 9, requires_grad=True)
    LOSSES[name](logits, target).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0][target == 1] < 0).all()
    assert (logits.grad[:, 0][target == 0] > 0).all()


@pytest.mark.parametrize("name", get_args(Loss))
def test_bf16_logits_are_computed_in_float32(name: str) -> None:
    logits = _logits(2).bfloat16()
    loss = LOSSES[name](logits, _target(2))
    assert loss.dtype == torch.float32
    assert loss.item() == LOSSES[name](logits.float(), _target(2)).item()
