"""The grid: lists that multiply out, names of cells, and mistakes reported with file, key, rule and remedy."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.config import TrainConfig, plain
from medsass.runs.experiment import grid
from medsass.runs.experiment.grid import Cell, Grid

ROOT = Path(__file__).resolve().parents[3]
SMALL = """
[datasets.a]
shards = "a"
[datasets.b]
source = "b"
recipe = "folder"
size = 64
train = { epochs = 3 }
[defaults]
model = "unet-resnet18"
epochs = 7
seed = [0, 1]
"""


def _load(folder: Path, text: str) -> Grid:
    path = folder / "grid.toml"
    path.write_text(text)
    return grid.load(path)


def _cells(chosen: Grid) -> list[tuple[Any, ...]]:
    return [(c.dataset, c.config.method, c.config.labels, c.config.epochs, c.config.seed) for c in chosen.cells]


def test_lists_multiply_out_over_the_defaults(tmp_path: Path) -> None:
    chosen = _load(tmp_path, SMALL + '[[runs]]\ndataset = ["a", "b"]\nmethod = ["medsass", "supervised"]\n')
    expected = [("a", m, "otsu", 7, s) for s in (0, 1) for m in ("medsass", "supervised")]
    expected += [("b", m, "otsu", 3, s) for s in (0, 1) for m in ("medsass", "supervised")]
    assert _cells(chosen) == expected
    assert {cell.config.model for cell in chosen.cells} == {"unet-resnet18"}


def test_a_run_precedes_its_dataset_that_the_defaults_and_equal_cells_are_one(tmp_path: Path) -> None:
    chosen = _load(tmp_path, SMALL + '[[runs]]\ndataset = "b"\nepochs = [1, 3]\nseed = 5\n')
    assert _cells(chosen) == [("b", "medsass", "otsu", 1, 5), ("b", "medsass", "otsu", 3, 5)]
    chosen = _load(tmp_path, SMALL + '[[runs]]\ndataset = "a"\n[[runs]]\ndataset = "a"\nlabels = ["ght", "otsu"]\n')
    assert len(_cells(chosen)) == len(set(_cells(chosen))) == 4


def test_a_cells_name_lists_what_is_off_the_defaults_of_train() -> None:
    config = TrainConfig(Path("a"), Path(), labels="ght", ght="1,2,3,0.5", epochs=9, flip=False, lr=0.01, seed=4)
    name = "a/medsass_unet-resnet50_labels-ght_epochs-9_lr-0.01_flip-False_ght-1,2,3,0.5_seed-4"
    assert Cell("a", config).name == name
    assert Cell("a", TrainConfig(Path(), Path())).name == "a/medsass_unet-resnet50_seed-0"


OPTIONS = {
    "labels": st.sampled_from(["otsu", "ght", "adaptive-mean"]),
    "epochs": st.integers(1, 12),
    "lr": st.sampled_from([None, 1e-3, 1e-4, 0.5]),
    "crop": st.sampled_from([0.6, 1.0]),
    "seed": st.integers(0, 3),
}


@given(st.lists(st.fixed_dictionaries(OPTIONS), min_size=2, max_size=2))
def test_cells_have_equal_names_exactly_where_they_are_equal(options: list[dict[str, Any]]) -> None:
    names = [Cell("a", TrainConfig(Path(), Path(), **values)).name for values in options]
    assert (names[0] == names[1]) == (options[0] == options[1])


def test_a_dataset_has_its_options_and_its_recipe(tmp_path: Path) -> None:
    text = SMALL.replace('recipe = "folder"', 'recipe = "own.toml"\nsplit = "val"\npaper = "P"\ndiffers = "why"')
    item = _load(tmp_path, text + '[[runs]]\ndataset = "b"\n').datasets["b"]
    found = (item.source, item.recipe, item.options, item.split, item.paper, item.differs)
    assert found == ("b", "own.toml", {"size": 64}, "val", "P", "why")


def test_off_names_options_off_the_defaults_and_never_methods_models_seeds_or_places(tmp_path: Path) -> None:
    chosen = _load(tmp_path, SMALL + '[[runs]]\ndataset = ["a", "b"]\nepochs = 3\nlabels = ["ght", "otsu"]\n')
    off = {(c.dataset, c.config.labels): chosen.off(c.dataset, plain(c.config)) for c in chosen.cells}
    expected = {
        ("a", "ght"): {"epochs", "labels"},
        ("a", "otsu"): {"epochs"},
        ("b", "ght"): {"labels"},
        ("b", "otsu"): set(),
    }
    assert off == expected
    other = TrainConfig(Path("x"), Path("y"), "byol", "unet-vit-tiny", epochs=7, seed=9, device="cpu", threads=3)
    assert chosen.off("a", plain(other)) == set()


RUN = '[[runs]]\ndataset = "a"\n'
MISTAKES = {
    "not toml [": "not a TOML file",
    'name = "x"': "'name' in the file is unknown: known: title, numbers",
    "[datasets]": "it names no dataset",
    SMALL: r"it holds no \[\[runs\]\] table",
    SMALL + "[[runs]]\nmethod = 'medsass'": r"'dataset' in \[\[runs\]\] 1 is missing; add it",
    SMALL + '[[runs]]\ndataset = "c"': r"'dataset' in \[\[runs\]\] 1 must be of a, b; got 'c'",
    SMALL + RUN + 'method = "medsas"': r"\[\[runs\]\] 1.* must be one of .*medsass.*; got 'medsas'",
    SMALL
    + RUN
    + 'epochs = "7"': r"'epochs' in \[\[runs\]\] 1 must be a whole number or a list of whole numbers; got '7'",
    SMALL + RUN + "epochs = true": r"'epochs' in \[\[runs\]\] 1 must be a whole number or .*; got True",
    SMALL + RUN + "lr = 'high'": r"'lr' in \[\[runs\]\] 1 must be a number or a list of numbers; got 'high'",
    SMALL + RUN + "epochs = []": r"'epochs' in \[\[runs\]\] 1 is an empty list, which leaves no cell",
    SMALL + "[[runs]]\ndataset = []": r"'dataset' in \[\[runs\]\] 1 is an empty list, which leaves no cell",
    SMALL + RUN + "epochs = [0]": r"\[\[runs\]\] 1.* must be at least 1; got 0",
    SMALL + RUN + "device = 'cpu'": r"'device' in \[\[runs\]\] 1 is set by the experiment itself",
    SMALL + RUN + "epoch = 3": r"'epoch' in \[\[runs\]\] 1 is unknown: did you mean epochs\? known: dataset, method",
    SMALL + RUN + 'method = ["byol", "mae"]': r"\[\[runs\]\] 1: method mae is for vision transformers.*unet-resnet18",
    SMALL + 'labels = "ght"\n' + RUN + 'method = "byol"': r"\[\[runs\]\] 1: labels is for methods that segment",
    SMALL + RUN + 'method = "dino"\nlabel_fraction = 0.5': r"\[\[runs\]\] 1: label_fraction is for methods",
    SMALL + RUN + "label_fraction = 0.5": r"\[\[runs\]\] 1: label_fraction .*supervised",
    SMALL + RUN + 'model = "unet-vit-tiny"\nsize = 72': r"\[\[runs\]\] 1: size must be a multiple of .*got 72",
    SMALL
    + RUN
    + "[evaluate]\nprotocols = ['auto']": r"'protocols' in \[evaluate\] must be a list, each one of network, paper",
    SMALL + RUN + "[evaluate]\nprobe = ['z']": r"'probe' in \[evaluate\] must be of a, b; got 'z'",
    SMALL.replace('shards = "a"', "split = 'val'") + RUN: r"\[datasets.a\] takes either 'shards'.* or 'source'",
    SMALL.replace('shards = "a"', 'shards = "a"\nsize = 3') + RUN: r"\[datasets.a\]: 'size' goes with 'source'",
    SMALL.replace("size = 64", "sise = 64")
    + RUN: r"'sise' in \[datasets.b\] is unknown: did you mean size\? known: shards",
    SMALL.replace("epochs = 3", "epoch = 3") + RUN: r"'epoch' in \[datasets.b.train\] is unknown: did you mean epochs",
    SMALL.replace("[datasets.a]", '[datasets."a/b"]') + RUN: "the name becomes a folder's",
    "title = 3\n" + SMALL + RUN: "'title' in the file must be text; got 3",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_a_mistake_is_reported_in_one_line_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        _load(tmp_path, text)
    assert str(tmp_path / "grid.toml") in str(error.value)
    assert "\n" not in str(error.value)


def test_whole_numbers_are_taken_for_fractions(tmp_path: Path) -> None:
    (cell, _) = _load(tmp_path, SMALL + RUN + "crop = 1").cells
    assert cell.config.crop == 1.0
    assert "crop-1.0" in cell.name


@pytest.mark.parametrize(("name", "cells"), [("paper", 650), ("paper-small", None)])
def test_the_grids_that_come_with_the_project_can_be_read(name: str, cells: int | None) -> None:
    chosen = grid.load(ROOT / "benchmarks" / f"{name}.toml")
    assert cells in (None, len(chosen.cells))
    assert all(chosen.datasets[cell.dataset].split for cell in chosen.cells)
    assert {item.paper for item in chosen.datasets.values()} - {""} <= {n.dataset for n in chosen.published.numbers}
    assert {cell.config.model for cell in chosen.cells if cell.config.method in ("mae", "simmim")} <= {
        "unet-vit-small", "unet-vit-tiny"
    }  # fmt: skip


def test_lists_that_make_millions_of_cells_are_refused_before_they_are_made(tmp_path: Path) -> None:
    many = f"seed = {list(range(1000))}\nepochs = {list(range(1, 1001))}\n"
    with pytest.raises(
        ValueError, match=r"\[\[runs\]\] 1: its lists make 1000000 cells, more than 20000; shorten them"
    ):
        _load(tmp_path, f'[datasets.a]\nshards = "a"\n[[runs]]\ndataset = "a"\n{many}')
