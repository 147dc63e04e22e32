"""The contract of a method: its regime with the user's numbers, its lookup by name, and options that are refused."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medsass.config import METHODS, TrainConfig
from medsass.config import train as config
from medsass.methods import baseline, method
from medsass.methods.method import Method, Regime
from medsass.models import network
from tests.methods import baselines

PAPER = Regime("sgd", lr=0.4, lr_batch=256, weight_decay=0.04, final_weight_decay=0.4, warmup=0.1, patience=0, ranks=False)  # fmt: skip


def _config(**options: object) -> TrainConfig:
    return TrainConfig(Path("shards"), Path("run"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("regime", "batch", "lr"),
    [
        *((PAPER, batch, lr) for batch, lr in ((256, 0.4), (64, 0.1), (16, 0.025), (1024, 1.6))),
        *(
            (Regime(lr=2.4e-3, lr_batch=4096), batch, lr)
            for batch, lr in ((4096, 2.4e-3), (1024, 1.2e-3), (16, 1.5e-4))
        ),
    ],
)
def test_the_learning_rate_follows_the_batch_or_its_square_root_for_adamw(
    regime: Regime, batch: int, lr: float
) -> None:
    assert regime.of(_config(batch_size=batch)).lr == pytest.approx(lr)


def test_the_regime_is_the_methods_own_unless_the_user_gives_numbers() -> None:
    assert {Regime(lr=0.4).of(_config(batch_size=batch)).lr for batch in (1, 16, 999)} == {0.4}
    assert PAPER.of(_config(batch_size=256)) == replace(PAPER, lr_batch=0)
    regime = PAPER.of(_config(lr=0.3, batch_size=16))
    assert regime.lr == regime.of(_config(batch_size=16)).lr == 0.3
    regime = PAPER.of(_config(batch_size=256, weight_decay=0.0, warmup=0.0, lr=0.0))
    assert (regime.weight_decay, regime.final_weight_decay, regime.warmup, regime.lr) == (0.0, None, 0.0, 0.0)


@pytest.mark.parametrize(("patience", "expected"), [(None, 0), (0, 0), (3, 3)])
def test_a_patience_stops_the_run_and_does_not_make_the_validation_loss_rank(
    patience: int | None, expected: int
) -> None:
    regime = PAPER.of(_config(patience=patience))
    assert (regime.patience, regime.ranks) == (expected, False)


def test_every_name_of_config_is_a_module_that_builds_and_no_such_module_is_missing() -> None:
    found = []
    for path in Path(method.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"medsass.methods.{path.stem}")
        build = getattr(module, "build", None)
        if (
            build
            and build.__module__ == module.__name__
            and next(iter(inspect.signature(build).parameters)) == "config"
        ):
            assert list(inspect.signature(build).parameters) == ["config", "polarity"]
            found.append(path.stem.replace("_", "-"))
    assert sorted(METHODS) == sorted(found)


def test_methods_are_made_by_their_names() -> None:
    assert set(METHODS) == {"medsass", "medsass-plus", "supervised", *(name for name, _ in baselines.KINDS)}
    for name, model in [("medsass", "unet-resnet18"), ("medsass-plus", "unet-resnet18"), *baselines.KINDS]:
        chosen = baselines.made(name, model)
        assert type(chosen).__module__ == f"medsass.methods.{name.replace('-', '_')}"
        assert {view.size for view in chosen.views} >= {32}
        assert {key.split(".")[0] for key in chosen.weights()} >= {"encoder"}


@pytest.mark.parametrize("keeps", ["network", "encoder"])
def test_weights_are_those_of_what_is_kept(keeps: str) -> None:
    unet = network.build("unet-resnet18")
    expected = {
        name: value for name, value in unet.state_dict().items() if keeps == "network" or name.startswith("encoder.")
    }
    found = Method(unet, (method.View(32),), keeps).weights()
    torch.testing.assert_close(dict(found), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("option", "value"),
    [("crop", 0.5), ("flip", False), ("jitter", 0.0), ("hue", 0.0), ("labels", "ght"), ("refine", "border"),
     ("loss", "focal"), ("label_fraction", 0.5)],
)  # fmt: skip
def test_options_of_segmentation_are_refused_where_an_encoder_is_trained(option: str, value: object) -> None:
    name = option.replace("_", "-")
    with pytest.raises(ValueError, match=f"^--{name} is for methods that segment; --method byol .*drop the option$"):
        _config(method="byol", model="unet-resnet18", **{option: value})


def test_an_option_that_only_one_method_reads_exists_and_its_owner_takes_it() -> None:
    assert set(config._OWN) <= set(TrainConfig.__dataclass_fields__)
    assert {*config._OWN.values(), *config.ENCODERS} < set(METHODS)
    _config(method="medsass-plus", parts="teacher")


def test_the_encoder_is_that_of_the_network() -> None:
    torch.manual_seed(0)
    expected = network.build("unet-resnet18").encoder.state_dict()  # type: ignore[operator, union-attr]
    torch.manual_seed(0)
    found = baseline.Encoder(_config(method="byol", model="unet-resnet18"))
    torch.testing.assert_close(dict(found.encoder.state_dict()), dict(expected), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mae", "simmim"])
def test_masked_image_modelling_asks_for_a_vision_transformer(name: str) -> None:
    _config(method=name, model="unet-vit-tiny", size=32)
    with pytest.raises(ValueError, match="take --model unet-vit-small or unet-vit-tiny"):
        _config(method=name, model="unet-resnet18")


@pytest.mark.parametrize("model", ["unet-vit-small", "unet-vit-tiny"])
def test_the_size_fits_the_network(model: str) -> None:
    with pytest.raises(ValueError, match=f"--size must be a multiple of 16 for {model}; got 72"):
        _config(model=model, size=72)
    _config(model="unet-resnet18", size=72)


def test_lars_without_weight_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="--weight-decay 0 would switch LARS off"):
        Regime("lars").of(_config(weight_decay=0.0))
