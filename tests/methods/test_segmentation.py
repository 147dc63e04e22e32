"""Training towards a mask: gradients, stored weights, and the weights it starts from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medsass import files
from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods import losses, method, optim
from medsass.methods.segmentation import Segmentation
from medsass.models import checkpoint, network
from medsass.runs.training.train import train
from tests.conftest import tiny

METHODS = ["medsass", "supervised"]


def _made(name: str, seed: int = 0, **options: object) -> Segmentation:
    torch.manual_seed(seed)
    config = TrainConfig(Path("shards"), Path("run"), method=name, **{"model": "unet-resnet18", **options})  # type: ignore[arg-type]
    chosen = method.make(config, "bright")
    assert isinstance(chosen, Segmentation)
    return chosen


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randint(0, 2, (4, 32, 32), dtype=torch.uint8, generator=generator))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scope", ["network", "encoder"])
def test_gradients_reach_the_whole_network_and_a_step_changes_all_of_it(name: str, scope: str) -> None:
    chosen = _made(name, scope=scope)
    before = {key: value.clone() for key, value in chosen.named_parameters()}
    optimizer = optim.build(chosen.parameters(), chosen.regime, "cpu")
    chosen(_batch(), 0.0).loss.backward()
    optimizer.step()
    assert [key for key, value in chosen.named_parameters() if value.grad is None] == []
    still = [key for key, value in chosen.named_parameters() if torch.equal(value, before[key])]
    assert [key for key in still if not key.endswith("attention2.attention.cSE.1.bias")] == []  # two units, both dead
    assert {key.split(".")[0] for key in before} == {"network"}


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_that_of_the_logits_of_the_normalised_images(name: str) -> None:
    chosen, batch = _made(name), _batch()
    outcome = chosen(batch, 0.5)
    x = (batch.images.permute(0, 3, 1, 2) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    torch.testing.assert_close(outcome.logits, chosen.network(x), rtol=1e-4, atol=1e-4)
    assert torch.equal(outcome.target, chosen.prepare(batch)[0])
    torch.testing.assert_close(outcome.loss, losses.focal_tversky(outcome.logits, outcome.target))


def test_the_scope_decides_what_is_stored() -> None:
    whole, part = (_made("medsass", scope=scope).weights() for scope in ("network", "encoder"))
    assert {name.split(".")[0] for name in whole} == {"encoder", "decoder", "segmentation_head"}
    assert {name for name in whole if name.startswith("encoder.")} == set(part)


def test_the_network_is_kept_by_default() -> None:
    assert _made("medsass").keeps == "network"


@pytest.mark.usefixtures("light")
def test_encoder_only_training_is_the_end_to_end_training_without_its_decoder(
    shards: Path, trained: Path, tmp_path: Path
) -> None:
    train(tiny(shards, tmp_path / "run", scope="encoder"))
    whole, part = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "run"))
    assert part
    torch.testing.assert_close(
        part, {name: value for name, value in whole.items() if name.startswith("encoder.")}, rtol=0, atol=0
    )


@pytest.mark.usefixtures("light")
def test_a_run_starts_from_the_weights_of_another(trained: Path) -> None:
    chosen = _made("supervised", seed=5, init=trained)
    stored = load_file(trained / "model.safetensors")
    torch.testing.assert_close(dict(chosen.network.state_dict()), dict(stored), rtol=0, atol=0)


@pytest.mark.usefixtures("light")
def test_of_a_run_that_kept_its_encoder_the_decoder_is_fresh(trained: Path, tmp_path: Path) -> None:
    stored = load_file(trained / "model.safetensors")
    part = {name: value for name, value in stored.items() if name.startswith("encoder.")}
    files.write(tmp_path / "model.safetensors", checkpoint.to_bytes(part))
    started = _made("supervised", seed=5, init=tmp_path).network.state_dict()
    fresh = _made("supervised", seed=5).network.state_dict()
    for name, value in started.items():
        assert torch.equal(value, part.get(name, fresh[name])), name


@pytest.mark.usefixtures("light")
def test_another_model_than_that_of_init_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="unet-resnet50"):
        _made("supervised", model="unet-resnet50", init=trained)


@pytest.mark.usefixtures("light")
def test_fine_tuning_continues_where_the_other_run_ended(shards: Path, trained: Path, tmp_path: Path) -> None:
    options = tiny(shards, tmp_path / "tuned", method="supervised", epochs=1, label_fraction=0.5, init=trained, lr=0.0)
    train(replace(options, weight_decay=0.0))
    tuned, stored = (load_file(run / "model.safetensors") for run in (tmp_path / "tuned", trained))
    facts = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert facts["init"] == {"method": "medsass", "takes": "network", "labels_read": False}
    assert facts["labels_read"]
    learned = {name for name, _ in network.build("unet-resnet18").named_parameters()}
    for name in learned:
        assert torch.equal(tuned[name], stored[name]), name
