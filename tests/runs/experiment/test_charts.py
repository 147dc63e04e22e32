"""The figures: which numbers are drawn, as what, and that the pictures are there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from medsass.runs.experiment import charts
from medsass.runs.experiment.export import Value
from medsass.runs.experiment.grid import Grid
from tests.runs.experiment import cells


@pytest.fixture
def chosen(tmp_path: Path) -> Grid:
    return cells.load(tmp_path)


@pytest.fixture
def scores(chosen: Grid) -> list[dict[str, Any]]:
    return [cells.record(cell, cells.plainly) for cell in chosen.cells]


def _bars(number: str, protocol: str, chosen: Grid, scores: list[dict[str, Any]]) -> charts.Bars:
    found = charts.bars(charts.FIGURES_OF_THE_PAPER[number][0], protocol, chosen, scores)
    assert found
    return found


def test_a_figure_compares_what_the_papers_does(chosen: Grid, scores: list[dict[str, Any]]) -> None:
    expected = ["MedSASS (E+D)", "MedSASS (E)", "BYOL", "DINO", "SimSiam"]
    assert list(_bars("3", "paper", chosen, scores).lines) == expected
    assert _bars("10", "paper", chosen, scores).lines[0] == "Supervised"
    names = {
        n: [line.name for diagram in diagrams for line in diagram.lines("paper")]
        for n, diagrams in charts.FIGURES_OF_THE_PAPER.items()
    }
    assert names["2"] == ["DINO", "MAE", "SimMIM", "BYOL", "DINO", "SimSiam"]
    assert names["4"] == ["MedSASS (E+D)", "MedSASS (E)", "DINO", "MAE", "SimMIM"]


def test_bars_are_means_with_their_deviation_of_the_papers_network(chosen: Grid, scores: list[dict[str, Any]]) -> None:
    found = _bars("3", "linear", chosen, scores)
    value = found.ours["skin", "MedSASS (E)"]
    assert (value.mean, value.deviation) == (pytest.approx(0.5), pytest.approx(0.01))
    assert found.ours["cells", "MedSASS (E+D)"].mean == pytest.approx(0.6)
    assert found.title.startswith("ResNet-50: ")
    assert dict(found.datasets) == {"skin": "ISIC-2017", "cells": "cells"}
    assert dict(found.everything) == {"skin": 0.25, "cells": 0.25}


def test_the_papers_numbers_stand_where_the_protocol_is_the_papers(chosen: Grid, scores: list[dict[str, Any]]) -> None:
    paper = {key: value.mean for key, value in _bars("3", "paper", chosen, scores).paper.items()}
    assert paper == {("skin", "BYOL"): 0.2412, ("skin", "MedSASS (E+D)"): 0.4847}
    assert ("skin", "BYOL") not in _bars("3", "linear", chosen, scores).paper


def test_the_stand_in_is_drawn_where_the_papers_network_was_not_run(chosen: Grid, scores: list[dict[str, Any]]) -> None:
    small = [score for score in scores if score["model"] == "unet-resnet18"]
    assert _bars("3", "paper", chosen, small).title.startswith("ResNet-18: ")


def test_figures_without_a_cell_are_not_drawn(chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path) -> None:
    drawn = charts.write(chosen, scores, tmp_path / "out")
    assert [path.name for path in drawn] == ["figure-2.png", "figure-3.png", "figure-10.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "figures").glob("*.pdf")) == [
        "figure-10.pdf", "figure-2.pdf", "figure-3.pdf"
    ]  # fmt: skip
    assert charts.write(chosen, [], tmp_path / "none") == []


def _seen(path: Path, colour: str) -> np.ndarray:
    """Which pixels of a picture have a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return np.abs(pixels - np.round(np.array(to_rgb(colour)) * 255)).max(-1) < 2


@pytest.mark.parametrize("mean", [0.2, 0.6])
def test_a_bars_height_in_the_picture_follows_its_mean(tmp_path: Path, mean: float) -> None:
    ours = {("a", "Supervised"): Value(0.8, 0.01, 2), ("a", "MedSASS (E+D)"): Value(mean, None, 1)}
    item = charts.Bars("", ["Supervised", "MedSASS (E+D)", "DINO"], {"a": "A"}, ours, {}, {"a": 0.1})
    charts.draw("3", [[item]], tmp_path / "a.png")
    above = slice(0, -70)  # the legend stands below
    tall, low = (int(_seen(tmp_path / "a.png", charts._COLOURS[name])[above].sum(0).max()) for name in item.lines[:2])
    assert low / tall == pytest.approx(mean / 0.8, rel=0.05)
    assert not _seen(tmp_path / "a.png", charts._COLOURS["DINO"]).any()


def test_diagrams_side_by_side_have_one_scale_that_holds_the_highest_bar(tmp_path: Path) -> None:
    low, high = (
        charts.Bars("", ["DINO", name], {"a": "A"}, {("a", name): Value(mean, None, 1)}, {}, {})
        for name, mean in (("MAE", 0.1), ("BYOL", 0.4))
    )
    charts.draw("2", [[low, high]], tmp_path / "a.png")
    short, tall = (_seen(tmp_path / "a.png", charts._COLOURS[name])[:-70].sum(0).max() for name in ("MAE", "BYOL"))
    assert short / tall == pytest.approx(0.25, rel=0.07)
