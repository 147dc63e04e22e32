"""The network's input that the labelling kernel writes, against torch's and NumPy's rounding."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import threshold as spec
from tests.kernels.labelled import GHT, LAYOUTS, POLARITIES, at_offset, batches, check
from tests.support import emulation as em
from tests.support.effort import examples

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


def _input_bits(images: NDArray[np.uint8], kind: int) -> NDArray[Any]:
    """The bits of the normalised input as torch (bfloat16) and NumPy round it."""
    rgb = images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
    values = spec.normalised(rgb, em.MEAN, em.STD)
    if kind == 1:
        return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return values.astype(np.float16).view(np.uint16) if kind == 2 else values.view(np.uint32)


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_input_is_normalised_and_rounded_as_stated(form: str, kind: int) -> None:
    @examples(40)
    @given(batches(form, 2), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
    def holds(images: NDArray[np.uint8], polarity: str, layout: tuple[int, bool]) -> None:
        result = em.label(images, polarity, None, kind, layout[0], once=layout[1])
        assert result.input is not None
        wanted = _input_bits(images, kind)
        assert np.array_equal(result.input.view(wanted.dtype), wanted)
        check(images, polarity, None, result)

    holds()


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_input_of_every_level_is_as_stated(form: str, kind: int) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    images = np.stack([levels, levels[:, ::-1], levels[:, :, ::-1]], axis=3) if form == "rgb" else levels
    for at in (images, at_offset(images, 3)):
        result = em.label(at, "bright", GHT["minimum error"], kind)
        assert result.input is not None
        wanted = _input_bits(images, kind)
        assert np.array_equal(result.input.view(wanted.dtype), wanted)


@pytest.mark.parametrize(("kind", "base"), [(1, 256), (2, 2048)], ids=["bfloat16", "float16"])
def test_input_halfway_between_two_numbers_is_rounded_to_even(
    kind: int, base: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # x + base: every odd x lies halfway between two numbers of the type
    monkeypatch.setattr(em, "MEAN", (-base / 255,) * 3)
    monkeypatch.setattr(em, "STD", (1 / 255,) * 3)
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    wanted = _input_bits(levels, kind)
    assert spec.normalised(levels[..., None].repeat(3, 3), em.MEAN, em.STD).max() == base + 255
    for at in (levels, at_offset(levels, 3)):
        result = em.label(at, "bright", None, kind)
        assert result.input is not None
        assert np.array_equal(result.input.view(np.uint16), wanted)
