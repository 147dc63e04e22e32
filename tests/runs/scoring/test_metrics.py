"""Scores against scikit-learn and torchmetrics, and the documented conventions for what is empty."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics import functional as torchmetrics

from medsass.runs.scoring import metrics
from tests.support.effort import examples


def _masks(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two (N, 4, 5) masks; some empty, some full."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    shares = rng.choice([0.0, 0.1, 0.5, 1.0], (2, n, 1, 1))
    pair = (rng.random((2, n, 4, 5)) < shares).astype(np.uint8)
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


@examples(150)
@given(st.integers(0, 2**32 - 1))
def test_scores_equal_scikit_learns_mean_over_images(seed: int) -> None:
    prediction, truth = _masks(seed)
    rows: dict[str, list[float]] = {"iou": [], "dice": [], "precision": [], "recall": [], "accuracy": []}
    for guess, fact in zip(prediction.flatten(1).numpy(), truth.flatten(1).numpy(), strict=True):
        empty = 0.0 if guess.any() or fact.any() else 1.0
        rows["iou"].append(reference.jaccard_score(fact, guess, zero_division=empty))
        rows["dice"].append(reference.f1_score(fact, guess, zero_division=empty))
        rows["precision"].append(reference.precision_score(fact, guess, zero_division=empty))
        rows["recall"].append(reference.recall_score(fact, guess, zero_division=empty))
        rows["accuracy"].append(reference.accuracy_score(fact, guess))
    scores = metrics.scores(metrics.count(prediction, truth))
    for name, values in rows.items():
        assert scores[name] == pytest.approx(np.mean(values), abs=1e-12), name


@examples(100)
@given(st.integers(0, 2**32 - 1))
def test_dataset_iou_is_the_ratio_of_sums(seed: int) -> None:
    prediction, truth = (mask.numpy() for mask in _masks(seed))
    both, either = (prediction & truth).sum(), (prediction | truth).sum()
    scores = metrics.scores(metrics.count(torch.from_numpy(prediction), torch.from_numpy(truth)))
    assert scores["iou_dataset"] == pytest.approx(both / either if either else 1.0, abs=1e-12)


def test_counts_equal_the_confusion_matrix_of_each_image() -> None:
    prediction, truth = _masks(7)
    c = metrics.count(prediction, truth)
    for i in range(len(truth)):
        matrix = reference.confusion_matrix(truth[i].flatten(), prediction[i].flatten(), labels=[0, 1])
        assert c[[3, 1, 2, 0], i].tolist() == matrix.ravel().tolist()


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ([0, 0], [0, 0], {"iou": 1, "iou_dataset": 1, "dice": 1, "precision": 1, "recall": 1, "accuracy": 1}),
        ([0, 0], [0, 1], {"iou": 0, "iou_dataset": 0, "dice": 0, "precision": 0, "recall": 0, "accuracy": 0.5}),
        ([0, 1], [0, 0], {"iou": 0, "iou_dataset": 0, "dice": 0, "precision": 0, "recall": 0, "accuracy": 0.5}),
        ([1, 1], [1, 1], {"iou": 1, "iou_dataset": 1, "dice": 1, "precision": 1, "recall": 1, "accuracy": 1}),
        ([1, 1], [0, 1], {"iou": 0.5, "iou_dataset": 0.5, "dice": 2 / 3, "precision": 0.5, "recall": 1, "accuracy": 0.5}),
    ],
)  # fmt: skip
def test_conventions(prediction: list[int], truth: list[int], expected: dict[str, float]) -> None:
    c = metrics.count(torch.tensor([[prediction]]), torch.tensor([[truth]]))
    assert metrics.scores(c) == pytest.approx(expected)


def test_images_weigh_the_same_in_the_mean_and_by_their_pixels_in_the_dataset_iou() -> None:
    prediction = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 1, 1]]])
    truth = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]]])
    scores = metrics.scores(metrics.count(prediction, truth))
    assert scores["iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["iou_dataset"] == pytest.approx(5 / 6)


def test_the_split_into_batches_does_not_change_the_scores() -> None:
    rng = np.random.default_rng(0)
    pair = torch.from_numpy((rng.random((2, 7, 6, 6)) < 0.5).astype(np.uint8))
    parts = [metrics.count(pair[0, a:b], pair[1, a:b]) for a, b in ((0, 3), (3, 4), (4, 7))]
    assert metrics.scores(torch.cat(parts, 1)) == metrics.scores(metrics.count(pair[0], pair[1]))


def test_scores_equal_torchmetrics() -> None:
    pair = torch.from_numpy((np.random.default_rng(2).random((2, 9, 8, 8)) < 0.5).astype(np.uint8))
    scores = metrics.scores(metrics.count(*pair))
    guess, fact = (mask.flatten(1) for mask in pair)
    for name, function in {
        "iou": torchmetrics.jaccard_index, "dice": torchmetrics.f1_score, "precision": torchmetrics.precision,
        "recall": torchmetrics.recall, "accuracy": torchmetrics.accuracy,
    }.items():  # fmt: skip
        values = [float(function(*images, task="binary")) for images in zip(guess, fact, strict=True)]
        assert scores[name] == pytest.approx(np.mean(values), abs=1e-6), name
    whole = float(torchmetrics.jaccard_index(*pair, task="binary"))
    assert scores["iou_dataset"] == pytest.approx(whole, abs=1e-6)


@examples(100)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_class_scores_equal_scikit_learns_and_torchmetrics(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, 12)])
    guess = np.where(rng.random(len(truth)) < 0.5, truth, rng.integers(0, classes, len(truth)))
    matrix = metrics.confusion(torch.from_numpy(guess), torch.from_numpy(truth), classes)
    assert matrix.tolist() == reference.confusion_matrix(truth, guess).tolist()
    scores = metrics.class_scores(matrix)
    assert scores["recalls"] == pytest.approx(reference.recall_score(truth, guess, average=None).tolist())
    assert scores["recall"] == pytest.approx(reference.recall_score(truth, guess, average="macro"))
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(truth, guess))
    pair = torch.from_numpy(guess), torch.from_numpy(truth)
    other = torchmetrics.recall(*pair, task="multiclass", num_classes=classes, average="macro")
    assert scores["recall"] == pytest.approx(float(other), abs=1e-6)


def test_unbalanced_classes_have_another_recall_than_accuracy_and_absent_ones_no_part_in_it() -> None:
    scores = metrics.class_scores(torch.tensor([[9, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert scores == {"recalls": [1.0, 0.0, None], "recall": 0.5, "accuracy": 0.9}


def test_the_spread_is_0_where_all_features_are_one_direction() -> None:
    features = torch.randn(1, 16).expand(32, -1) * torch.linspace(1, 5, 32)[:, None]
    assert float(metrics.spread(features)) == pytest.approx(0, abs=1e-5)


def test_the_spread_of_directions_without_preference_is_near_1() -> None:
    features = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    unit = features.double().numpy() / np.linalg.norm(features.double().numpy(), axis=1, keepdims=True)
    assert float(metrics.spread(features)) == pytest.approx(np.sqrt(64) * unit.std(0).mean(), abs=1e-5)
    assert float(metrics.spread(features)) == pytest.approx(1, abs=0.01)


def test_means_are_over_images_and_not_over_batches() -> None:
    means = metrics.Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({"loss": torch.tensor(5.0)}, 1)
    assert means.values("val_") == {"val_loss": 2.0}
