"""A teacher's average, its prediction and its share, against formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medsass.methods import teacher
from medsass.methods.teacher import Teacher
from tests.support.effort import examples


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1))


def test_a_teacher_begins_as_a_copy_that_no_gradient_reaches() -> None:
    net = _net()
    made = Teacher(net)
    for a, b in zip(net.parameters(), made.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()
        assert not b.requires_grad
    made.train()
    assert not made.network.training


def test_a_teacher_is_an_average_of_its_network_over_a_share_of_the_steps_so_far() -> None:
    net = _net()
    made = Teacher(net)
    seen: list[torch.Tensor] = []
    for step in range(1, 201):
        with torch.no_grad():
            for item in net.parameters():
                item.add_(torch.randn_like(item))
        net[1].running_mean += step  # type: ignore[operator, index]
        seen.append(next(net.parameters()).detach().clone())
        made.follow(net)
        assert torch.equal(made.network[1].running_mean, net[1].running_mean)  # type: ignore[index]
        # the weights that the power function's schedule unrolls to (Karras et al. 2024): a step's is the
        # difference of (s / t) ** (gamma + 1), but for the product's rounding in whole steps
        left, shares = 1.0, np.zeros(step)
        for s in range(step, 0, -1):
            momentum = (1 - 1 / s) ** (teacher.GAMMA + 1)
            shares[s - 1] = left * (1 - momentum)
            left *= momentum
        if step in (1, 2, 50, 200):
            wanted = sum(float(share) * weights for share, weights in zip(shares, seen, strict=True))
            torch.testing.assert_close(next(made.parameters()), torch.as_tensor(wanted), rtol=1e-4, atol=1e-4)
    steps = np.arange(1, 201)
    centre = (shares * steps).sum()
    spread = np.sqrt((shares * (steps - centre) ** 2).sum()) / 200
    assert spread == pytest.approx(0.10, abs=0.01)  # sigma_rel of that gamma, section 3.1


def test_an_opinion_is_the_mean_of_two_flips_and_their_overlap() -> None:
    made, images = Teacher(_net()), torch.randn(2, 3, 8, 8)
    logits, stability = made(images)
    plain = made.network(images)[:, 0]
    flipped = made.network(images.flip(-1))[:, 0].flip(-1)
    torch.testing.assert_close(logits, (plain + flipped) / 2)
    for i in range(2):
        a, b = (item[i].detach().numpy() > 0 for item in (plain, flipped))
        assert float(stability[i]) == pytest.approx((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("progress", "share"), [(0, 0), (0.3, 0), (0.55, 0.4), (0.8, 0.8), (1, 0.8)])
def test_the_teacher_takes_over_in_the_middle_of_the_training(progress: float, share: float) -> None:
    assert teacher.share(progress) == pytest.approx(share)


def test_the_target_moves_by_share_and_stability_and_only_where_the_teacher_has_not_collapsed() -> None:
    mask = torch.zeros(3, 4, 4, dtype=torch.uint8)
    mask[:, :2] = 1
    logits = torch.where(mask > 0, 2.0, -2.0)
    logits[2] = -logits[2]  # the other side
    sure = torch.sigmoid(torch.tensor(2.0)).item()
    found = teacher.blended(mask, logits, torch.tensor([1.0, 0.5, 1.0]), torch.tensor(0.8))
    assert found[0, 0, 0].item() == pytest.approx(1 - 0.8 * (1 - sure))
    assert found[1, 0, 0].item() == pytest.approx(1 - 0.4 * (1 - sure))
    assert torch.equal(found[2], mask[2].float())


@examples(100)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(-3, 3))
def test_the_teacher_decides_where_foreground_is_and_the_threshold_how_much(
    seed: int, share: float, bias: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 7, 9, generator=rng) + bias
    mask = (torch.rand(2, 7, 9, generator=rng) < share).byte()
    found = teacher.aligned(logits, mask)
    assert int((found > 0.5).sum()) == pytest.approx(int(mask.sum()), abs=1)
    assert (found.flatten()[logits.flatten().argsort()].diff() >= 0).all()
