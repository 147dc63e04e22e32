"""Common to all baselines: training, resuming, evaluating, and refused options."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medsass import files
from medsass.methods import baseline, method
from medsass.models import checkpoint, network
from medsass.runs.training.train import train
from tests.conftest import tiny, train_one_epoch
from tests.methods import baselines
from tests.support import built, trainings

JOINT = {"byol", "simsiam", "dino"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in baselines.SMALL.items():
        monkeypatch.setattr(name, value)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 6 training images, so that the last batch of 4 is a smaller one."""
    return built.build(tmp_path_factory.mktemp("few") / "out", splits={"train": 6, "val": 5})


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_a_run_that_failed_after_an_epoch_resumes_to_the_same_end(
    name: str, model: str, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"method": name, "model": model, "batch_size": 4}
    train(tiny(few, tmp_path / "whole", **options))
    train_one_epoch(tiny(few, tmp_path / "run", **options), monkeypatch)
    torch.rand(7)  # the resumed run must not depend on the random state it is started in
    train(tiny(few, tmp_path / "run", resume=True, **options))
    trainings.assert_same(tmp_path / "run", tmp_path / "whole")
    assert all(line["train_feature_std"] > 0 for line in trainings.history(tmp_path / "run"))
    _check_kept(tmp_path / "run", name, model)


def _check_kept(run: Path, name: str, model: str) -> None:
    """Check that the run stored an encoder that fits the network, and nothing else; the last for joint embeddings."""
    kept = load_file(run / "model.safetensors")
    expected = {key for key in network.build(model).state_dict() if key.startswith("encoder.")}
    assert set(kept) == expected
    content = json.loads((run / "config.json").read_text())
    assert content["keeps"] == "encoder"
    assert content["regime"]["ranks"] == (name not in JOINT)
    if name in JOINT:
        assert torch.load(run / "best.pt", weights_only=True)["epoch"] == 2


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_an_evaluation_changes_nothing(name: str, model: str) -> None:
    chosen = baselines.made(name, model)
    before = {key: value.clone() for key, value in chosen.state_dict().items()}
    chosen.eval()
    with torch.no_grad():
        loss = chosen(baselines.batch(chosen), 0.5).loss
    assert torch.isfinite(loss)
    torch.testing.assert_close(dict(chosen.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_features_are_detached_and_one_for_each_image(name: str, model: str) -> None:
    chosen = baselines.made(name, model)
    features = chosen(baselines.batch(chosen), 0.5).features
    assert features is not None
    assert features.ndim == 2
    assert len(features) == 4
    assert not features.requires_grad


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_16_bit_images_give_a_finite_loss(name: str, model: str) -> None:
    chosen = baselines.made(name, model)
    assert torch.isfinite(chosen(baselines.batch(chosen, depth=16), 0.5).loss)


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_bf16_networks_give_a_float32_loss_like_the_float32_one(name: str, model: str) -> None:
    losses = []
    for enabled in (False, True):
        chosen = baselines.made(name, model)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(chosen(baselines.batch(chosen), 0.5).loss)
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=0.1)


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_a_batch_is_large_enough_where_the_method_says_so(name: str, model: str) -> None:
    chosen = baselines.made(name, model)
    loss = chosen(baselines.batch(chosen, chosen.least_batch), 0.5).loss
    assert torch.isfinite(loss)


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_training_starts_from_the_encoder_of_another_run(name: str, model: str, tmp_path: Path) -> None:
    stored = network.build(model).state_dict()
    files.write(tmp_path / "model.safetensors", checkpoint.to_bytes(stored))
    chosen = baselines.made(name, model, seed=5, init=tmp_path)
    for key, value in chosen.weights().items():
        assert torch.equal(value, stored[key]), key


@pytest.mark.parametrize("name", ["mae", "simmim"])
def test_masked_image_modelling_of_a_resnet_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--method {name} is for vision transformers, and unet-resnet18 has none"):
        baselines.made(name, "unet-resnet18")


@pytest.mark.parametrize(("name", "model"), baselines.KINDS)
def test_keeping_a_network_is_refused(name: str, model: str) -> None:
    with pytest.raises(ValueError, match=f"--method {name} trains an encoder alone; drop --scope network"):
        baselines.made(name, model, scope="network")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_teacher_follows_its_student_by_the_share_that_is_left(share: float) -> None:
    student, teacher = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = [
        share * old + (1 - share) * new for old, new in zip(teacher.parameters(), student.parameters(), strict=True)
    ]
    before = [item.clone() for item in student.parameters()]
    baseline.follow(teacher, student, share, 0.0)
    torch.testing.assert_close(list(teacher.parameters()), expected)
    torch.testing.assert_close(list(student.parameters()), before, rtol=0, atol=0)


def test_a_frozen_copy_shares_nothing_and_learns_nothing() -> None:
    original = torch.nn.Linear(3, 2)
    copy = baseline.frozen(original)
    with torch.no_grad():
        original.weight += 1
    assert not torch.equal(copy.weight, original.weight)  # type: ignore[arg-type]
    assert not any(item.requires_grad for item in copy.parameters())
    assert all(item.requires_grad for item in original.parameters())


def test_without_lightly_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly.models.utils", None)
    with pytest.raises(ImportError, match=r"need lightly: pip install 'medsass\[baselines\]'"):
        baseline.import_lightly("models.utils")


def test_lightly_is_imported_for_baselines_alone_and_never_with_lightning() -> None:
    code = f"""
import sys
sys.modules["pytorch_lightning"] = sys.modules["lightning"] = None  # an import of either would raise
from tests.methods.baselines import made
made("medsass", "unet-resnet18")
made("supervised", "unet-resnet18")
assert "lightly" not in sys.modules
for name, model in {baselines.KINDS}:
    made(name, model)
assert "lightly" in sys.modules
"""
    root = Path(method.__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], check=True, cwd=root)
