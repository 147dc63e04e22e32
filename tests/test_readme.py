"""README against the repository: its tree, commands, recipe and tables."""

import re
import tomllib
from pathlib import Path

import click

from benchmarks import readme
from medsass import cli
from medsass.data.sharding import recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def _tree() -> set[str]:
    """Paths of README's file tree."""
    block = TEXT.split("## Where things are", 1)[1].split("```")[1]
    folders: list[str] = []
    paths = set()
    for line in block.strip().splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth]
        paths.add("".join(folders) + name)
        if name.endswith("/"):
            folders.append(name)
    return paths


def test_every_path_of_the_tree_exists() -> None:
    assert [path for path in sorted(_tree()) if not (ROOT / path).exists()] == []


def test_every_command_and_option_in_the_readme_exists() -> None:
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
    lines = re.findall(r"^medsass (\w+)(.*)$", shell, re.MULTILINE)
    assert {"shard", "info", "train", "evaluate", "predict", "doctor"} <= {command for command, _ in lines}
    for command, rest in lines:
        known = {name for parameter in cli.main.commands[command].params for name in parameter.opts}
        used = set(re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0]))
        assert used <= known, (command, used - known)


def test_every_command_is_in_the_readme() -> None:
    assert [name for name in cli.main.commands if f"medsass {name}" not in TEXT and name != "demo"] == []


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z]+)\b(?=   #|`)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_example_recipe_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert recipe.parse(tomllib.loads(example)).name == "kidney"


def test_the_recipe_table_names_every_bundled_recipe() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == set(recipe.names())


def test_tables_show_the_results() -> None:
    assert readme.render(TEXT) == TEXT


def test_no_command_has_an_undocumented_option() -> None:
    for command in cli.main.commands.values():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)
