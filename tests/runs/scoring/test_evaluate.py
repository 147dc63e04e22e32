"""Evaluation: every value recomputed from the network, OpenCV and the masks, apart from the code that reports it."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn import metrics as reference
from torch import nn

from medsass.config import EvaluateConfig, PredictConfig, ShardConfig
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.sharding import shard
from medsass.labels import Labeler
from medsass.models import network
from medsass.runs.prediction.predict import predict
from medsass.runs.scoring import evaluate as module
from medsass.runs.scoring.evaluate import evaluate
from medsass.runs.training.train import train
from tests.conftest import tiny
from tests.support import built

pytestmark = pytest.mark.usefixtures("light_file")

SCORES = {"iou", "iou_dataset", "dice", "precision", "recall", "accuracy"}


@pytest.fixture(scope="module")
def result(trained: Path, shards: Path) -> dict[str, Any]:
    return evaluate(EvaluateConfig(trained, shards, device="cpu", threads=1))


def _expected(guesses: list[np.ndarray], truths: list[np.ndarray]) -> dict[str, float]:
    """scikit-learn's scores, mean over images; no mask of the generated nuclei is empty."""
    pairs = [(truth.ravel(), guess.ravel()) for truth, guess in zip(truths, guesses, strict=True)]
    functions = {"iou": reference.jaccard_score, "dice": reference.f1_score, "precision": reference.precision_score,
                 "recall": reference.recall_score}  # fmt: skip
    scores = {name: np.mean([f(*pair, zero_division=0) for pair in pairs]) for name, f in functions.items()}
    scores["accuracy"] = np.mean([reference.accuracy_score(*pair) for pair in pairs])
    both, either = (sum(int(op(*pair).sum()) for pair in pairs) for op in (np.logical_and, np.logical_or))
    return {**scores, "iou_dataset": both / either}


@pytest.fixture(scope="module")
def batches(shards: Path) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Images and masks of the test split at 32 x 32."""
    loaded = list(Loader(LoaderConfig(shards, "test", 32, 16, masks=True, threads=1)))
    return torch.cat([batch.images for batch in loaded]), [mask.numpy() for batch in loaded for mask in batch.masks]


def test_the_result_has_exactly_the_documented_keys(result: dict[str, Any], shards: Path) -> None:
    assert result.keys() == SCORES | {"images", "split", "protocol", "flips", "labels", "everything"}
    images = json.loads((shards / "manifest.json").read_text())["splits"]["test"]["samples"]
    assert (result["split"], result["protocol"], result["images"]) == ("test", "network", images)
    assert result["flips"] is False
    for name in ("labels", "everything"):
        assert result[name].keys() == SCORES | {"images"}
        assert result[name]["images"] == images


def _model(run: Path) -> nn.Module:
    model = network.build("unet-resnet18")
    model.load_state_dict(load_file(run / "model.safetensors"))
    return model.eval()


def test_scores_equal_those_computed_from_the_models_outputs(
    result: dict[str, Any], trained: Path, batches: tuple[torch.Tensor, list[np.ndarray]]
) -> None:
    images, truths = batches
    with torch.no_grad():
        guesses = (_model(trained)(network.normalise(images))[:, 0].sigmoid() > 0.5).numpy()
    for name, value in _expected(list(guesses), truths).items():
        assert result[name] == pytest.approx(value, abs=1e-9), name


def test_scores_of_flips_are_of_their_mean_probability(
    trained: Path, shards: Path, batches: tuple[torch.Tensor, list[np.ndarray]]
) -> None:
    images, truths = batches
    model, seen = _model(trained), network.normalise(images)
    with torch.no_grad():
        flipped = [model(seen.flip(axes))[:, 0].sigmoid().flip(axes) for axes in ((-1,), (-2,), (-1, -2))]
        mean = (model(seen)[:, 0].sigmoid() + sum(flipped)) / 4
    result = evaluate(EvaluateConfig(trained, shards, device="cpu", threads=1, flips=True))
    expected = _expected(list((mean > 0.5).numpy()), truths)
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=2e-3), name


def test_predict_averages_over_flips_too(trained: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    image = next(iter((nuclei_folder / "images").iterdir()))
    found = []
    for flips in (False, True):
        options = PredictConfig(trained, (image,), tmp_path / str(flips), probability=True, flips=flips, device="cpu")
        assert predict(options) == []
        (path,) = (tmp_path / str(flips)).glob("*prob*")
        found.append(np.asarray(Image.open(path)).astype(float))
    assert found[0].shape == found[1].shape
    assert 0 < np.abs(found[0] - found[1]).mean() < 0.1 * 65535


def test_label_scores_equal_opencvs_otsu_on_the_same_images(
    result: dict[str, Any], batches: tuple[torch.Tensor, list[np.ndarray]]
) -> None:
    images, truths = batches
    grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images.numpy()]
    masks = [cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1] for gray in grays]
    for name, value in _expected(masks, truths).items():
        assert result["labels"][name] == pytest.approx(value, abs=1e-9), name


def test_the_labels_of_a_run_that_refines_are_refined(
    result: dict[str, Any], trained: Path, shards: Path, tmp_path: Path, batches: tuple[torch.Tensor, list[np.ndarray]]
) -> None:
    run, (images, truths) = shutil.copytree(trained, tmp_path / "run"), batches
    content = json.loads((run / "config.json").read_text())
    content["train"]["refine"] = "border,open:7"
    (run / "config.json").write_text(json.dumps(content))
    scores = evaluate(EvaluateConfig(run, shards, device="cpu", threads=1))
    masks = list(Labeler("otsu", "bright", refine="border,open:7")(images).mask.numpy())
    for name, value in _expected(masks, truths).items():
        assert scores["labels"][name] == pytest.approx(value, abs=1e-9), name
        assert scores[name] == result[name], name
    assert scores["labels"]["iou"] != result["labels"]["iou"]


def test_foreground_everywhere_scores_the_mean_share_of_foreground(
    result: dict[str, Any], batches: tuple[torch.Tensor, list[np.ndarray]]
) -> None:
    share = np.mean([truth.mean() for truth in batches[1]])
    scores = result["everything"]
    assert [scores[name] for name in ("iou", "precision", "accuracy")] == pytest.approx([share] * 3, abs=1e-9)
    assert scores["recall"] == 1
    assert scores["dice"] == pytest.approx(np.mean([2 * t.mean() / (1 + t.mean()) for t in batches[1]]), abs=1e-9)


def test_the_batch_size_does_not_change_the_scores(result: dict[str, Any], trained: Path, shards: Path) -> None:
    other = evaluate(EvaluateConfig(trained, shards, batch_size=3, device="cpu", threads=1))
    assert other["labels"] == result["labels"]
    assert [other[name] for name in SCORES] == pytest.approx([result[name] for name in SCORES], abs=2e-3)


def test_scores_are_written_where_asked_and_printed_side_by_side(
    result: dict[str, Any], trained: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panel, scores = tmp_path / "panel.png", tmp_path / "scores.json"
    evaluate(EvaluateConfig(trained, shards, device="cpu", threads=1, json=scores, panel=panel))
    assert json.loads(scores.read_text()) == result
    with Image.open(panel) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > 4 * 100
        assert image.height > 8 * 100
    capsys.readouterr()
    module.show(result)
    printed = capsys.readouterr().out
    row = next(line.split() for line in printed.splitlines() if line.startswith("iou "))
    assert row[-3:] == [f"{part['iou']:.4f}" for part in (result, result["labels"], result["everything"])]
    assert "network" in printed


def test_what_cannot_be_scored_is_refused(trained: Path, shards: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'nope'.*train.*test"):
        evaluate(EvaluateConfig(trained, shards, split="nope", device="cpu"))
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        evaluate(EvaluateConfig(tmp_path, shards, device="cpu"))
    shard.write(ShardConfig(nuclei_folder, tmp_path / "s", images="images/*.png"))
    with pytest.raises(ValueError, match="no image of split 'test' has a mask"):
        evaluate(EvaluateConfig(trained, tmp_path / "s", device="cpu"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of one epoch on 16-bit shards, and these."""
    place = tmp_path_factory.mktemp("deep")
    train(tiny(built.build(place / "shards", 16), place / "run", epochs=1))
    return place / "run", place / "shards"


def test_16_bit_scores_equal_those_computed_apart(deep: tuple[Path, Path], tmp_path: Path) -> None:
    run, shards = deep
    result = evaluate(EvaluateConfig(run, shards, device="cpu", threads=1, panel=tmp_path / "panel.png"))
    (batch,) = Loader(LoaderConfig(shards, "test", 32, 16, masks=True, threads=1))
    images, truths = batch.images.numpy().astype(np.float64), list(batch.masks.numpy())  # type: ignore[union-attr]
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    unit = torch.from_numpy((images - low) / (high - low))[:, None].repeat(1, 3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        guesses = list((_model(run)(((unit - mean) / std).float())[:, 0] > 0).numpy())
    for name, value in _expected(guesses, truths).items():
        assert result[name] == pytest.approx(value, abs=2e-3), name
    assert result["labels"]["iou"] > 0.8  # bright discs: Otsu finds them
    with Image.open(tmp_path / "panel.png") as picture:
        assert np.asarray(picture.convert("L")).min() == 0


@pytest.mark.parametrize(("trained_on", "scored_on"), [(8, 16), (16, 8)])
def test_shards_of_another_depth_are_refused(
    deep: tuple[Path, Path], trained: Path, shards: Path, trained_on: int, scored_on: int
) -> None:
    run, other = {8: (trained, shards), 16: deep}[trained_on][0], {8: shards, 16: deep[1]}[scored_on]
    with pytest.raises(ValueError, match=rf"trained on {trained_on}-bit images, .* {scored_on}-bit ones; make shards"):
        evaluate(EvaluateConfig(run, other, device="cpu"))


@pytest.fixture(scope="module")
def alone(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `trained` as if it had kept its encoder alone."""
    run = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(trained, run)
    facts = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**facts, "keeps": "encoder"}))
    state = {name: value for name, value in load_file(run / "model.safetensors").items() if name.startswith("encoder.")}
    save_file(state, run / "model.safetensors")
    return run


def test_a_run_of_an_encoder_alone_names_what_it_cannot_do(
    alone: Path, shards: Path, nuclei_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"keeps an encoder alone.*; take --protocol linear or paper"):
        evaluate(EvaluateConfig(alone, shards, protocol="network", device="cpu"))
    image = nuclei_folder / "images" / "nuclei_0000.png"
    with pytest.raises(ValueError, match=r"^[^\n]*holds an encoder alone[^\n]*$"):
        predict(PredictConfig(alone, (image,), tmp_path, device="cpu"))


def test_the_paper_protocol_scores_an_untrained_decoder_of_the_runs_seed(
    result: dict[str, Any], alone: Path, trained: Path, shards: Path, batches: tuple[torch.Tensor, list[np.ndarray]]
) -> None:
    config = EvaluateConfig(trained, shards, protocol="paper", device="cpu", threads=1)
    torch.manual_seed(5)
    first = evaluate(config)
    assert first["protocol"] == "paper"
    assert evaluate(EvaluateConfig(alone, shards, protocol="paper", device="cpu", threads=1)) == first
    assert first["iou"] != result["iou"]
    assert first["labels"] == result["labels"]
    torch.manual_seed(0)  # the seed of `trained`
    model = network.build("unet-resnet18")
    state = {k: v for k, v in load_file(trained / "model.safetensors").items() if k.startswith("encoder.")}
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        guesses = list((model.eval()(network.normalise(batches[0]))[:, 0] > 0).numpy())
    assert first["iou"] == pytest.approx(_expected(guesses, batches[1])["iou"], abs=1e-9)


def test_auto_is_linear_where_an_encoder_is_alone_and_repeats(alone: Path, shards: Path, tmp_path: Path) -> None:
    before = (alone / "model.safetensors").read_bytes()
    config = EvaluateConfig(alone, shards, device="cpu", threads=1, panel=tmp_path / "panel.png")
    first = evaluate(config)
    assert first["protocol"] == "linear"
    assert first["iou"] > first["everything"]["iou"]
    assert evaluate(config) == first
    assert (alone / "model.safetensors").read_bytes() == before
    assert (tmp_path / "panel.png").is_file()
