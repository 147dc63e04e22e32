"""Changes of colour against DALI's own operator, and when they may be applied after it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.dali import import_dali
from medsass.data.loading import colour, loader
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Loader, LoaderConfig
from tests.support.effort import examples

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
CHANGES = st.tuples(st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(0, 2), st.floats(-60, 60))


def _dali(image: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return the image under each row of changes as float32, before rounding."""
    dali, fn = import_dali(), import_dali("nvidia.dali.fn")
    pipeline = dali.Pipeline(batch_size=len(changes), num_threads=1, device_id=None)
    with pipeline:
        images = fn.external_source(source=lambda: [image] * len(changes), batch=True, layout="HWC")
        rows = fn.external_source(source=lambda: list(changes), batch=True, ndim=1)
        names: dict[str, Any] = dict(
            zip(("brightness", "contrast", "saturation", "hue"), (rows[i] for i in range(4)), strict=True)
        )
        pipeline.set_outputs(fn.color_twist(images, dtype=import_dali("nvidia.dali.types").FLOAT, **names))
    pipeline.build()
    (found,) = pipeline.run()
    return np.stack([np.asarray(found.at(i)) for i in range(len(changes))])


@examples(20)
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_matrices_are_dalis(rows: list[tuple[float, ...]]) -> None:
    changes = np.array(rows, np.float32)
    pixels = np.concatenate([PIXELS, np.ones((40, 60, 1))], 2)
    found = np.einsum("nij,hwj->nhwi", colour.matrices(changes).astype(np.float64), pixels)
    np.testing.assert_allclose(found, _dali(PIXELS, changes), atol=2e-2)


@examples(20)
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_changed_images_are_at_most_a_level_from_dalis(rows: list[tuple[float, ...]]) -> None:
    changes = np.array(rows, np.float32)
    found = colour.apply(np.stack([PIXELS] * len(rows)), changes)
    expected = _dali(PIXELS, changes).clip(0, 255)
    assert np.abs(found - expected).max() <= 1


def test_nothing_changes_nothing() -> None:
    still = np.array([[1, 1, 1, 0]], np.float32)
    assert np.array_equal(colour.apply(PIXELS[None], still)[0], PIXELS)


@pytest.mark.parametrize(
    ("change", "depth", "expected"),
    [
        (Augment(), 8, True),
        (Augment(jitter=0.0, hue=0.0), 8, False),
        (Augment(jitter=0.0, hue=0.0, gray=0.2), 8, True),
        (Augment(), 16, False),
        (Augment(blur=0.1), 8, False),
        (Augment(solarize=0.1), 8, False),
        (Augment(warp=True), 8, False),
        (None, 8, False),
    ],
)
def test_colour_is_last_only_without_later_changes(change: Augment | None, depth: int, expected: bool) -> None:
    assert colour.is_last(View(32, change), depth) == expected


def test_batches_equal_those_of_dali_alone(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LoaderConfig(shards, "train", 48, 8, augment=Augment(jitter=0.3, hue=20.0), masks=True)
    config = replace(config, more=(View(32), View(40, Augment())))
    ours = list(Loader(config))
    monkeypatch.setattr(loader.colour, "is_last", lambda *_: False)
    theirs = list(Loader(config))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.masks, other.masks)  # type: ignore[arg-type]
        assert torch.equal(one.more[0], other.more[0])
        for a, b in zip(one.views, other.views, strict=True):
            assert (a.int() - b.int()).abs().max() <= 1
    assert any(not torch.equal(one.images, other.images) for one, other in zip(ours, theirs, strict=True))
