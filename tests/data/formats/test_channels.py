"""Channels that are chosen, against NumPy."""

import numpy as np
import pytest

from medsass.data.formats import channels

PLANES = np.random.default_rng(0).integers(1, 256, (3, 5, 6), np.uint8)


@pytest.mark.parametrize("chosen", [(0,), (2, 1, 0), (0, 0, 1), (1, -1, 0), (-1, 2, -1)])
def test_channels_are_put_together_and_read_once(chosen: tuple[int, ...]) -> None:
    read: list[int] = []
    got = channels.composed(chosen, lambda i: read.append(i) or PLANES[i])
    padded = np.concatenate([PLANES, np.zeros((1, 5, 6), np.uint8)])  # -1 is the last: black
    np.testing.assert_array_equal(
        got, padded[list(chosen)].transpose(1, 2, 0)[..., 0 if len(chosen) == 1 else slice(None)]
    )
    assert got.dtype == np.uint8
    assert sorted(read) == sorted({i for i in chosen if i >= 0})


@pytest.mark.parametrize("chosen", [(), (0, 1), (-1,), (-1, -1, -1), (3,), (0, 1, -2), (0, 1, 2, 0)])
def test_other_choices_are_refused(chosen: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be one or three of the file's 3, numbered from 0; -1 is black"):
        channels.check(chosen, 3)


def test_the_remedy_is_told() -> None:
    assert "in [[images]] channels = [i] for gray" in str(channels.needed(2))
