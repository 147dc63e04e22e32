"""The command line: light help, one-line errors, configuration files, and the whole line on generated nuclei."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from medsass import errors
from medsass.cli import main
from medsass.config import TrainConfig
from medsass.data.formats.damage import REMEDY
from medsass.data.sharding import write
from medsass.runs import run_directory
from tests.conftest import facts, tiny
from tests.support import deadly

COMMANDS = ("shard", "info", "train", "evaluate", "predict", "demo", "doctor")
TINY = ("--model", "unet-resnet18", "--size", "32", "--epochs", "1", "--device", "cpu", "--threads", "1")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(item) for item in arguments])


def _assert_one_line(result: Result, *parts: str) -> None:
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("medsass: ")
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configs that `medsass train` would have trained with."""
    configs: list[TrainConfig] = []
    _replace_train(monkeypatch, configs.append)
    return configs


def _replace_train(monkeypatch: pytest.MonkeyPatch, function: Callable[[TrainConfig], None]) -> None:
    """Replace `medsass train` and its checks."""
    monkeypatch.setattr("medsass.runs.preflight.train", lambda _: None)
    monkeypatch.setattr("medsass.runs.training.train.train", lambda config, _: function(config))


def test_every_command_is_tested_here() -> None:
    assert set(COMMANDS) <= set(main.commands)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_of_every_command_works(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {command}")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from medsass.cli import main\n"
        "for command in ['train', 'shard', 'evaluate', 'predict', 'doctor']:\n"
        "    main([command, '--help'], standalone_mode=False)\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split("MODULES")[1].split()}
    assert "medsass" in loaded
    heavy = {"torch", "cv2", "numpy", "nvidia", "cupy", "cucim", "timm", "segmentation_models_pytorch", "matplotlib"}
    assert loaded & heavy == set()


def test_every_option_of_train_is_a_field_with_its_default(seen: list[TrainConfig]) -> None:
    assert _run("train", "some/shards", "some/run").exit_code == 0
    assert seen == [TrainConfig(Path("some/shards"), Path("some/run"))]


def test_options_reach_the_configuration(seen: list[TrainConfig]) -> None:
    result = _run("train", "s", "r", "--no-flip", "--batch-size", 3, "--offset", "-2.5", "--labels", "adaptive-mean")
    assert result.exit_code == 0
    expected = TrainConfig(Path("s"), Path("r"), flip=False, batch_size=3, offset=-2.5, labels="adaptive-mean")
    assert seen == [expected]


def test_a_configuration_file_gives_defaults_and_the_command_line_wins(tmp_path: Path, seen: list[TrainConfig]) -> None:
    (tmp_path / "a.toml").write_text('epochs = 20\nbatch-size = 4\nflip = false\nlabels = "ght"\nlr = 0.5\n')
    result = _run("train", "s", "r", "--config", tmp_path / "a.toml", "--epochs", 3, "--flip")
    assert result.exit_code == 0, result.output
    expected = TrainConfig(Path("s"), Path("r"), epochs=3, batch_size=4, flip=True, labels="ght", lr=0.5)
    assert seen == [expected]


def test_the_place_of_config_among_the_options_does_not_matter(tmp_path: Path, seen: list[TrainConfig]) -> None:
    (tmp_path / "a.toml").write_text("epochs = 20\nseed = 3\n")
    _run("train", "--epochs", 3, "s", "r", "--config", tmp_path / "a.toml")
    assert [(config.epochs, config.seed) for config in seen] == [(3, 3)]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("epoch = 20", "unknown option 'epoch'; did you mean epochs? known: "),
        ("shards = 'x'", "unknown option 'shards'"),
        ("epochs =", "not a TOML file"),
        ("epochs = 'many'", "not a valid integer"),
    ],
)
def test_a_wrong_configuration_file_is_refused(tmp_path: Path, seen: list[TrainConfig], text: str, part: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    result = _run("train", "s", "r", "--config", tmp_path / "a.toml")
    assert result.exit_code == 2
    assert part in result.stderr
    assert seen == []


def test_a_missing_configuration_file_is_named(tmp_path: Path, seen: list[TrainConfig]) -> None:
    result = _run("train", "s", "r", "--config", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert "none.toml" in result.stderr
    assert seen == []


def test_resume_takes_the_stored_options(tmp_path: Path, seen: list[TrainConfig]) -> None:
    old = tiny(Path("s"), tmp_path / "run", seed=5, lr=0.25, flip=False)
    run_directory.create(old, facts())
    assert _run("train", "s", tmp_path / "run", "--resume", "--seed", 6).exit_code == 0
    (config,) = seen
    assert config.resume
    assert (config.seed, config.lr, config.flip, config.model) == (6, 0.25, False, "unet-resnet18")


def test_resume_of_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    _assert_one_line(_run("train", "s", tmp_path, "--resume"), "is not a run directory")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("train", "s", "r", "--size", "30"), "--size must be a multiple of 8"),
        (("train", "s", "r", "--labels", "otsus"), "--labels must be one of"),
        (("train", "no/such", "r"), "manifest.json is missing"),
        (("info", "no/such"), "manifest.json is missing"),
        (("evaluate", "no/run", "no/shards"), "is not a run directory"),
        (("predict", "no/run", "a.png"), "is not a run directory"),
    ],
)
def test_an_error_that_the_user_can_mend_is_one_line(arguments: tuple[str, ...], part: str) -> None:
    _assert_one_line(_run(*arguments), part)


def test_an_unknown_recipe_is_one_line(nuclei_folder: Path, tmp_path: Path) -> None:
    _assert_one_line(_run("shard", nuclei_folder, tmp_path / "out", "--recipe", "nope"), "nope")


def test_an_error_of_the_system_names_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/some/file")

    _replace_train(monkeypatch, fail)
    _assert_one_line(_run("train", "s", "r"), "/some/file: Permission denied")


def test_a_message_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise ValueError("first\n  second")

    _replace_train(monkeypatch, fail)
    _assert_one_line(_run("train", "s", "r"), "first second")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise KeyError("bug")

    _replace_train(monkeypatch, fail)
    assert isinstance(_run("train", "s", "r").exception, KeyError)


@pytest.mark.parametrize(("text", "said"), [("go on with: x", "go on with: x"), ("", "start again, with --resume if")])
def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt(text)

    _replace_train(monkeypatch, stop)
    result = _run("train", "s", "r")
    assert result.exit_code == 130
    assert result.stderr.startswith(f"medsass: interrupted; {said}")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (1, "nothing was kept; start again"),
        (2, "finished tar files are kept in {}.part: go on with --resume"),
    ],
)
def test_an_interrupted_sharding_says_what_is_kept(
    batches: int, said: str, nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = write.Writer.write, list[Any]()

    def stop(writer: write.Writer, batch: Any) -> None:
        calls.append(batch)
        if len(calls) == batches:
            raise KeyboardInterrupt
        original(writer, batch)

    monkeypatch.setattr(write.Writer, "write", stop)
    result = _run(
        "shard", nuclei_folder, tmp_path / "out", "--images", "images/*.png", "--max-shard-bytes", 80_000 // batches
    )
    assert result.exit_code == 130
    assert result.output.startswith("medsass: interrupted; ")
    assert result.output.endswith(said.format(tmp_path / "out") + "\n")
    assert result.output.count("\n") == 1


def test_images_that_do_not_fit_the_memory_alone_are_left_out_with_the_remedy(
    nuclei_folder: Path, tmp_path: Path
) -> None:
    with deadly.workers("fill()"):
        result = _run("shard", nuclei_folder, tmp_path / "out", "--images", "images/*.png")
    _assert_one_line(
        result, "none of its 60 images can be used", "memory that medsass allows", "set MEDSASS_MEMORY higher"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["stopped by SIGTERM and saved", ""])
def test_a_stopped_training_ends_with_exit_code_0_and_its_words(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def stop(_: Any) -> None:
        raise errors.Stopped(text)

    _replace_train(monkeypatch, stop)
    result = _run("train", "s", "r")
    assert result.exit_code == 0
    assert result.stderr == (f"{text}\n" if text else "")


def test_a_failure_of_another_process_ends_with_exit_code_2_and_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise errors.ElsewhereError("elsewhere")

    _replace_train(monkeypatch, fail)
    result = _run("train", "s", "r")
    assert (result.exit_code, result.output) == (2, "")


def test_medsass_trace_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSASS_TRACE", "1")
    assert isinstance(_run("train", "s", "r", "--size", "30").exception, ValueError)


@pytest.mark.usefixtures("light")
def test_an_unreadable_image_gives_exit_code_2_and_the_others_are_written(
    trained: Path, nuclei_folder: Path, tmp_path: Path
) -> None:
    good = sorted((nuclei_folder / "images").iterdir())[0]
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = _run("predict", trained, tmp_path / "bad.png", good, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 2
    assert f"bad.png: not an image file that can be read; {REMEDY}; left out" in result.stderr
    assert result.stdout == f"1 of 2 masks written to {tmp_path / 'out'}\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [good.name]


def test_the_whole_line_runs(nuclei_folder: Path, tmp_path: Path) -> None:
    shards, run, out = tmp_path / "shards", tmp_path / "run", tmp_path / "out"
    steps = [
        _run("shard", nuclei_folder, shards, "--images", "images/*.png", "--masks", "masks/*.png"),
        _run("info", shards, "--preview", tmp_path / "preview.png"),
        _run("train", shards, run, *TINY, "--polarity", "bright"),
    ]
    suggested = steps[-1].stdout.split("Next: medsass ")[1].split()
    assert suggested == ["evaluate", str(run), str(shards)]
    steps += [
        _run(*suggested, "--device", "cpu", "--json", tmp_path / "scores.json"),
        _run("predict", run, nuclei_folder / "images", "--out", out, "--device", "cpu"),
    ]
    assert [step.exit_code for step in steps] == [0] * 5, [step.output for step in steps]
    assert "60 images written" in steps[0].stdout
    assert (tmp_path / "preview.png").is_file()
    assert (tmp_path / "scores.json").is_file()
    assert sorted(path.name for path in out.iterdir()) == sorted(p.name for p in (nuclei_folder / "images").iterdir())
    with Image.open(next(out.iterdir())) as mask:
        assert mask.size == (64, 64)
