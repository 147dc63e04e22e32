"""Averaging over flips against probabilities averaged by hand."""

import numpy as np
import torch
from torch import nn

from medsass.models import flips


def _net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1)
    return nn.Sequential(*layers).eval()


def test_averaging_over_flips_does_not_depend_on_the_flip() -> None:
    segment = flips.averaged(_net())
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        found = segment(images)
        for flip in ((-1,), (-2,), (-1, -2)):
            torch.testing.assert_close(segment(images.flip(flip)).flip(flip), found, atol=1e-5, rtol=1e-5)


def test_averaging_is_the_mean_of_probabilities() -> None:
    net, images = _net(), torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        all_ = [net(images.flip(f))[:, 0].sigmoid().flip(f) for f in ((-1,), (-2,), (-1, -2))]
        expected = np.mean([net(images)[:, 0].sigmoid().numpy(), *(item.numpy() for item in all_)], axis=0)
        found = flips.averaged(net)(images)
    assert found.shape == (1, 1, 6, 6)
    np.testing.assert_allclose(found[:, 0].sigmoid().numpy(), expected, atol=1e-5)
