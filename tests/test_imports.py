"""The rules of docs/architecture.md on imports, folders and file lengths, checked against the files themselves."""

import ast
import re
import tomllib
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medsass"
PILLARS = {"data", "labels", "models"}
LAYERS = (
    {"temporary", "text", "web"},
    {"budget", "bundled", "doctor", "errors", "files", "foreign"},
    {"config", "parameters"},
    PILLARS,
    {"methods"},
    {"runs"},
    {"cli"},
    {"__main__"},
)
ROOMS = {  # inside data/ and runs/, from the lowest floor up
    "data": ({"dali", "formats", "shards", "synthetic"}, {"loading", "sharding"}),
    "runs": (
        {"console", "device", "distributed", "figures", "image_files", "run_directory"},
        {"preflight"},
        {"info", "label", "prediction", "scoring", "tuning"},
        {"export", "training"},
        {"demo", "experiment"},
    ),
}
COMMANDS = {
    "export.export",
    "info",
    "label",
    "prediction.predict",
    "scoring.evaluate",
    "scoring.probe",
    "training.train",
    "tuning.tune",
}
MOST_LINES = 300  # of a file
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {_name(path) for path in MODULES}


def _imports(path: Path) -> set[str]:
    """Return all modules that a file imports anywhere; of this project's packages, the modules within them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in NAMES else node.module)
    return found


def _part(module: str) -> str:
    """Return the part of a module: 'runs' for medsass.runs.training.train, '' for medsass itself."""
    return module.split(".")[1] if "." in module else ""


def _level(part: str, floors: Sequence[set[str]] = LAYERS) -> int:
    return next(level for level, members in enumerate(floors) if part in members)


IDS = [_name(path) for path in MODULES]


def test_imports_are_found() -> None:
    assert "medsass.labels.labeler" in _imports(PACKAGE / "labels" / "__init__.py")
    assert "medsass.runs.console" in _imports(PACKAGE / "cli.py")  # inside a function
    assert "medsass.files" in _imports(PACKAGE / "models" / "checkpoint.py")  # from medsass import files


def test_every_module_stands_in_a_layer() -> None:
    assert {_part(name) for name in NAMES} - {""} == set().union(*LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=IDS)
def test_imports_run_down_the_list_only(path: Path) -> None:
    here = _part(_name(path))
    for module in _imports(path):
        if module.split(".")[0] == "medsass" and _part(module):
            assert here, f"medsass/__init__.py imports {module}"
            assert _part(module) == here or _level(_part(module)) < _level(here), module


def test_data_labels_and_models_never_import_one_another() -> None:
    for path in MODULES:
        here = _part(_name(path))
        if here in PILLARS:
            others = {_part(module) for module in _imports(path) if module.startswith("medsass.")} & PILLARS
            assert others <= {here}, path


@pytest.mark.parametrize("layer", ROOMS)
def test_rooms_import_lower_floors_only(layer: str) -> None:
    floors = ROOMS[layer]
    paths = [path for path in MODULES if path.parts[len(PACKAGE.parts)] == layer and _name(path).count(".") > 1]
    assert {_name(path).split(".")[2] for path in paths} == set().union(*floors)
    for path in paths:
        here = _name(path).split(".")[2]
        rooms = {name.split(".")[2] for name in _imports(path) if name.startswith(f"medsass.{layer}.")} - {here}
        assert all(_level(room, floors) < _level(here, floors) for room in rooms), path


def test_no_modules_import_in_a_circle() -> None:
    graph = {_name(path): _imports(path) & NAMES - {"medsass"} for path in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES) - 1  # raises CycleError


def test_only_demo_and_experiment_import_other_commands() -> None:
    commands = {f"medsass.runs.{command}" for command in COMMANDS}
    assert commands < NAMES
    for path in sorted((PACKAGE / "runs").rglob("*.py")):
        if _name(path).split(".")[2:3] not in (["demo"], ["experiment"]):
            assert not _imports(path) & commands - {_name(path)}, path


def test_nothing_imports_the_benchmarks_or_the_tests() -> None:
    for path in MODULES:
        assert {module.split(".")[0] for module in _imports(path)} & {"benchmarks", "tests"} == set(), path


def test_a_module_of_the_package_itself_imports_nothing_heavy() -> None:
    assert _imports(PACKAGE / "__init__.py") == set()


def test_tests_mirror_the_folders() -> None:
    """test_NAME.py, or test_NAME_TOPIC.py where the tests of a module fill several files."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.parent.relative_to(ROOT / "tests")
        if str(folder) in (".", "benchmarks", "datasets", "faults"):
            continue  # of several modules
        words = path.stem.split("_")[1:]
        names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
        modules = [PACKAGE / folder / f"{name}.py" for name in names]
        kernels = [ROOT / folder / f"{name}.cu" for name in names]
        assert any(file.is_file() for file in modules + kernels), path


def test_no_file_is_long() -> None:
    for folder in ("medsass", "kernels", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cu", ".cuh", ".h", ".cpp"):
                name, lines = path.relative_to(ROOT).as_posix(), path.read_text("utf-8").count("\n")
                assert lines <= MOST_LINES, f"{name} has {lines} lines"


def test_every_package_is_installed() -> None:
    """setuptools is given packages by name, because two of them lie outside of medsass/."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    found = {_name(path) for path in PACKAGE.rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"medsass.kernels", "medsass.shards"})


def test_kernels_and_shards_are_no_packages_of_their_own() -> None:
    for folder in ("kernels", "shards"):
        assert list((ROOT / folder).rglob("*.py")) == []
        assert not (PACKAGE / f"{folder}.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_that_a_file_says_is_run(path: Path) -> None:
    forbidden = r"(?<![.\w])(eval|exec|__import__)\(|pickle\.(load|Unpickler)|yaml|shell=True|os\.(system|popen)|weights_only=False"
    assert re.findall(forbidden, path.read_text("utf-8")) == []
