"""constraints.txt against pyproject.toml: what `make` installs is pinned, and to a version that the project allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_package_that_make_installs_is_pinned_to_an_allowed_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(pin.name): pin for pin in (Requirement(line) for line in lines if line[0] != "#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: list(map(Requirement, items)) for name, items in project["optional-dependencies"].items()}
    left, asked = {"cuda13", "dev"}, list(map(Requirement, project["dependencies"]))
    while left:
        needed = extras[left.pop()]
        left |= {extra for item in needed if item.name == "medsass" for extra in item.extras}
        asked += [item for item in needed if item.name != "medsass"]
    assert len(asked) > 40
    for item in asked:
        (pin,) = pins[canonicalize_name(item.name)].specifier
        assert pin.operator == "=="
        assert item.specifier.contains(pin.version), f"{item} and {pin}"
