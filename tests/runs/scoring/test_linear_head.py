"""A head upon frozen features: against NumPy and scikit-learn, and what early stopping keeps."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from medsass.methods.method import Regime
from medsass.runs.scoring import linear_head
from medsass.runs.scoring.linear_head import Pair, Training


def _pairs(seed: int, sizes: tuple[int, ...], shape: tuple[int, ...] = (3,)) -> list[Pair]:
    """Batches of random features of a far mean and unequal spread, with random targets in {0, 1}."""
    rng = np.random.default_rng(seed)
    scale = np.array([1e-3, 1.0, 1e3]).reshape(3, *[1] * (len(shape) - 1))
    return [
        (
            torch.from_numpy((scale * (5 + rng.standard_normal((n, *shape)))).astype(np.float32)),
            torch.from_numpy(rng.integers(0, 2, n)),
        )
        for n in sizes
    ]


def _silent(_: dict[str, Any]) -> None:
    return None


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
def test_standardised_channels_have_mean_0_and_deviation_1_over_all_samples_and_positions(
    shape: tuple[int, ...],
) -> None:
    pairs = _pairs(0, (8, 8, 3), shape)
    layer = linear_head.Standardise(pairs)
    whole = torch.cat([features for features, _ in pairs]).double().numpy()
    axes = tuple(i for i in range(whole.ndim) if i != 1)
    result = torch.cat([layer(features) for features, _ in pairs])
    expected = (whole - whole.mean(axes, keepdims=True)) / whole.std(axes, keepdims=True)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-4)
    assert not list(layer.parameters())


def test_a_constant_channel_becomes_0() -> None:
    features = torch.tensor([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]])
    result = linear_head.Standardise([(features, torch.zeros(3))])(features)
    assert result[:, 0].abs().max() < 1e-2
    assert result[:, 1].tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5])


def test_fit_finds_scikit_learns_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 4)).astype(np.float32)
    y = (x @ np.array([2.0, -1.0, 0.5, 0.0]) + rng.standard_normal(200) > 0.3).astype(np.int64)
    pairs = [(torch.from_numpy(x[i : i + 50]), torch.from_numpy(y[i : i + 50])) for i in range(0, 200, 50)]
    layers = nn.Linear(4, 2)
    regime = Regime(lr=0.05, weight_decay=0.0, patience=0)
    linear_head.fit(layers, Training(pairs, pairs, F.cross_entropy, regime, 150), _silent)
    reference = LogisticRegression(C=1e8).fit(x, y)
    with torch.no_grad():
        guess = layers(torch.from_numpy(x)).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(guess, reference.predict_proba(x)[:, 1], atol=0.01)


def test_the_weights_of_the_lowest_validation_loss_are_kept() -> None:
    """Validation wants the opposite of training: it rises with every epoch, and the first is the best."""
    features, target = torch.randn(32, 2, generator=torch.manual_seed(0)), torch.arange(32) % 2
    features[:, 0] += 4.0 * target
    layers, states = nn.Linear(2, 2), []
    training = Training(
        [(features, target)], [(features, 1 - target)], F.cross_entropy, Regime(lr=0.1, warmup=0.0, patience=3), 50
    )
    history = linear_head.fit(layers, training, lambda _: states.append(copy.deepcopy(layers.state_dict())))
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    losses = [line["val_loss"] for line in history]
    assert losses == sorted(losses)
    assert linear_head.best_epoch(history) == 1
    torch.testing.assert_close(dict(layers.state_dict()), dict(states[0]), rtol=0, atol=0)
    assert not torch.equal(states[0]["weight"], states[3]["weight"])


def test_without_patience_all_epochs_are_run() -> None:
    (pair,) = _pairs(3, (8,))
    training = Training([pair], [(pair[0], 1 - pair[1])], F.cross_entropy, Regime(lr=1e-3, patience=0), 9)
    assert len(linear_head.fit(nn.Linear(3, 2), training, _silent)) == 9


def test_losses_are_means_over_images_and_not_over_batches() -> None:
    pairs, layers = _pairs(4, (7, 2)), nn.Linear(3, 2)
    with torch.no_grad():
        expected = F.cross_entropy(layers(torch.cat([f for f, _ in pairs])), torch.cat([t for _, t in pairs]))
    (line,) = linear_head.fit(layers, Training(pairs, pairs, F.cross_entropy, Regime(lr=0.0, patience=0), 1), _silent)
    assert line["train_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert line["val_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_reason() -> None:
    pairs = [(torch.full((4, 2), float("nan")), torch.zeros(4, dtype=torch.int64))]
    with pytest.raises(FloatingPointError, match=r"loss is nan: the learning rate 0\.5 is too high, or the encoder's"):
        linear_head.fit(nn.Linear(2, 2), Training(pairs, pairs, F.cross_entropy, Regime(lr=0.5), 3), _silent)


def test_features_are_kept_in_memory_only_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = _pairs(5, (4, 4))
    size = sum(tensor.nbytes for pair in pairs for tensor in pair)
    monkeypatch.setattr(linear_head, "_MOST_BYTES", size)
    held = linear_head.cached(pairs)
    assert held == pairs
    assert held is not pairs
    monkeypatch.setattr(linear_head, "_MOST_BYTES", size - 1)
    assert linear_head.cached(pairs) is pairs
