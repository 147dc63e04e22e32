"""The rules of all configs, and their forms as JSON and as command-line options."""

import json
import pickle
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from medsass import config, files
from medsass.config import (
    DemoConfig,
    EvaluateConfig,
    InfoConfig,
    LabelConfig,
    PredictConfig,
    ShardConfig,
    TrainConfig,
    refine,
)

A, B = Path("a"), Path("b")

METHODS = "byol, dino, mae, medsass, medsass-plus, simmim, simsiam, supervised"
BAD_TRAIN = [
    ("method", "moco", f"--method must be one of {METHODS}; got 'moco'"),
    ("model", "vgg", "--model must be one of unet-resnet50, unet-resnet18, unet-vit-small, unet-vit-tiny; got 'vgg'"),
    ("labels", "kmeans", "--labels must be one of otsu, ght, adaptive-mean, adaptive-gaussian; got 'kmeans'"),
    ("polarity", "grey", "--polarity must be one of recipe, bright, dark, auto; got 'grey'"),
    ("loss", "dice", "--loss must be one of focal-tversky, tversky, focal, cross-entropy; got 'dice'"),
    ("device", "tpu", "--device must be one of auto, cpu, cuda; got 'tpu'"),
    ("size", 30, "--size must be a multiple of 8, or of 16 for a ViT; got 30"),
    ("size", 0, "--size must be at least 8; got 0"),
    ("epochs", 0, "--epochs must be at least 1; got 0"),
    ("batch_size", 0, "--batch-size must be at least 1; got 0"),
    ("patience", -1, "--patience must be at least 0; got -1"),
    ("lr", -0.1, "--lr must be at least 0; got -0.1"),
    ("weight_decay", -0.1, "--weight-decay must be at least 0; got -0.1"),
    ("warmup", -0.1, "--warmup must be at least 0; got -0.1"),
    ("warmup", 1.5, "--warmup must be at most 1; got 1.5"),
    ("scope", "decoder", "--scope must be one of auto, network, encoder; got 'decoder'"),
    ("label_fraction", 0, "--label-fraction must be above 0 and at most 1; got 0"),
    ("label_fraction", 1.1, "--label-fraction must be above 0 and at most 1; got 1.1"),
    ("crop", 0, "--crop must be above 0 and at most 1; got 0"),
    ("crop", -0.5, "--crop must be at least 0; got -0.5"),
    ("crop", 1.1, "--crop must be above 0 and at most 1; got 1.1"),
    ("jitter", -0.1, "--jitter must be at least 0; got -0.1"),
    ("hue", -1.0, "--hue must be at least 0; got -1.0"),
    ("block_size", 10, "--block-size must be odd; got 10"),
    ("block_size", 1, "--block-size must be at least 3; got 1"),
    ("seed", -1, "--seed must be at least 0; got -1"),
    ("threads", -1, "--threads must be at least 0; got -1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_TRAIN)
def test_a_value_that_breaks_a_rule_of_train_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        TrainConfig(A, B, **{name: value})  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["lr", "weight_decay", "warmup", "crop", "jitter", "hue", "offset"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="--" + name.replace("_", "-")):
        TrainConfig(A, B, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 8), ("crop", 1.0), ("crop", 0.001), ("warmup", 0.0), ("warmup", 1.0), ("block_size", 3), ("patience", 0)],
)
def test_a_value_at_the_edge_of_its_rule_is_taken(name: str, value: float) -> None:
    assert getattr(TrainConfig(A, B, **{name: value}), name) == value  # type: ignore[arg-type]


def test_resume_and_overwrite_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="--resume and --overwrite exclude each other"):
        TrainConfig(A, B, resume=True, overwrite=True)


@pytest.mark.parametrize(("name", "value"), [("size", -1), ("max_shard_bytes", 1023), ("workers", -1)])
def test_a_value_that_breaks_a_rule_of_shard_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be at least .*; got {value}"):
        ShardConfig(A, B, **{name: value})  # type: ignore[arg-type]


def test_a_value_that_breaks_a_rule_of_another_command_is_refused() -> None:
    with pytest.raises(ValueError, match="--batch-size must be at least 1; got 0"):
        EvaluateConfig(A, B, batch_size=0)
    with pytest.raises(ValueError, match="--threads must be at least 0; got -2"):
        EvaluateConfig(A, B, threads=-2)
    with pytest.raises(ValueError, match="--device must be one of"):
        PredictConfig(A, (B,), device="gpu")
    with pytest.raises(ValueError, match="--seed must be at least 0; got -1"):
        DemoConfig(A, seed=-1)


def test_the_defaults_of_train_are_the_papers() -> None:
    c = TrainConfig(A, B)
    assert (c.method, c.labels, c.loss, c.model) == ("medsass", "otsu", "focal-tversky", "unet-resnet50")
    assert (c.size, c.epochs, c.batch_size) == (224, 50, 16)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TrainConfig(A, B).epochs = 3  # type: ignore[misc]


def test_plain_values_can_be_written_as_json() -> None:
    plain = config.plain(PredictConfig(A, (A, B), device="cpu"))
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["run"], plain["images"], plain["out"]) == ("a", ["a", "b"], "predictions")


def test_a_field_without_a_default_is_an_argument() -> None:
    assert [item.name for item in fields(TrainConfig) if item.default is MISSING] == ["shards", "run"]
    assert [item.name for item in fields(PredictConfig) if item.default is MISSING] == ["run", "images"]


@pytest.mark.parametrize("kind", [ShardConfig, InfoConfig, TrainConfig, EvaluateConfig, PredictConfig, DemoConfig])
def test_every_option_has_a_help_text(kind: type) -> None:
    options = [item for item in fields(kind) if item.default is not MISSING]
    assert options
    assert [item.name for item in options if not item.metadata["help"]] == []


@pytest.mark.parametrize("kind", [ShardConfig, TrainConfig, EvaluateConfig, PredictConfig, LabelConfig])
def test_every_default_keeps_its_own_rule(kind: type) -> None:
    arguments = {"images": (A,)} if kind is PredictConfig else {}
    paths = {item.name: A for item in fields(kind) if item.default is MISSING} | arguments
    options = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    assert kind(**paths) == kind(**paths, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": "3"}, "--epochs must be a whole number; got '3'"),
        ({"flip": 1}, "--flip must be true or false; got 1"),
        ({"lr": "0.1"}, "--lr must be a number; got '0.1'"),
        ({"seed": True}, "--seed must be a whole number; got True"),
        ({"hue": float("nan")}, "--hue must be a finite number; got nan"),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_converted(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        TrainConfig(A, B, **values)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_whole_number_for_a_float_stays_as_it_is() -> None:
    made = TrainConfig(A, B, lr=1, offset=2)
    assert [type(made.lr), type(made.offset)] == [int, int]


def test_a_configuration_can_be_replaced_and_pickled() -> None:
    made = replace(TrainConfig(A, B), seed=3)
    assert made.seed == 3
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(ValueError, match="--epochs must be at least 1; got 0"):
        replace(made, epochs=0)


def test_paths_may_be_addresses() -> None:
    pytest.importorskip("upath")
    address = files.location("memory://shards")
    assert TrainConfig(address, B).shards is address


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"tile": 0, "stride": 4}, "--stride goes with --tile"),
        ({"tile": 0, "min_foreground": 0.5}, "--min-foreground goes with --tile"),
        ({"tile": 4, "stride": 5}, r"--stride must be at most --tile \(4\)"),
        ({"tile": 4, "min_foreground": 1.5}, "--min-foreground is a share and at most 1"),
        ({"tile": -1}, "--tile must be at least 0; got -1"),
        ({"resume": True, "overwrite": True}, "--resume and --overwrite exclude each other"),
        ({"depth": 16, "encode": "jpeg"}, "--encode jpeg holds 8 bits"),
        ({"depth": 12}, "--depth must be one of 8, 16; got 12"),
        ({"encode": "gif"}, "--encode must be one of keep, png, jpeg, jpeg2000; got 'gif'"),
    ],
)
def test_shard_options_that_break_a_rule_are_refused(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ShardConfig(Path("in"), Path("out"), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("overlap", [1.0, 2.0, -0.1])
def test_overlap_is_a_share_below_one(overlap: float) -> None:
    with pytest.raises(ValueError, match="--overlap must be"):
        PredictConfig(Path("run"), (Path("a.png"),), overlap=overlap)


@pytest.mark.parametrize("kind", [TrainConfig, LabelConfig])
def test_the_help_of_refine_names_every_step(kind: type) -> None:
    (item,) = (item for item in fields(kind) if item.name == "refine")
    steps = item.metadata["help"].partition("; of ")[2].partition(";")[0].split(", ")
    assert [step.partition(":")[0] for step in steps] == list(refine.STEPS)
