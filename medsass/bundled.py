"""Where the data folders `kernels/` and `shards/` are: inside an installed package, or beside it in a checkout.

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
