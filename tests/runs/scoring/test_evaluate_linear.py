"""The linear protocol: it reads off what features hold and no more, and needs masks to learn from."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from medsass.config import EvaluateConfig, ShardConfig
from medsass.data.sharding import shard
from medsass.runs.scoring import evaluate as module
from medsass.runs.scoring.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 40 images of 32 x 32 pixels, the size of `trained`: bright rectangles, which are the foreground."""
    folder, rng = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(40):
        mask = np.zeros((32, 32), np.uint8)
        (y, x), (height, width) = rng.integers(0, 20, 2), rng.integers(6, 12, 2)
        mask[y : y + height, x : x + width] = 1
        gray = 60 + 120 * mask + rng.integers(0, 20, mask.shape)
        Image.fromarray(gray.astype(np.uint8)).save(folder / "images" / f"{index:02d}.png")
        Image.fromarray(mask * np.uint8(255)).save(folder / "masks" / f"{index:02d}.png")
    shard.write(ShardConfig(folder, folder / "shards", images="images/*.png", masks="masks/*.png"))
    return folder / "shards"


class Noise(nn.Module):
    """Features of every image: the same noise."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(1, 3, *images.shape[2:], generator=torch.Generator().manual_seed(0))
        return noise.expand(len(images), -1, -1, -1)


@pytest.mark.parametrize("useful", [True, False])
def test_the_linear_protocol_reads_off_what_features_hold_and_no_more(
    useful: bool, trained: Path, blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    colours = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    encoder = colours if useful else Noise()
    before = copy.deepcopy(encoder.state_dict())
    monkeypatch.setattr(module.checkpoint, "load_encoder", lambda *_: encoder)
    monkeypatch.setattr(module.encoder, "feature_map", lambda frozen, images: frozen(images))
    monkeypatch.setattr(module.encoder, "width", lambda _: 3)
    scores = evaluate(EvaluateConfig(trained, blocks, protocol="linear", device="cpu", threads=1))
    assert (scores["iou"] > 0.99) == useful
    assert useful or scores["iou"] < 0.4
    assert scores["everything"]["iou"] < 0.2
    torch.testing.assert_close(dict(encoder.state_dict()), dict(before), rtol=0, atol=0)


def test_the_linear_protocol_needs_masks_to_learn_from(trained: Path, shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "s")
    table = json.loads((tmp_path / "s" / "manifest.json").read_text())
    table["splits"]["train"]["masks"] = 0
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"no image of split 'train' has a mask, .* take --protocol network or paper"):
        evaluate(EvaluateConfig(trained, tmp_path / "s", protocol="linear", device="cpu"))
