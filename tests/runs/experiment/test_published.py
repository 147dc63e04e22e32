"""Published numbers: the paper's are as many, as large and as equal as it prints them, and mistakes are reported."""

from pathlib import Path

import pytest

from medsass.runs.experiment import published
from medsass.runs.experiment.published import Number

PAPER = published.load(Path(__file__).resolve().parents[3] / "benchmarks" / "paper-numbers.toml")

DATASETS = ("Dermatomyositis", "TissueNet", "ISIC-2017", "X-Ray")


def _of(table: str, **wanted: object) -> list[Number]:
    return [
        number
        for number in PAPER.numbers
        if number.table == table
        and all(number.options.get(name, getattr(number, name, None)) == value for name, value in wanted.items())
    ]


def test_every_table_is_there_in_full() -> None:
    sizes = {"1": 16, "2": 16, "3": 16, "4": 12, "B.1": 2, "5": 8, "7": 6, "8": 6, "9": 16}
    assert {name: len(_of(name)) for name in sizes} == sizes
    assert len(PAPER.numbers) == sum(sizes.values())


@pytest.mark.parametrize(
    ("table", "by", "winners"),
    [
        ("1", "method", dict.fromkeys(DATASETS, "medsass")),
        ("2", "method", {**dict.fromkeys(DATASETS, "medsass"), "Dermatomyositis": "simmim"}),
        ("3", "labels", dict.fromkeys(DATASETS, "otsu")),
        ("4", "loss", dict.fromkeys(DATASETS, "focal-tversky")),
    ],
)
def test_the_highest_numbers_are_those_that_the_paper_prints_in_bold(
    table: str, by: str, winners: dict[str, str]
) -> None:
    for dataset, winner in winners.items():
        best = max(_of(table, dataset=dataset), key=lambda number: number.mean)
        assert best.options.get(by, getattr(best, by, None)) == winner


def test_the_best_recalls_are_those_that_the_paper_prints_in_bold() -> None:
    winners = {("unet-resnet50", "ISIC-2017"): "medsass", ("unet-resnet50", "X-Ray"): "byol",
               ("unet-vit-small", "ISIC-2017"): "medsass", ("unet-vit-small", "X-Ray"): "mae"}  # fmt: skip
    for (model, dataset), winner in winners.items():
        assert max(_of("9", model=model, dataset=dataset), key=lambda number: number.mean).method == winner


def test_what_is_printed_twice_has_the_same_mean() -> None:
    seen: dict[tuple[object, ...], set[float]] = {}
    for n in PAPER.numbers:
        key = (n.dataset, n.method, n.model, n.protocol, n.score, tuple(n.options.items()))
        seen.setdefault(key, set()).add(n.mean)
    assert all(len(means) == 1 for means in seen.values())
    assert len(seen) < len(PAPER.numbers)


def test_cross_entropy_is_background_everywhere() -> None:
    iou, accuracy = _of("B.1")
    assert (iou.score, iou.mean, iou.deviation) == ("iou", 0.0, None)
    assert (accuracy.score, accuracy.mean, accuracy.deviation) == ("accuracy", 0.7608, 0.002)
    assert iou.off == {"loss"}


def test_off_is_empty_for_the_standard() -> None:
    assert [n.mean for n in PAPER.numbers if n.table in "579" and n.options["epochs"] == 10 and not n.off] == []
    assert {number.table for number in PAPER.numbers if not number.off} == set("12345789")


NUMBER = '[[numbers]]\ntable = "1"\nmethod = "byol"\nmodel = "unet-resnet50"\nprotocol = "paper"\n'
FIRST = "[standard]\n" + NUMBER
MISTAKES = {
    "[": "not a TOML file",
    NUMBER + "values = { A = 1.0 }": "'standard' in the file is missing; add it",
    "[standard]\n": "'numbers' in the file is missing; add it",
    FIRST: r"'values' in \[\[numbers\]\] 1 is missing; add it",
    FIRST + "values = { A = 1.0 }\nepoch = 3": r"'epoch' in \[\[numbers\]\] 1 is unknown: did you mean epochs\?",
    FIRST + "values = { A = [1.0, 2.0, 3.0] }": r"'A' in \[values\] of \[\[numbers\]\] 1 must be \[mean",
    FIRST
    + "values = { A = ['1'] }": r"'A' in \[values\] of \[\[numbers\]\] 1 must be a number or a list of numbers; got \['1'\]",
    FIRST + "values = { A = 1.0 }\nscore = 'f1'": "'score' in .* must be one of iou, accuracy, recall",
    FIRST + "values = [1, 2]": r"'values' in \[\[numbers\]\] 1 must be a table; got \[1, 2\]",
    "standard = 3\n" + NUMBER + "values = { A = 1.0 }": "'standard' in the file must be a table; got 3",
    "numbers = 3\n[standard]": "'numbers' in the file must be a list of tables; got 3",
    "numbers = [1]\n[standard]": r"\[\[numbers\]\] 1 must be a table; got 1",
    FIRST.replace("byol", "byo") + "values = { A = 1 }": "'method' in .* must be one of .*byol.*'byo'",
    FIRST.replace("t50", "t5") + "values = { A = 1 }": "'model' in .* must be one of unet-resnet50",
    FIRST.replace("paper", "auto") + "values = { A = 1 }": "'protocol' in .* one of network.*probe; got",
    FIRST.replace('"byol"', "[2]") + "values = { A = 1 }": r"'method' in .* got \[2\]",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_a_mistake_is_reported_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "numbers.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        published.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
