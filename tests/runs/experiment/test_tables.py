"""The paper's tables: means, deviations, bold values, the paper's own beside them, and gaps."""

import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from medsass.config import TrainConfig, plain
from medsass.runs.experiment import tables
from medsass.runs.experiment.export import Sheet
from medsass.runs.experiment.grid import Cell, Grid
from tests.runs.experiment import cells


@pytest.fixture
def chosen(tmp_path: Path) -> Grid:
    return cells.load(tmp_path)


@pytest.fixture
def scores(chosen: Grid) -> list[dict[str, Any]]:
    return [cells.record(cell, cells.plainly) for cell in chosen.cells]


def _write(chosen: Grid, scores: list[dict[str, Any]], folder: Path) -> dict[str, Sheet]:
    return {sheet.number: sheet for sheet in tables.write(chosen, scores, folder)}


def _row(sheet: Sheet, *labels: str) -> list[str]:
    """The values of a row, `*` around what is bold."""
    (values,) = [values for row, values in sheet.rows if all(label in row for label in labels)]
    return ["–" if value is None else f"*{value.text}*" if value.best else value.text for value in values]


def test_a_mean_stands_with_its_sample_deviation_beside_the_papers(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    sheet = _write(chosen, scores, tmp_path)["1"]
    seeds = [0.19, 0.2, 0.21]
    expected = f"{statistics.fmean(seeds):.4f} ± {statistics.stdev(seeds):.4f}"
    assert expected == "0.2000 ± 0.0100"
    assert list(sheet.columns) == ["ISIC-2017†", "cells"]
    assert _row(sheet, "BYOL", "ResNet-50", "ours") == [expected] * 2
    assert _row(sheet, "BYOL", "ResNet-18‡", "ours") == [expected] * 2
    assert _row(sheet, "BYOL", "ResNet-50", "paper") == ["0.2412 ± 0.002", "–"]


def test_the_best_of_a_protocol_is_bold_and_trivial_answers_never_are(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    sheet = _write(chosen, scores, tmp_path)["1"]
    assert _row(sheet, "MedSASS (E)", "ResNet-50") == ["*0.4000 ± 0.0100*"] * 2
    assert _row(sheet, "MedSASS (E+D)", "ResNet-50", "ours") == ["0.6000 ± 0.0100"] * 2
    assert _row(sheet, "Supervised", "ResNet-50") == ["*0.8000 ± 0.0100*"] * 2
    assert _row(sheet, "bare Otsu (ours)") == ["0.9000"] * 2
    assert _row(sheet, "everything foreground (ours)") == ["0.2500"] * 2


def test_all_of_a_tie_are_bold(chosen: Grid, tmp_path: Path) -> None:
    tied = [cells.record(cell, lambda *_: 0.3) for cell in chosen.cells]
    sheet = _write(chosen, tied, tmp_path)["1"]
    for name in ("DINO", "BYOL", "MedSASS (E)"):
        assert _row(sheet, name, "ResNet-50", "ours") == ["*0.3000 ± 0.0000*"] * 2


def test_one_seed_has_no_deviation_and_a_missing_cell_is_a_dash(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    some = [s for s in scores if (s["method"], s["dataset"]) != ("dino", "cells")]
    some = [s for s in some if s["method"] != "byol" or not s["seed"]]
    sheet = _write(chosen, some, tmp_path)["1"]
    assert _row(sheet, "BYOL", "ResNet-50", "ours") == ["0.1900"] * 2
    assert _row(sheet, "DINO", "ResNet-50") == ["0.1000 ± 0.0100", "–"]
    assert "of 1 to 3 seeds" in sheet.caption


def test_ablations_take_only_cells_that_differ_in_one_option(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    both = Cell("skin", TrainConfig(Path(), Path(), labels="ght", loss="focal", size=64, epochs=6))
    sheets = _write(chosen, [*scores, cells.record(both, lambda *_: 0.999)], tmp_path)
    assert list(sheets["3"].columns) == ["GHT", "Otsu"]
    assert _row(sheets["3"], "MedSASS (E+D)", "ResNet-50", "ours") == ["*0.6000 ± 0.0100*"] * 2
    assert _row(sheets["3"], "MedSASS (E+D)", "ResNet-50", "paper") == ["–", "0.4847 ± 0.0277"]
    assert list(sheets["4"].columns) == ["cross-entropy", "focal Tversky"]
    assert "0.999" not in (tmp_path / tables.ALL).read_text()


def test_an_ablation_shows_the_datasets_that_vary_and_the_papers_own_number_of_the_table(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    sheets = _write(chosen, scores, tmp_path)
    assert {labels[0] for labels, _ in sheets["3"].rows} == {"ISIC-2017†"}
    assert _row(sheets["3"], "paper")[1] == "0.4847 ± 0.0277"  # the paper prints it twice, with other deviations
    assert _row(sheets["4"], "paper")[1] == "0.4847 ± 0.5"


def test_tables_without_a_cell_are_not_written(chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path) -> None:
    assert list(_write(chosen, scores, tmp_path)) == ["1", "1b", "3", "4", "B.1", "9"]
    assert tables.write(chosen, [], tmp_path / "empty") == []


def test_cross_entropy_shows_overlap_and_accuracy_and_the_probe_recall(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    sheets = _write(chosen, scores, tmp_path)
    assert _row(sheets["B.1"], "ours") == ["0.6000 ± 0.0100", "0.7500 ± 0.0000"]
    assert _row(sheets["9"], "ResNet-50", "DINO")[0] == "*0.6000 ± 0.1000*"  # all tie


def test_footnotes_and_captions_explain_how_ours_differ_and_what_is_bold(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    sheets = _write(chosen, scores, tmp_path)
    assert {number for number, sheet in sheets.items() if "in bold" not in sheet.caption} == {"B.1"}
    assert not any(value and value.best for _, values in sheets["B.1"].rows for value in values)
    sheet = sheets["1"]
    assert sheet.notes[0] == "† ours: the validation split"
    assert sheet.notes[1].startswith("‡ a smaller network in place of ResNet-50")
    assert "64 × 64 pixels, epochs: 6, batches of 16; cells: epochs: 3" in sheet.caption
    assert "Paper: 5 seeds; 224 × 224 pixels, epochs: 50, batches of 16" in sheet.caption
    assert "sample standard deviation (n − 1) of 3 seeds" in sheet.caption


def test_the_order_of_the_scores_does_not_matter(chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path) -> None:
    tables.write(chosen, json.loads(json.dumps(scores[::-1])), tmp_path / "one")
    tables.write(chosen, scores, tmp_path / "two")
    assert (tmp_path / "one" / tables.ALL).read_text() == (tmp_path / "two" / tables.ALL).read_text()


def test_markdown_csv_and_latex_hold_the_same_numbers(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    _write(chosen, scores, tmp_path)
    texts = {suffix: (tmp_path / "tables" / f"table-1.{suffix}").read_text() for suffix in ("md", "csv", "tex")}
    pair = re.compile(r"(0\.\d+)(?: (?:±|\$\\pm\$) (0\.\d+))?")
    body = {"md": texts["md"].split("|", 1)[1], "tex": texts["tex"].split(r"\midrule")[1]}
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    exact = [(f"{float(r['mean']):.4f}", f"{float(r['standard deviation'] or 0):.4f}") for r in rows]
    for text in body.values():
        assert [(f"{float(a):.4f}", f"{float(b or 0):.4f}") for a, b in pair.findall(text)] == exact
    assert body["md"].count("**") == 2 * body["tex"].count(r"\textbf")
    assert {row["column"] for row in rows} == {"ISIC-2017", "cells"}
    assert {row["seeds"] for row in rows if row["numbers"] == "paper"} == {""}
    for path in (tmp_path / "tables").glob("*.md"):
        lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1
        assert len(lines) > 2


def test_the_options_of_an_older_version_count_as_its_defaults(chosen: Grid) -> None:
    options = plain(chosen.cells[0].config)
    del options["label_fraction"]
    assert chosen.off("skin", options) == set()


def test_all_tables_point_to_the_figures_in_their_order(
    chosen: Grid, scores: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "figures").mkdir()
    for number in ("10", "2", "3"):
        (tmp_path / "figures" / f"figure-{number}.png").touch()
    _write(chosen, scores, tmp_path)
    assert re.findall(r"\(figures/(.*?)\)", (tmp_path / tables.ALL).read_text()) == [
        "figure-2.png", "figure-3.png", "figure-10.png"
    ]  # fmt: skip
