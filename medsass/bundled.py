"""What ships with the package: the data folders `kernels/` and `shards/`, inside an installed package or beside it in a
checkout, and the training methods.

`importlib.resources` does not find mapped package directories of editable installs, hence two plain candidates.
"""

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Path of the bundled folder `name` ("kernels" or "shards"). Raises `FileNotFoundError` in a broken install."""
    candidates = (_PACKAGE / name, _PACKAGE.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ not found at {' or '.join(map(str, candidates))}: reinstall medsass")


def methods() -> tuple[str, ...]:
    """Names of the training methods: the modules in methods/ with a function `build` of a `TrainConfig`, found in their text
    without importing any; an underscore of the module is a hyphen of the name.
    """
    paths = sorted((_PACKAGE / "methods").glob("*.py"))
    found = re.compile(r"^def build\(\s*config: TrainConfig", re.MULTILINE)
    return tuple(path.stem.replace("_", "-") for path in paths if found.search(path.read_text("utf-8")))
