"""docs/architecture.md against the repository: the paths that it names, and the modules that it must name."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def _tree() -> set[str]:
    """Return all paths of the tree, whose lines are indented by two spaces a folder."""
    folders: list[str] = []
    paths = set()
    for line in TEXT.split("## The tree", 1)[1].split("```")[1].strip("\n").splitlines():
        if line.startswith(" " * 20):  # the phrase of the line above goes on
            continue
        name = line.split()[0]
        folders[(len(line) - len(line.lstrip())) // 2 :] = [name]
        paths.add("".join(folders))
    return paths


def test_every_path_exists() -> None:
    """A path is named from the root, or from medsass/."""
    named = _tree() | set(re.findall(r"`([\w.-]+(?:/[\w.-]*)+|\w+\.py)`", TEXT))
    assert len(named) > 100
    assert [
        path for path in sorted(named) if not (ROOT / path).exists() and not (ROOT / "medsass" / path).exists()
    ] == []


def test_every_module_stands_in_the_tree() -> None:
    for folder, pattern in (("medsass", "*.py"), ("kernels", "*.cu*"), ("benchmarks", "*.py")):
        found = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)}
        modules = {path for path in found if not path.endswith("__init__.py") and "/support/" not in path}
        assert sorted(modules - _tree()) == [], f"not in docs/architecture.md, section 'The tree': {folder}"


def test_each_walk_counts_its_files() -> None:
    walks = re.findall(r"^## Walk \d: [^\n]*\((\d+) files\)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert len(walks) == 4
    for count, text in walks:
        files = re.findall(r"\((\d+)\) `([\w/]+\.py)`", text)
        assert sorted(int(number) for number, _ in files) == list(range(1, int(count) + 1))
        assert len({path for _, path in files}) == int(count)
