"""The probe: classes that are visible are told apart, and what is reported is recomputed from the confusion matrix."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn import metrics as reference
from torchvision.ops import sigmoid_focal_loss

from medsass.config import ProbeConfig, ShardConfig
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.sharding import shard
from medsass.models import network
from medsass.runs.scoring import probe as module
from medsass.runs.scoring.probe import probe

pytestmark = pytest.mark.usefixtures("light_file")

IMAGES = "\n".join(f'[[images]]\npath = "{name}/*/*.png"\nsplit = "{name}"' for name in ("train", "val", "test"))
RECIPE = f"name = 'generated'\n{IMAGES}\n[classes]\npattern = '/(?P<class>dark|gray|bright|other)/'\n"
LEVELS = {"dark": 40, "gray": 110, "bright": 180, "other": 230, "unnamed": 128}


def _shards(folder: Path, counts: dict[str, dict[str, int]], noise: float = 6.0) -> Path:
    """Shards of `counts[split][class]` images of 32 x 32 pixels, the classes of another brightness each; images of
    the class "unnamed" have no label.
    """
    rng = np.random.default_rng(0)
    for split, classes in counts.items():
        for name, count in classes.items():
            (folder / "in" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = (LEVELS[name] + rng.normal(0, noise) + rng.normal(0, 4, (32, 32))).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(
                    folder / "in" / split / name / f"{split}{name}{index}.png"
                )
    (folder / "recipe.toml").write_text(RECIPE)
    shard.write(ShardConfig(folder / "in", folder / "shards", recipe=str(folder / "recipe.toml")))
    return folder / "shards"


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three unequal classes; a few images without a label."""
    counts = {
        "train": {"dark": 24, "gray": 12, "bright": 8, "unnamed": 5},
        "val": {"dark": 6, "gray": 4, "bright": 4},
        "test": {"dark": 9, "gray": 5, "bright": 3, "unnamed": 4},
    }
    return _shards(tmp_path_factory.mktemp("bright"), counts)


def _config(run: Path, shards: Path, **changes: Any) -> ProbeConfig:
    return ProbeConfig(run, shards, **{"device": "cpu", "threads": 1, "epochs": 30, "lr": 0.05, **changes})


@pytest.fixture(scope="module")
def result(trained: Path, bright: Path) -> dict[str, Any]:
    return probe(_config(trained, bright))


def test_visible_classes_are_told_apart_and_the_result_describes_what_was_scored(result: dict[str, Any]) -> None:
    assert result["recall"] > 0.9
    assert result["accuracy"] > 0.9
    assert list(result["classes"]) == ["bright", "dark", "gray"]
    assert [of["images"] for of in result["classes"].values()] == [3, 9, 5]
    assert [of["trained_on"] for of in result["classes"].values()] == [8, 24, 12]
    assert (result["images"], result["unlabelled"], result["split"]) == (17, 4, "test")
    assert 1 <= result["best_epoch"] <= result["epochs"] <= 30
    assert result["majority"] == {"recall": pytest.approx(1 / 3), "accuracy": pytest.approx(9 / 17)}


def test_scores_equal_scikit_learns_of_the_confusion_matrix(trained: Path, bright: Path) -> None:
    result = probe(_config(trained, bright, epochs=1, lr=0.01, seed=4))  # barely trained: some are wrong
    matrix = np.array(result["confusion"])
    pairs = [(row, column) for row in range(3) for column in range(3) for _ in range(matrix[row, column])]
    truth, guess = zip(*pairs, strict=True)
    assert matrix.sum(1).tolist() == [3, 9, 5]
    assert np.trace(matrix) < 17
    assert result["recall"] == pytest.approx(reference.balanced_accuracy_score(truth, guess))
    assert result["accuracy"] == pytest.approx(reference.accuracy_score(truth, guess))
    assert result["recall"] != pytest.approx(result["accuracy"])
    recalls = reference.recall_score(truth, guess, average=None, zero_division=0)
    assert [of["recall"] for of in result["classes"].values()] == pytest.approx(list(recalls))


def test_a_probe_repeats_by_its_seed_and_leaves_the_run_as_it_was(
    result: dict[str, Any], trained: Path, bright: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert probe(_config(trained, bright, json=tmp_path / "scores.json")) == result
    assert json.loads((tmp_path / "scores.json").read_text()) == result
    assert {path: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before
    assert probe(_config(trained, bright, seed=1))["val_loss"] != result["val_loss"]


def test_the_head_sees_the_pooled_features_of_the_frozen_encoder(
    trained: Path, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation features, recomputed from the stored weights by the network itself."""
    held = []

    def keep(batches: module.linear_head.Batches) -> list[Any]:
        held.extend(batches)
        return held

    monkeypatch.setattr(module.linear_head, "cached", keep)
    probe(_config(trained, bright, epochs=2))
    model = network.build("unet-resnet18")
    model.load_state_dict(load_file(trained / "model.safetensors"))
    (batch,) = Loader(LoaderConfig(bright, "val", 32, 16, info=True, threads=1))
    with torch.no_grad():
        expected = model.eval().encoder(network.normalise(batch.images))[-1].mean((2, 3))
    ((features, target),) = held
    torch.testing.assert_close(features, expected)
    assert target.tolist() == [["bright", "dark", "gray"].index(info["class"]) for info in batch.info]


def test_the_focal_loss_is_the_formula_and_with_two_classes_torchvisions() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.arange(50) % 4
    p = (np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True))[np.arange(50), target.numpy()]
    assert float(module.focal(logits, target)) == pytest.approx(np.mean(-((1 - p) ** 2) * np.log(p)), abs=1e-12)
    logits = torch.randn(40, generator=torch.Generator().manual_seed(1))
    target = torch.arange(40) % 2
    expected = sigmoid_focal_loss(logits, target.float(), alpha=-1, gamma=2, reduction="mean")
    two = torch.stack([torch.zeros_like(logits), logits], 1)  # softmax of (0, x) is the sigmoid of x
    assert float(module.focal(two, target)) == pytest.approx(float(expected), rel=1e-5)


def test_the_table_shows_each_class_and_the_commonest(
    result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    module.show({**result, "classes": {**result["classes"], "rare": {"recall": None, "images": 0, "trained_on": 2}}})
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["dark"] == [f"{result['classes']['dark']['recall']:.4f}", "9", "24"]
    assert rows["rare"] == ["-", "0", "2"]
    assert rows["recall"] == [f"{result['recall']:.4f}", "0.3333"]


def test_an_epoch_is_a_line(trained: Path, bright: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe(_config(trained, bright, epochs=2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (None, r"split 'train' holds no class labels; medsass probe needs two classes"),
        (
            {split: {"dark": 3} for split in ("train", "val", "test")},
            "holds only the class 'dark'; medsass probe needs two classes or more",
        ),
        (
            {"train": {"dark": 3, "gray": 3}, "val": {"dark": 2}, "test": {"gray": 1, "other": 1}},
            "split 'test' has the class 'other', which split 'train' has not",
        ),
        (
            {"train": {"dark": 3, "gray": 3}, "val": {"dark": 2}, "test": {"unnamed": 2}},
            "no image of split 'test' has a class label; choose another split",
        ),
    ],
    ids=["no labels", "one class", "unknown class", "unlabelled split"],
)
def test_shards_without_the_classes_to_learn_or_to_score_are_refused(
    trained: Path, shards: Path, tmp_path: Path, counts: dict[str, dict[str, int]] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probe(_config(trained, _shards(tmp_path, counts) if counts else shards))


def test_a_class_that_the_manifest_does_not_name_is_named(trained: Path, tmp_path: Path) -> None:
    shards = _shards(tmp_path, {"train": {"dark": 3, "gray": 3}, "val": {"dark": 2, "gray": 2}, "test": {"dark": 2}})
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace('"gray"', '"green"'))
    with pytest.raises(
        ValueError, match="a sample has the class 'gray', which the manifest does not name; run: medsass"
    ):
        probe(_config(trained, shards))
