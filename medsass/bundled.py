"""What ships with the package: the data folders `kernels/` and `shards/`, inside an installed package or beside it in a
checkout, and the training methods.

`importlib.resources` does not find mapped package directories of editable installs, hence two plain candidates.
"""

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
    """Names of the training methods: the modules in methods/ with a function `build`, found without importing any."""
    paths = sorted((_PACKAGE / "methods").glob("*.py"))
    return tuple(path.stem for path in paths if "\ndef build(config: TrainConfig" in path.read_text("utf-8"))
