"""README, CONTRIBUTING and the guides against the commands, recipes and files that they name, and against one another."""

import re
import tomllib
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from medsass import cli
from medsass.config import METHODS, ShardConfig, refine
from medsass.data.formats import kinds
from medsass.data.sharding import recipe, shard

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PAGES}
FORMATS, LABELS = TEXTS["docs/guides/formats.md"], TEXTS["docs/guides/labels.md"]
EVERYTHING = "\n".join(TEXTS.values())


@pytest.mark.parametrize("page", TEXTS)
def test_every_command_and_option_exists(page: str) -> None:
    shell = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", TEXTS[page], re.DOTALL))
    for command, rest in re.findall(r"^(?:\$ )?medsass (\w+)(.*)$", shell, re.MULTILINE):
        known = {name for parameter in cli.main.commands[command].params for name in parameter.opts}
        used = set(re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0]))
        assert used <= known, (command, used - known)


def test_every_option_named_in_a_sentence_exists() -> None:
    known = {name for command in cli.main.commands.values() for parameter in command.params for name in parameter.opts}
    known |= {name for command in cli.main.commands.values() for p in command.params for name in p.secondary_opts}
    known |= {"--max-restarts"}  # of torchrun
    for page in ("README.md", *(name for name in TEXTS if "guides" in name)):
        used = set(re.findall(r"`(--[a-z-]+)", TEXTS[page]))
        assert used <= known, (page, used - known)


def test_every_command_is_in_the_guides_and_has_no_undocumented_option() -> None:
    for name, command in cli.main.commands.items():
        assert f"medsass {name}" in EVERYTHING or f"make {name}" in EVERYTHING, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.name)


@pytest.mark.parametrize("page", TEXTS)
def test_links_between_files_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXTS[page]):
        target = (ROOT / page).parent / link
        assert target.exists() or "docs/api/" in str(target.resolve()), link


def test_the_example_recipe_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", FORMATS, re.DOTALL)
    assert recipe.parse(tomllib.loads(example)).name == "kidney"


def test_the_tables_name_every_bundled_recipe_refinement_step_method_and_suffix() -> None:
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| \w+ \|$", FORMATS, re.MULTILINE)) == set(recipe.names())
    steps = re.findall(r"^\| (`.+?) \|", LABELS.split("## Refinement")[1].split("\n## ")[0], re.MULTILINE)
    assert set(re.findall(r"`(\w+)(?::\w+)?`", " ".join(steps))) == set(refine.STEPS)
    rows = re.findall(r"^\| (`.+?) \|", TEXTS["docs/guides/paper.md"], re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", " ".join(rows))) == set(METHODS)
    formats = FORMATS.split("## Folders")[0].upper()
    for suffix in kinds.SUFFIXES:
        assert suffix[1:].upper() in formats, suffix


LAYOUTS = {  # options of the guides' tables -> the files that they are for, images first, and the number of images
    "": (["photos/a.png"], 1),
    "--images 'images/*' --masks 'masks/*'": (["images/a.png", "masks/a.png"], 1),
    "--images 'images/**/*' --masks 'outlines/**/*'": (["images/p1/001.png", "outlines/p1/001.png"], 1),
    "--images '*_img.tif' --masks '*_truth.tif'": (["001_img.tif", "001_truth.tif"], 1),
    "--images '*/image.png' --masks '{dir}/outline.png'": (["case1/image.png", "case1/outline.png"], 1),
    "--images '*/t*.png' --masks '{dir}/truth.png'": (["case1/t1.png", "case1/t2.png", "case1/truth.png"], 2),
}


@pytest.mark.parametrize("options", LAYOUTS)
def test_folder_layouts_pair_as_the_tables_say(options: str, tmp_path: Path) -> None:
    assert not options or f"`{options}`" in TEXTS["README.md"] + FORMATS
    names, count = LAYOUTS[options]
    for i, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 255 if i >= count else 90 + i
        cv2.imwrite(str(path), np.pad(np.full((8, 8), level, np.uint8), 4))
    images, masks = (re.search(rf"--{name} '(.*?)'", options) for name in ("images", "masks"))
    given = {"images": images[1] if images else "", "masks": masks[1] if masks else ""}
    made = shard.write(ShardConfig(tmp_path, tmp_path / "out", **given))
    assert sum(split.samples for split in made.splits.values()) == count
    assert sum(split.masks for split in made.splits.values()) == (count if masks else 0)


def test_the_python_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", TEXTS["docs/guides/python.md"], re.DOTALL):
        exec(block, {})
    assert len(list(Path("predictions").iterdir())) == 40
