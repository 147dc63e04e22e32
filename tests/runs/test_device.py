"""What a batch takes of memory, before it is tried."""

import pytest

from medsass.data.loading import memory
from medsass.errors import TooLargeError
from medsass.runs import device


def test_a_size_that_cannot_fit_is_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "host", lambda: 24 << 30)
    said = r"^16 images of 16000 x 16000 pixels at once take \d+ GiB of memory or more, and 24 GiB are free; take a smaller"
    with pytest.raises(TooLargeError, match=said):
        device.check_memory(16_000, 16, device.NETWORK, "cpu")
    with pytest.raises(TooLargeError):
        device.check_memory(100_000, 1, device.ENCODER, "cpu")
    device.check_memory(100_000, 1, device.ENCODER, "cuda")  # which says so by itself
    device.check_memory(512, 16, device.TRAINING, "cpu")
    device.check_memory(4096, 1, device.NETWORK, "cpu")
