"""Mistakes that are told before torch is imported, in one fresh interpreter for all commands."""

import json
from pathlib import Path

import pytest

from medsass.config import TrainConfig
from medsass.runs import preflight, run_directory
from tests.conftest import facts, tiny
from tests.support import built, commands


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `shards` (no test split, masks in training alone), runs of both kinds, and a grid without data."""
    manifest = built.build(tmp_path / "shards", splits={"train": 6, "val": 2}) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["splits"]["val"]["masks"] = 0
    manifest.write_text(json.dumps(content))
    for name, keeps in (("run", "network"), ("encoder", "encoder")):
        run_directory.create(tiny(tmp_path / "shards", tmp_path / name), facts(keeps=keeps))
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    run_directory.create(tiny(tmp_path / "shards", tmp_path / "begun"), facts())
    (tmp_path / "images").mkdir()
    (tmp_path / "a.toml").write_text("model = 'unet'\n")
    (tmp_path / "grid.toml").write_text(
        "[datasets.x]\nsource = 'none'\n[[runs]]\ndataset = 'x'\nmethod = 'medsass'\nmodel = 'unet-resnet18'\n"
    )
    (tmp_path / "bad.toml").write_text(
        "[datasets.x]\nsource = 'x'\n[[runs]]\ndataset = 'x'\nmethod = 'byol'\nloss = 'focal'"
    )
    return tmp_path


MISTAKES = {
    "train none run2": "none/manifest.json is missing",
    "train shards run2 --refine typo": "refine: a step must be one of",
    "train shards run2 --ght 1,2": "ght must be four numbers",
    "train shards run2 --config a.toml": "--model must be one of",
    "train shards run2 --method mae --model unet-resnet18": "--method mae is for vision transformers",
    "train shards run2 --method byol --loss focal": "--loss is for methods that segment",
    "train shards run2 --parts teacher": "--parts is for --method medsass-plus",
    "train shards run2 --method supervised": "no image of split 'val' has a mask; take --method medsass",
    "train shards run2 --init begun": "no epoch of this run was finished",
    "train shards run": "run already holds a run; go on with --resume",
    "train shards run --resume --seed 9": "run cannot be resumed with another configuration: seed (0 in the run, 9 now)",
    "train shards images --resume": "images is not a run directory",
    "evaluate none shards": "none is not a run directory",
    "evaluate begun shards": "begun/model.safetensors is missing: no epoch of this run was finished",
    "evaluate run none": "none/manifest.json is missing",
    "evaluate run shards": "these shards have no split 'test', only train, val",
    "evaluate run shards --split val": "no image of split 'val' has a mask; take --split train",
    "evaluate encoder shards --protocol network": "keeps an encoder alone",
    "evaluate encoder shards --split train": "no image of split 'val' has a mask, and --protocol linear learns from them",
    "evaluate run shards --json no/where.json": "there is no folder no for --json",
    "predict none image.png": "none is not a run directory",
    "predict run image.png": "image.png: no such image or folder",
    "predict run images": "images: no image in this folder",
    "label none out": "none: no such folder",
    "label images out": "images: no image in this folder",
    "label shards out --refine blur": "refine: blur takes a length",
    "tune none": "none/manifest.json is missing",
    "tune shards --out a.toml": "a.toml was not written by medsass tune",
    "probe none shards": "none is not a run directory",
    "probe run shards": "the split 'train' holds no class labels",
    "export none": "none is not a run directory",
    "export run --out run": "--out run is the run directory",
    "experiment none.toml out": "none.toml: No such file",
    "experiment bad.toml out": "bad.toml: [[runs]] 1: loss is for methods that segment",
    "experiment grid.toml out": "no dataset of grid.toml is in .",
}  # fmt: skip


def test_mistakes_are_one_line_each_before_torch_is_imported(place: Path) -> None:
    answers, heavy = commands.answers([line.split() for line in MISTAKES], place)
    for (line, part), (code, said) in zip(MISTAKES.items(), answers, strict=True):
        assert part in said, (line, said)
        assert (code, said.strip().splitlines()[-1].startswith("medsass: ")) == (2, True), (line, said)
        assert "Traceback" not in said
    assert heavy == []


def test_what_is_right_passes_and_returns_what_was_read(place: Path) -> None:
    dataset = preflight.train(TrainConfig(place / "shards", place / "new", refine="recipe"))
    assert {name: split.samples for name, split in dataset.splits.items()} == {"train": 6, "val": 2}
    assert preflight.resolved(TrainConfig(place, place, refine="recipe"), dataset).refine == ""
