"""`medsass tune`: ranks without the truth, writes options of `train`, and reports its quality where the truth is known."""

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy import stats

from medsass import cli
from medsass.config import ShardConfig, TuneConfig
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from medsass.labels import Labeler, criteria
from medsass.runs import preflight, run_directory
from medsass.runs.tuning import candidates, tune
from medsass.runs.tuning.candidates import Candidate
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("light_file")

FEW = ("", "blur:3", "border", "open:1,min:0.001")


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Fewer refinements, and small networks that learn for a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "REFINEMENTS", FEW)
        patch.setattr("medsass.runs.tuning.learnability.STEPS", 5)
        yield


def _config(shards: Path, folder: Path, **options: object) -> TuneConfig:
    values = {"out": folder / "labels.toml", "images": 8, "size": 64, "device": "cpu", "threads": 1, "learn": 0}
    return TuneConfig(shards, **{**values, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def ranking(shards: Path, folder: Path) -> tune.Ranking:
    return tune.tune(_config(shards, folder, score=True, learn=3, sheet=folder / "sheet.png"))


def test_generated_nuclei_are_bright_in_the_ranking_and_the_sheet_is_drawn(ranking: tune.Ranking, folder: Path) -> None:
    assert ranking.candidates[0].polarity == "bright"
    assert ranking.iou is not None
    assert ranking.iou[0] > 0.8 * ranking.iou.max()
    assert len(ranking.candidates) == len(ranking.iou) == 3 * len(FEW)
    assert tune.correlation(ranking) == pytest.approx(stats.spearmanr(ranking.scores, ranking.iou).statistic)
    assert np.isfinite(ranking.values["learnability"][:3]).all()
    assert np.isnan(ranking.values["learnability"][3:]).all()
    assert Image.open(folder / "sheet.png").size[0] > 4 * 160


def test_the_choice_is_what_train_takes(ranking: tune.Ranking, shards: Path, folder: Path, tmp_path: Path) -> None:
    written = tomllib.loads((folder / "labels.toml").read_text())
    best = ranking.candidates[0]
    assert (written["labels"], written["polarity"], written["refine"]) == (best.labels, best.polarity, best.refine)
    assert {name.replace("-", "_") for name in written} <= set(tiny(shards, tmp_path).__dataclass_fields__)
    options = [
        "--config",
        folder / "labels.toml",
        "--model",
        "unet-resnet18",
        "--size",
        32,
        "--epochs",
        1,
        "--device",
        "cpu",
    ]
    found = CliRunner().invoke(cli.main, ["train", str(shards), str(tmp_path / "run"), *map(str, options)])
    assert found.exit_code == 0, found.output
    stored = run_directory.stored(tmp_path / "run")[0]
    assert (stored.labels, stored.polarity, stored.refine) == (best.labels, best.polarity, best.refine)
    assert str(shards) in stored.chosen_on
    assert hashlib.sha256((shards / "manifest.json").read_bytes()).hexdigest() in stored.chosen_on


def test_the_truth_has_no_part_in_the_ranking_and_a_given_polarity_is_kept(shards: Path, tmp_path: Path) -> None:
    blind = tune.tune(_config(shards, tmp_path, polarity="dark"))
    known = tune.tune(_config(shards, tmp_path, polarity="dark", score=True))
    assert blind.iou is None
    assert {item.polarity for item in blind.candidates} == {"dark"}
    assert [item.name for item in blind.candidates] == [item.name for item in known.candidates]
    assert np.array_equal(blind.scores, known.scores)


def test_images_without_a_mask_are_looked_at_whether_or_not_the_others_are_scored(
    some_without_masks: Path, tmp_path: Path
) -> None:
    options = {"images": 20, "size": 32, "polarity": "bright"}
    blind = tune.tune(_config(some_without_masks, tmp_path, **options))
    known = tune.tune(_config(some_without_masks, tmp_path, score=True, sheet=tmp_path / "sheet.png", **options))
    assert np.array_equal(blind.scores, known.scores)
    assert "20 images of" in tomllib.loads((tmp_path / "labels.toml").read_text())["chosen-on"]
    masks = Loader(LoaderConfig(some_without_masks, "train", 32, 16, "cpu", masks=True))
    bare = [item.name for item in known.candidates].index("otsu bright none")
    found = [criteria.overlap(Labeler("otsu", "bright")(b.images).mask, b.masks) for b in masks if b.masks is not None]
    assert known.iou is not None
    assert known.iou[bare] == pytest.approx(float(torch.cat(found).mean()), abs=1e-6)


def _line(shards: Path, *options: object) -> str:
    """The one line that a refused command prints."""
    found = CliRunner().invoke(cli.main, ["tune", str(shards), *map(str, options)])
    assert found.exit_code == 2
    assert len(found.output.strip().splitlines()) == 1
    return found.output


@pytest.mark.parametrize("option", ["--out", "--sheet"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    option: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune.score, "glimpse", lambda *_: pytest.fail("looked at images first"))
    for path, reason in ((tmp_path / "none" / "file", "make it first"), (tmp_path, "is a folder")):
        options = {"--out": tmp_path / "x.toml", option: path}
        assert reason in _line(shards, *(word for pair in options.items() for word in pair))


def test_a_file_that_tune_did_not_write_is_kept(
    ranking: tune.Ranking, shards: Path, folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n')
    assert "was not written by medsass tune" in _line(shards, "--out", recipe)
    assert recipe.read_text() == 'name = "mine"\n'
    recipe.write_text((folder / "labels.toml").read_text() + "# seen\n")
    tune.write(_config(shards, tmp_path, out=recipe), ranking, 8, manifest.load(shards))
    preflight.tune(_config(shards, tmp_path, out=recipe))
    assert "# seen" not in recipe.read_text()


def test_what_the_images_cannot_give_is_refused_and_so_are_missing_shards(nuclei_folder: Path, tmp_path: Path) -> None:
    _line(tmp_path / "none")
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / f"images/{i}.png").hardlink_to(nuclei_folder / f"images/nuclei_000{i}.png")
    (tmp_path / "one.toml").write_text(
        'name = "one"\n[[images]]\npath = "images/0.png"\nsplit = "train"\n'
        '[[images]]\npath = "images/1.png"\nsplit = "val"\n'
    )
    shard.write(ShardConfig(tmp_path, tmp_path / "shards", recipe=str(tmp_path / "one.toml")))
    assert "has a mask for --score" in _line(tmp_path / "shards", "--out", tmp_path / "x.toml", "--score")
    assert "two training images" in _line(tmp_path / "shards", "--out", tmp_path / "x.toml", "--learn", 1)


def test_adaptive_choices_name_their_neighbourhood(shards: Path, tmp_path: Path) -> None:
    best = Candidate("adaptive-mean", "dark", "border", 111)
    ranking = tune.Ranking([best], np.ones(1), {}, None)
    tune.write(_config(shards, tmp_path), ranking, 8, manifest.load(shards))
    written = tomllib.loads((tmp_path / "labels.toml").read_text())
    assert (written["block-size"], written["size"]) == (33, 64)
