"""`benchmarks.beyond` on a small scale: each arm trains with its options, is scored, and goes on where it was stopped."""

import json
from pathlib import Path
from statistics import mean

import pytest
import torch
from click.testing import CliRunner

from benchmarks import beyond
from benchmarks.beyond import ALL, ARMS, PAPER, Plan
from benchmarks.support import result
from medsass import cli
from medsass.runs import run_directory
from medsass.runs.tuning import candidates


@pytest.fixture
def commands(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that the program runs, here in this process, on generated shards."""
    called = []

    def run(*arguments: object) -> None:
        called.append(tuple(map(str, arguments)))
        done = CliRunner().invoke(cli.main, called[-1])
        assert done.exit_code == 0, done.output

    (tmp_path / "data/isic2017").mkdir(parents=True)
    monkeypatch.setattr(beyond, "SPLITS", {"isic2017": "test"})
    monkeypatch.setattr(beyond, "SEEDS", (0, 1))
    monkeypatch.setattr(beyond, "plan", lambda _: Plan("unet-resnet18", 32, 16, 3, isic=0, workers=1))
    monkeypatch.setattr(beyond, "_medsass", run)
    monkeypatch.setattr(candidates, "REFINEMENTS", ("", "open:1"))
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("medsass.data.sharding.shard.write", lambda config: config.out.symlink_to(shards))
    monkeypatch.setattr("sys.argv", ["beyond", str(tmp_path / "data"), str(tmp_path / "out")])
    (tmp_path / "out/isic2017").mkdir(parents=True)
    return called


@pytest.mark.usefixtures("light")
def test_the_whole_program(
    commands: list[tuple[str, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond.main()
    saved = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = [row for row in saved["rows"] if "arm" in row]
    assert [(row["arm"], row["seed"]) for row in rows] == [(arm.name, seed) for arm in ARMS for seed in (0, 1)]
    assert sum(command[0] == "train" for command in commands) == 2 * (len(ARMS) - 1)  # flips score the paper's runs
    out = tmp_path / "out/isic2017"
    choice = saved["rows"][-1]["choice"]
    for arm, name in ((PAPER, "MedSASS-as-in-the-paper"), (ALL, "all-together")):
        trained = run_directory.stored(out / f"{name}-1")[0]
        assert trained.method == ("medsass" if arm == PAPER else "medsass-plus")
        assert (trained.seed, trained.epochs, trained.patience) == (1, 1, 0)
        expected = ("otsu", "") if arm == PAPER else (choice["labels"], choice["refine"])
        assert (trained.labels, trained.refine) == expected
    assert run_directory.stored(out / "teacher-0")[0].parts == "teacher"
    flips = {(Path(c[1]).name, "--flips" in c) for c in commands if c[0] == "evaluate"}
    paper = "MedSASS-as-in-the-paper-0"
    assert {("all-together-0", True), (paper, False), (paper, True), ("teacher-0", False)} <= flips
    assert ("all-together-0", False) not in flips
    ious = {arm: mean(row["iou"] for row in rows if row["arm"] == arm.name) for arm in (PAPER, ALL)}
    assert [aim["value"] for aim in saved["targets"]] == pytest.approx([ious[ALL] - ious[PAPER]] * 2)
    line = beyond.markdown_table({"cpu-beyond.json": saved}).splitlines()[4]
    assert line.startswith(f"| MedSASS as in the paper | {ious[PAPER]:.3f} ± ")

    (out / "teacher-0.json").unlink()
    done = len(commands)
    beyond.main()
    assert [command[0] for command in commands[done:]] == ["evaluate"]
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["rows"] == saved["rows"]

    monkeypatch.setattr(beyond, "plan", lambda _: Plan("unet-resnet50", 32, 16, 3, isic=0, workers=1))
    with pytest.raises(SystemExit, match="of another machine's plan, unet-resnet18 at 32"):
        beyond.main()


def test_one_seed_has_no_deviation() -> None:
    assert beyond._spread([0.5]) == "0.500 (seeds: 1)"
    assert beyond._spread([0.5, 0.6, 0.7]) == "0.600 ± 0.100"


def test_a_failed_command_ends_the_program_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="none"):
        beyond._medsass("info", tmp_path / "none")


def test_a_part_of_isic_keeps_the_masks_of_its_images_and_all_other_splits(tmp_path: Path) -> None:
    source = tmp_path / "isic"
    for split in ("Training", "Validation"):
        for i in range(10):
            image = source / f"ISIC-2017_{split}_Data/ISIC_{i:07}.jpg"
            mask = source / f"ISIC-2017_{split}_Part1_GroundTruth/ISIC_{i:07}_segmentation.png"
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(path.name)
    found = beyond.fewer(source, tmp_path / "few", 4)
    names = {str(path.relative_to(found)): path.read_text() for path in found.rglob("*.*")}
    training = sorted(name for name in names if "Training_Data" in name)
    assert [name[-5] for name in training] == ["0", "3", "6", "9"]
    assert {name[-18] for name in names if "Training_Part1" in name} == {"0", "3", "6", "9"}
    assert sum("Validation" in name for name in names) == 20
