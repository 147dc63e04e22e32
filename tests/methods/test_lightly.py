import subprocess
import sys
from pathlib import Path

import pytest

from medsass.methods import method
from medsass.methods.lightly import import_lightly
from tests.methods import baselines


def test_without_lightly_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly.models.utils", None)
    with pytest.raises(ImportError, match=r"need lightly: pip install 'medsass\[baselines\]'"):
        import_lightly("models.utils")


def test_lightly_is_imported_for_baselines_alone_and_never_with_lightning() -> None:
    code = f"""
import sys
sys.modules["pytorch_lightning"] = sys.modules["lightning"] = None  # an import of either would raise
from tests.methods.baselines import made
made("medsass", "unet-resnet18")
made("supervised", "unet-resnet18")
assert "lightly" not in sys.modules
for name, model in {baselines.KINDS}:
    made(name, model)
assert "lightly" in sys.modules
"""
    root = Path(method.__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], check=True, cwd=root)
