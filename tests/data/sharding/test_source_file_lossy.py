"""Masks in lossy formats: what is bright is known, levels and colours are not."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.data.sharding.test_shard_volumes import decoded
from tests.support.faults import samples

TRUTH = np.zeros((64, 80), np.uint8)
cv2.circle(TRUTH, (40, 30), 17, 1, -1)
FORMS = ("gray.jpg", "colour.jpg", "gray.webp")


def source(folder: Path, form: str) -> Path:
    for name, array in (("images", TRUTH * 90 + 40), ("masks", TRUTH * 255)):
        (folder / name).mkdir()
        shown = cv2.merge([array] * 3) if form.startswith("colour") else array
        suffix = Path(form).suffix if name == "masks" else ".png"
        Image.fromarray(shown).save(folder / name / f"a{suffix}", quality=60)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_half_is_what_is_bright(form: str, tmp_path: Path) -> None:
    held = samples(
        tmp_path / "out", shard.write(ShardConfig(source(tmp_path, form), tmp_path / "out", foreground="half"))
    )
    assert np.count_nonzero((decoded(held["a"]["mask.png"]) > 0) != TRUTH) < 0.01 * TRUTH.size


@pytest.mark.parametrize("foreground", ["", "nonzero", "255", "1,255", "#ffffff"])
@pytest.mark.parametrize("form", FORMS)
def test_levels_and_what_is_not_0_are_refused_with_what_works(form: str, foreground: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a\.\w+: its lossy format .*: --foreground half takes what is bright, or save"
    ):
        shard.write(ShardConfig(source(tmp_path, form), tmp_path / "out", foreground=foreground))


def test_lossless_webp_counts_by_its_levels(tmp_path: Path) -> None:
    folder = source(tmp_path, "gray.webp")
    Image.fromarray(TRUTH * 255).save(folder / "masks/a.webp", lossless=True)
    held = samples(tmp_path / "out", shard.write(ShardConfig(folder, tmp_path / "out")))
    np.testing.assert_array_equal(decoded(held["a"]["mask.png"]) > 0, TRUTH)
    assert json.loads(held["a"]["json"])["mask_coverage"] == round(TRUTH.mean(), 6)
