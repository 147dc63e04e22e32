"""Import lightly, an optional dependency: heads, patch utilities and LARS of the self-supervised baselines."""

import importlib
from typing import Any


def import_lightly(module: str) -> Any:
    """Import a module of lightly, such as "models.utils". Raises `ImportError` that says what to install."""
    try:
        return importlib.import_module(f"lightly.{module}")
    except ImportError as error:
        raise ImportError("the self-supervised baselines need lightly: pip install 'medsass[baselines]'") from error
