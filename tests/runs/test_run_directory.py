"""A run directory: made once, never mixed with other files, resumed only with the same options and data."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from medsass import files
from medsass.config import plain
from medsass.runs import run_directory
from tests.conftest import facts, tiny

FACTS = facts()
OURS = (
    "config.json",
    "metrics.jsonl",
    "last.pt",
    "best.pt",
    "model.safetensors",
    "progress.png",
    "samples.png",
    "scores.json",
)


def test_a_new_directory_holds_the_options_and_the_facts(tmp_path: Path) -> None:
    config = tiny(Path("some/shards"), tmp_path / "deep" / "run", seed=7)
    run_directory.create(config, FACTS)
    content = json.loads((config.run / "config.json").read_text())
    assert (content["train"]["seed"], content["train"]["shards"]) == (7, "some/shards")
    assert (content["polarity"], content["shards_sha256"]) == ("bright", "abc")
    assert [path.name for path in config.run.iterdir()] == ["config.json"]


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    config = tiny(Path("shards"), tmp_path / "run", lr=0.5, flip=False)
    run_directory.create(config, FACTS)
    old, found = run_directory.stored(config.run)
    assert old == config
    assert plain(found) == {**plain(facts()), "train": plain(config)}


def test_an_existing_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    config = tiny(Path("shards"), tmp_path / "run")
    run_directory.create(config, FACTS)
    before = (config.run / "config.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"--resume.*--overwrite"):
        run_directory.create(tiny(Path("shards"), config.run, seed=9), FACTS)
    assert (config.run / "config.json").read_bytes() == before


def test_overwrite_deletes_all_files_of_the_old_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    (run / "export").mkdir()
    for name in (*OURS, "tensorboard/events", "last.pt.part", "export/card.json"):
        (run / name).write_text("old")
    run_directory.create(tiny(Path("shards"), run, overwrite=True), FACTS)
    assert [path.name for path in run.iterdir()] == ["config.json"]
    assert (run / "config.json").read_text() != "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_never_deleted(tmp_path: Path, overwrite: bool) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "thesis.docx"):
        (run / name).write_text("mine")
    with pytest.raises(FileExistsError, match=r"thesis\.docx"):
        run_directory.create(tiny(Path("shards"), run, overwrite=overwrite), FACTS)
    assert {path.name: path.read_text() for path in run.iterdir()} == {"config.json": "mine", "thesis.docx": "mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        run_directory.create(tiny(Path("shards"), tmp_path / "run", overwrite=overwrite), FACTS)
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_without_a_configuration_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        run_directory.stored(tmp_path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "must be a table"),
        (b"null", "must be a table"),
        (b"{}", "is missing; add it"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ValueError, match=rf"config\.json is not the configuration of a run \(.*{reason}"):
        run_directory.stored(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"train": {}}, "--shards is missing"),
        ({"train": 3}, "'train' in the file must be"),
        ({"train": {"shards": 5, "run": "r"}}, "--shards must be a path; got 5"),
        ({"train": {"shards": "s", "run": None}}, "--run must be a path; got None"),
        ({"train": {"shards": "s", "run": "r", "epochs": 0}}, "--epochs must be at least 1; got 0"),
        ({"train": {"shards": "s", "run": "r", "lr": "x"}}, "--lr must be a number; got 'x'"),
        ({"keeps": "moon"}, "'keeps' in the file must be one of network, encoder; got 'moon'"),
        ({"kepes": "network"}, "'kepes' in the file is unknown: did you mean keeps?"),
        ({"init": {"method": "byol"}}, r"'takes' in \[init\] is missing"),
        ({"depth": None}, "'depth' in the file must be one of 8, 16; got None"),
        ({"depth": 5}, "'depth' in the file must be one of 8, 16; got 5"),
        ({"polarity": "up"}, "'polarity' in the file must be one of bright, dark, auto; got 'up'"),
        ({"precision": "auto"}, "'precision' in the file must be one of bf16, fp16, fp32; got 'auto'"),
        ({"tile": -1}, "'tile' in the file must be at least 0; got -1"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    run_directory.create(tiny(Path("shards"), tmp_path / "run"), FACTS)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"config\.json is not the configuration of a run \({reason}"):
        run_directory.stored(tmp_path / "run")


def test_an_option_that_this_version_does_not_know_is_passed_over(tmp_path: Path) -> None:
    config = tiny(Path("shards"), tmp_path / "run")
    run_directory.create(config, FACTS)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "train": {**content["train"], "flavour": 1}}))
    assert run_directory.stored(config.run)[0] == config


def test_resuming_with_other_options_names_each_that_differs(tmp_path: Path) -> None:
    run_directory.create(tiny(Path("shards"), tmp_path / "run"), FACTS)
    with pytest.raises(ValueError, match="cannot be resumed") as error:
        run_directory.check_resume(tiny(Path("shards"), tmp_path / "run", lr=0.5, seed=3, resume=True), FACTS)
    assert "lr (not given in the run, 0.5 now)" in str(error.value)
    assert "seed (0 in the run, 3 now)" in str(error.value)
    assert "epochs" not in str(error.value)


def test_resuming_with_other_shards_says_so(tmp_path: Path) -> None:
    run_directory.create(tiny(Path("shards"), tmp_path / "run"), FACTS)
    with pytest.raises(ValueError, match=r"shards_sha256 \(abc in the run, def now\)"):
        run_directory.check_resume(tiny(Path("shards"), tmp_path / "run"), facts(shards_sha256="def"))


def test_a_run_and_its_shards_may_be_moved_before_it_is_resumed(tmp_path: Path) -> None:
    run_directory.create(tiny(Path("shards"), tmp_path / "run"), FACTS)
    (tmp_path / "run").rename(tmp_path / "moved")
    run_directory.check_resume(tiny(Path("elsewhere"), tmp_path / "moved", threads=3), FACTS)
    with pytest.raises(FileNotFoundError):
        run_directory.check_resume(tiny(Path("elsewhere"), tmp_path / "run"), FACTS)


def test_metrics_are_one_json_object_a_line(tmp_path: Path) -> None:
    history = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.25}]
    run_directory.write_metrics(tmp_path, history)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history


OF_SHARDS = {"tile": 256, "level": 1, "depth": 16, "range": "percentile"}
OLDER = {"tile": 0, "level": 0, "depth": 8, "range": "minmax"}


def test_what_an_older_run_did_not_store_is_as_it_was_then(tmp_path: Path) -> None:
    config = tiny(Path("shards"), tmp_path / "run")
    run_directory.create(config, FACTS)
    path = config.run / "config.json"
    older = ("medsass", "train", "polarity", "device", "shards_sha256")
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name in older}))
    assert OLDER.items() <= plain(run_directory.stored(config.run)[1]).items()
    run_directory.check_resume(config, facts(**OLDER))
    with pytest.raises(ValueError, match=r"depth \(8 in the run, 16 now\)"):
        run_directory.check_resume(config, facts(**{**OLDER, "depth": 16}))


def test_the_facts_of_the_shards_come_back(tmp_path: Path) -> None:
    config = tiny(Path("shards"), tmp_path / "run")
    run_directory.create(config, facts(**OF_SHARDS))
    assert OF_SHARDS.items() <= plain(run_directory.stored(config.run)[1]).items()


def test_an_address_is_stored_and_not_opened_when_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("upath")
    address = files.location("memory://folder/of shards")
    config = tiny(address, tmp_path / "run")
    run_directory.create(config, FACTS)
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert content["train"]["shards"] == "memory://folder/of shards"
    content["train"]["shards"] = "sftp://attacker.example/x"  # opened as soon as it is made a path
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    assert files.is_local(run_directory.stored(config.run)[0].shards)


def test_a_run_on_an_address_can_be_read_without_the_packages_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("upath")
    run_directory.create(tiny(files.location("memory://shards"), tmp_path / "run", lr=0.5), FACTS)
    monkeypatch.setitem(sys.modules, "upath", None)
    assert run_directory.stored(tmp_path / "run")[0].lr == 0.5


def test_a_run_at_an_address_is_refused() -> None:
    pytest.importorskip("upath")
    run = files.location("memory://run")
    with pytest.raises(ValueError, match="memory://run: RUN must be on this machine"):
        run_directory.create(tiny(Path("shards"), run), FACTS)
    with pytest.raises(ValueError, match="memory://run: RUN must be on this machine"):
        run_directory.stored(run)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tile", "x"),
        ("depth", 7),
        ("regime", {"lr": {}}),
        ("regime", []),
        ("level", 0.5),
        ("every", "2"),
        ("init", {"x": 1}),
    ],
)
def test_facts_of_another_type_are_one_line(name: str, value: object, tmp_path: Path) -> None:
    run_directory.create(tiny(Path("shards"), tmp_path / "run"), FACTS)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match=rf"^{path} is not the configuration of a run \(.*{name}.*\); train again$"):
        run_directory.stored(tmp_path / "run")


def test_a_run_that_began_from_another_and_has_no_checkpoint_needs_it_again(tmp_path: Path) -> None:
    old = tiny(Path("shards"), tmp_path / "run", init=Path("first"))
    run_directory.create(old, FACTS)
    with pytest.raises(
        ValueError, match=r"init \(first in the run, not given now\); drop these options or give the run's"
    ):
        run_directory.check_resume(tiny(Path("shards"), tmp_path / "run"))
    (tmp_path / "run" / "last.pt").touch()  # it holds the weights
    run_directory.check_resume(tiny(Path("shards"), tmp_path / "run"))
