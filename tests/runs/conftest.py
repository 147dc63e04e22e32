"""What the tests of predictions share."""

import pytest
import torch

from medsass.models import checkpoint


@pytest.fixture
def one_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """One convolution of 7 x 7 in place of the network, for tests of what stands around it."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 1, 7, padding=3).eval()
    monkeypatch.setattr(checkpoint, "load_model", lambda *_: model)
