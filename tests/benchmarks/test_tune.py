"""`benchmarks.tune` on a small scale: its scores are those of the labelers on the scored split."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import tune
from benchmarks.support import result
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.labels import Labeler, criteria
from medsass.runs.tuning import candidates


def test_the_whole_program(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data/isic2017").mkdir(parents=True)
    for name, value in (("SPLITS", {"isic2017": "test"}), ("SIZE", 64), ("IMAGES", 8)):
        monkeypatch.setattr(tune, name, value)
    monkeypatch.setattr(candidates, "REFINEMENTS", ("", "blur:3"))
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["tune", str(tmp_path / "data")])
    monkeypatch.setattr("medsass.data.sharding.shard.write", lambda config: config.out.symlink_to(shards))
    tune.main()
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = saved["rows"]
    batches = list(Loader(LoaderConfig(shards, "test", 64, 16, masks=True)))
    images, truth = torch.cat([b.images for b in batches]), torch.cat([b.masks for b in batches if b.masks is not None])
    bare = criteria.overlap(Labeler("otsu", "auto")(images).mask, truth).mean()
    assert row["otsu_iou"] == pytest.approx(float(bare))
    assert row["images"] == len(images)
    assert row["looked_at"] == 8
    assert row["side_found"] == "bright"
    assert saved["targets"][0]["value"] == pytest.approx(row["chosen_iou"] - row["otsu_iou"])
    line = tune.markdown_table({"cpu-tune.json": saved}).splitlines()[2]
    assert line.startswith(f"| isic2017 (test, {len(images)} images) | bright (auto) | `{row['chosen']}` |")
