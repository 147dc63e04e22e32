"""The house rules of ARCHITECTURE.md, read from the imports themselves."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "medsass"
PILLARS = {"data", "labels", "models"}
LAYERS = ({"bundled", "doctor", "files"}, {"config"}, PILLARS, {"methods"}, {"runs"}, {"cli"}, {"__main__"})
COMMANDS = {"train", "evaluate", "predict", "probe", "label", "info", "demo", "experiment", "export"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {_name(path) for path in MODULES}


def _imports(path: Path) -> set[str]:
    """All modules that a file imports anywhere, of this project as far down as they are modules."""
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
    """The layer's member: 'runs' of medsass.runs.train, '' of medsass itself."""
    return module.split(".")[1] if "." in module else ""


def _level(part: str) -> int:
    return next(level for level, members in enumerate(LAYERS) if part in members)


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


def test_only_demo_and_experiment_import_other_commands() -> None:
    for path in sorted((PACKAGE / "runs").glob("*.py")):
        if path.stem not in {"demo", "experiment"}:
            commands = {name for name in _imports(path) if name.startswith("medsass.runs.")}
            assert {name.split(".")[2] for name in commands} & COMMANDS == set(), path


def test_nothing_imports_the_benchmarks_or_the_tests() -> None:
    for path in MODULES:
        assert {module.split(".")[0] for module in _imports(path)} & {"benchmarks", "tests"} == set(), path


def test_a_module_of_the_package_itself_imports_nothing_heavy() -> None:
    assert _imports(PACKAGE / "__init__.py") == set()


def test_tests_mirror_the_folders() -> None:
    """test_NAME.py, or test_NAME_TOPIC.py where the tests of a module fill several files."""
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        words = path.stem.split("_")[1:]
        names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
        modules = [folder / path.parent.name / f"{name}.py" for folder in (PACKAGE, ROOT) for name in names]
        kernels = [ROOT / path.parent.name / f"{name}.cu" for name in names]
        assert any(file.is_file() for file in modules + kernels), path


def test_kernels_and_shards_are_no_packages_of_their_own() -> None:
    for folder in ("kernels", "shards"):
        assert list((ROOT / folder).rglob("*.py")) == []
        assert not (PACKAGE / f"{folder}.py").exists()
