"""The data folders that ship with the package, `kernels/` and `shards/`: inside an installed package, or beside it in a
checkout.

`importlib.resources` does not find mapped package directories of editable installs, hence two plain candidates.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Return the path of the bundled folder "kernels" or "shards". Raises `FileNotFoundError` in a broken install."""
    candidates = (_PACKAGE / name, _PACKAGE.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ not found at {' or '.join(map(str, candidates))}: reinstall medsass")
