"""Training: what it leaves behind, that it repeats, resumes, stops, and never needs a label."""

import json
import shutil
import signal
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from medsass.config import LabelConfig, ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from medsass.methods.method import Regime
from medsass.models import unet
from medsass.runs import run_directory
from medsass.runs.label import label
from medsass.runs.training import train as module
from medsass.runs.training.train import train
from medsass.runs.training.trainer import Trainer
from tests.conftest import tiny
from tests.support import built, trainings
from tests.support.trainings import FILES

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def unlabelled(nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of the same images, made without a mask."""
    out = tmp_path_factory.mktemp("unlabelled") / "out"
    shard.write(ShardConfig(nuclei_folder, out, images="images/*.png", max_shard_bytes=100_000))
    return out


@pytest.fixture(scope="module")
def short(unlabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of three epochs without labels."""
    run = tmp_path_factory.mktemp("short") / "run"
    train(tiny(unlabelled, run, epochs=3))
    return run


def test_a_run_directory_holds_exactly_the_documented_files(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == FILES
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def test_pictures_can_be_opened(trained: Path) -> None:
    for name in ("progress.png", "samples.png"):
        with Image.open(trained / name) as image:
            image.load()
            assert image.format == "PNG"
            assert image.convert("L").getextrema()[0] < 128


def test_metrics_hold_a_line_an_epoch(trained: Path) -> None:
    history = trainings.history(trained)
    assert [line["epoch"] for line in history] == [1, 2]
    assert all(line.keys() >= {"train_loss", "val_loss", "val_iou_target", "lr"} for line in history)


def test_kept_weights_are_those_of_the_epoch_with_the_lowest_validation_loss(trained: Path) -> None:
    best = torch.load(trained / "best.pt", weights_only=True)
    history = trainings.history(trained)
    assert best["epoch"] == min(history, key=lambda line: line["val_loss"])["epoch"]
    torch.testing.assert_close(load_file(trained / "model.safetensors"), dict(best["model"]), rtol=0, atol=0)


def test_tensorboard_holds_the_metrics(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard")).Reload()
    values = [event.value for event in events.Scalars("val_loss")]
    assert values == pytest.approx([line["val_loss"] for line in trainings.history(trained)], rel=1e-6)


def test_the_same_seed_gives_the_same_weights(shards: Path, trained: Path, tmp_path: Path) -> None:
    train(tiny(shards, tmp_path / "again"))
    trainings.assert_same(trained, tmp_path / "again")


def test_another_seed_gives_other_weights(shards: Path, trained: Path, tmp_path: Path) -> None:
    train(tiny(shards, tmp_path / "other", seed=1, epochs=1))
    a, b = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "other"))
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_run_of_a_real_network_that_was_killed_resumes_to_the_same_end(unlabelled: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = {"size": 32, "batch_size": 16, "epochs": 3, "save_every": 60.0}
    others = [
        trainings.start(path, *trainings.command(unlabelled, path, **options), log=path.name) for path in (whole, run)
    ]
    trainings.until(lambda: (run / "metrics.jsonl").exists())
    others[1].kill()
    assert others[1].wait() == -signal.SIGKILL
    assert 1 <= len(trainings.history(run)) < 3
    again = trainings.start(run, *trainings.command(unlabelled, run, "--resume"))
    assert [others[0].wait(), again.wait()] == [0, 0], again.err
    trainings.assert_same(whole, run)
    assert {path.name.removesuffix(".part") for path in run.iterdir()} == FILES
    assert len(load_file(run / "model.safetensors")) == len(unet.build("unet-resnet18").state_dict())


def test_resuming_with_other_shards_says_so(unlabelled: Path, trained: Path) -> None:
    with pytest.raises(ValueError, match="shards_sha256"):
        train(tiny(unlabelled, trained, resume=True))


def _with_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Replace training by nothing and validation by these losses, one an epoch."""
    values = iter(losses)
    line = {"train_loss": 1.0, "lr": 0.1, "images_per_second": 1.0, "waited": 0.0}

    def finish(trainer: Trainer) -> dict[str, float]:
        trainer.epoch += 1
        return line

    monkeypatch.setattr(Trainer, "steps", lambda _: iter(()))
    monkeypatch.setattr(Trainer, "finish_epoch", finish)
    monkeypatch.setattr(Trainer, "validate", lambda *_: {"val_loss": next(values), "val_iou_target": 0.5})
    monkeypatch.setattr("medsass.runs.training.writer.draw_samples", lambda *_: None)


@pytest.mark.parametrize(
    ("patience", "losses", "epochs", "best"),
    [
        (2, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3, 1),
        (2, [0.5, 0.6, 0.4, 0.4, 0.45, 0.1], 5, 3),
        (0, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6, 1),
        (5, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], 6, 6),
    ],
)
def test_training_stops_after_patience_epochs_without_a_lower_validation_loss(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int, losses: list[float], epochs: int, best: int
) -> None:  # fmt: skip
    _with_losses(monkeypatch, losses)
    line = train(tiny(shards, tmp_path / "run", epochs=6, patience=patience))
    assert [item["val_loss"] for item in trainings.history(tmp_path / "run")] == losses[:epochs]
    assert line["epoch"] == best
    assert torch.load(tmp_path / "run" / "best.pt", weights_only=True)["epoch"] == best


@pytest.mark.parametrize(("ranks", "kept"), [(True, 2), (False, 4)])
def test_the_kept_epoch_is_the_first_with_the_lowest_validation_loss_where_that_ranks(ranks: bool, kept: int) -> None:
    history = [{"epoch": i + 1, "val_loss": v} for i, v in enumerate([0.4, 0.2, 0.3, 0.2])]
    assert module.best_epoch(history, Regime(ranks=ranks)) == kept


def test_a_label_free_run_never_reads_a_mask(shards: Path, trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    spoiled = 0
    for path in copy.glob("*.tar"):
        data = bytearray(path.read_bytes())
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".mask.png"):
                    data[member.offset_data : member.offset_data + member.size] = bytes(member.size)
                    spoiled += 1
        path.write_bytes(data)
    assert spoiled == 60
    train(tiny(copy, tmp_path / "run"))
    trainings.assert_same(trained, tmp_path / "run")


def test_a_label_free_run_learns_its_labels(short: Path) -> None:
    history = trainings.history(short)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_supervised_training_without_masks_says_so(unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image of split 'train' has a mask"):
        train(tiny(unlabelled, tmp_path / "run", method="supervised"))
    assert not (tmp_path / "run").exists()


def test_supervised_training_fills_a_run_directory(shards: Path, tmp_path: Path) -> None:
    train(tiny(shards, tmp_path / "run", method="supervised", epochs=1))
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_says_so(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no usable NVIDIA GPU was found"):
        train(tiny(shards, tmp_path / "run", device="cuda"))
    assert not (tmp_path / "run").exists()


def test_a_missing_split_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    shards = built.build(tmp_path / "shards", splits={"val": 2, "test": 2})
    with pytest.raises(ValueError, match=r"split 'train'.*val, test"):
        train(tiny(shards, tmp_path / "run"))


def test_the_slices_of_a_single_volume_train_a_network_without_a_split_to_validate_on(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(0, 10, (32, 32, 20))
    volume[8:20, 8:20] += 100
    (tmp_path / "source").mkdir()
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.eye(4)), tmp_path / "source/a.nii.gz")
    made = shard.write(ShardConfig(tmp_path / "source", tmp_path / "shards"))
    assert {name: split.samples for name, split in made.splits.items()} == {"train": 20}
    with pytest.warns(
        UserWarning, match="has no split 'val': the loss of its training images, not augmented, is followed"
    ):
        train(tiny(tmp_path / "shards", tmp_path / "run"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_refine_recipe_takes_the_steps_of_the_recipe_and_the_run_names_them(
    nuclei_folder: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\npolarity = "bright"\nrefine = "blur:2,open:1"\n[[images]]\npath = "images/*.png"\n'
        'masks = "masks/{stem}.png"\n[splits]\ntrain = 0.7\nval = 0.3\n'
    )
    shards, run = tmp_path / "shards", tmp_path / "run"
    shard.write(ShardConfig(nuclei_folder, shards, recipe=str(recipe)))
    train(tiny(shards, run, epochs=1, refine="recipe"))
    assert run_directory.stored(run)[0].refine == "blur:2,open:1"
    train(tiny(shards, run, epochs=1, refine="recipe", resume=True))  # the same options
    label(LabelConfig(shards, tmp_path / "recipe", refine="recipe", device="cpu"))
    label(LabelConfig(shards, tmp_path / "named", refine="blur:2,open:1", device="cpu"))
    label(LabelConfig(shards, tmp_path / "bare", device="cpu"))
    found, named, bare = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*.png"))}
        for name in ("recipe", "named", "bare")
    )
    assert found == named != bare


def test_polarity_recipe_takes_the_polarity_of_the_recipe(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_losses(monkeypatch, [0.1])
    train(tiny(shards, tmp_path / "run", epochs=1, polarity="recipe"))
    expected = json.loads((shards / "manifest.json").read_text())["recipe"]["polarity"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["polarity"] == expected


def test_the_manifest_is_read_once(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = manifest.load
    monkeypatch.setattr(manifest, "load", lambda folder: (read.append(folder), original(folder))[1])
    train(tiny(shards, tmp_path / "run", epochs=1))
    assert read == [shards]
