"""MedSASS with its three components: each alone, none of them, guards, and what is stored."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medsass.config import TrainConfig
from medsass.config.train import COMPONENTS
from medsass.data.loading.loader import Batch
from medsass.methods import medsass_plus, method
from medsass.methods.medsass_plus import MedSASSPlus
from medsass.models import network

RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8))


def _made(name: str = "medsass-plus", **options: object) -> method.Method:
    torch.manual_seed(0)
    config = TrainConfig(Path("shards"), Path("run"), method=name, model="unet-resnet18", **options)  # type: ignore[arg-type]
    return method.make(config, "bright")


def test_without_its_components_it_is_medsass() -> None:
    plus, plain = _made(parts="none"), _made("medsass")
    assert plus.train()(Batch(IMAGES), 0.5).loss.item() == plain.train()(Batch(IMAGES), 0.5).loss.item()
    assert set(plus.weights()) == set(plain.weights())


def test_all_components_are_on_by_default() -> None:
    made = _made()
    assert isinstance(made, MedSASSPlus)
    assert made.components == COMPONENTS


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_is_on_alone(component: str) -> None:
    made = _made(parts=component)
    assert isinstance(made, MedSASSPlus)
    assert (made.teacher is not None) == (component == "teacher")
    outcome = made.train()(Batch(IMAGES), 0.0)
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    plain = _made("medsass").train()(Batch(IMAGES), 0.0)
    assert outcome.target is not None
    assert plain.target is not None
    assert torch.equal(outcome.target, plain.target)
    # a teacher that has no share yet changes nothing; the others do
    assert (outcome.loss.item() == pytest.approx(plain.loss.item(), abs=1e-6)) == (component == "teacher")


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(ValueError, match="--parts: 'luck' is none of weights, consistency, teacher"):
        _made(parts="teacher,luck")


@pytest.mark.parametrize("name", ["medsass", "supervised", "byol"])
def test_other_methods_have_no_components(name: str) -> None:
    with pytest.raises(ValueError, match=f"--parts is for --method medsass-plus, not {name}; drop it"):
        _made(name, parts="teacher")


def test_the_target_follows_the_teacher_once_it_has_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _made(parts="teacher")
    assert isinstance(made, MedSASSPlus)
    assert made.teacher is not None
    seen: list[torch.Tensor] = []
    original = made.loss

    def spy(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(target.float())
        return original(logits, target, weight)

    made.loss = spy
    mask = made.prepare(Batch(IMAGES))[0].float()
    sure = mask * 4 - 3, torch.ones(3)
    heard: list[torch.Tensor] = []
    monkeypatch.setattr(made.teacher, "forward", lambda images: heard.append(images) or sure)  # type: ignore[func-returns-value]
    for progress in (0.0, 1.0):
        made.after_step(progress)
        made.train()(Batch(IMAGES), progress)
    assert len(heard) == 1  # not while it has no share
    torch.testing.assert_close(seen[0], mask)
    torch.testing.assert_close(seen[1], 0.2 * mask + 0.8 * torch.sigmoid(4 * mask - 2))  # aligned: as many are above 0


def test_the_teacher_is_stored_and_validated() -> None:
    made = _made()
    assert isinstance(made, MedSASSPlus)
    assert made.teacher is not None
    with torch.no_grad():
        for item in made.network.parameters():
            item.add_(0.01)
    kept = made.weights()
    assert all(torch.equal(value, kept[name]) for name, value in made.teacher.network.state_dict().items())
    with torch.no_grad():
        outcome = made.eval()(Batch(IMAGES), 1.0)
        expected = made.teacher.network(network.normalise(IMAGES))
    torch.testing.assert_close(outcome.logits, expected, atol=1e-3, rtol=1e-3)
    encoder = _made(scope="encoder").weights()
    assert encoder
    assert all(name.startswith("encoder.") for name in encoder)


@pytest.mark.parametrize(("level", "spread"), [(0.0, 1.0), (-2.0, 0.05)])
def test_images_change_in_proportion_to_what_they_show(level: float, spread: float) -> None:
    torch.manual_seed(1)
    images = level + spread * torch.randn(400, 3, 16, 16)
    found = medsass_plus.changed(images)
    assert found.mean().item() == pytest.approx(level, abs=0.03 * spread)
    as_they_are = (found - images).abs().amax((1, 2, 3)) <= 1e-5 * (abs(level) + spread)
    assert as_they_are.float().mean().item() == pytest.approx(0.5, abs=0.08)
    shift = (found.mean((2, 3)) - images.mean((2, 3)))[~as_they_are]
    assert (shift[:, 0] != shift[:, 1]).all()
    assert 0.2 * spread <= shift.abs().max().item() <= 0.26 * spread
    gain = (found.std((2, 3)) / images.std((2, 3)))[~as_they_are]
    assert 0.75 <= gain.min().item() <= 0.8
    assert 1.2 <= gain.max().item() <= 1.27


def test_the_share_goes_through_a_checkpoint() -> None:
    made, other = _made(), _made()
    made.after_step(0.9)
    other.load_state_dict(made.state_dict())
    assert float(other.share) == pytest.approx(0.8)  # type: ignore[arg-type]
