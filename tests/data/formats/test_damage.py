"""Whatever a decoder raises becomes one line with the rule and the remedy; errors of the machine pass."""

import errno
import lzma
import pickle
from pathlib import Path

import pytest

from medsass.data.formats.damage import REMEDY, DamagedError, readable
from medsass.data.formats.opening import open_image


@pytest.mark.parametrize(("error", "message"), [
    (OSError("image file is truncated"), "image file is truncated"),
    (OSError(errno.EINVAL, "Invalid argument"), r"\[Errno 22\] Invalid argument"),
    (KeyError("tag"), "KeyError: 'tag'"),
    (AssertionError(), "AssertionError: AssertionError"),
    (RuntimeError("two\n lines"), "two lines"),
    (RuntimeError("p)\x12p \x7f\x1b[31m"), r"p\) p \[31m"),
    (lzma.LZMAError("Corrupt input data"), "Corrupt input data"),
    (ValueError(), "ValueError"),
    (RuntimeError("a" * 10_000), "a{200}"),
])  # fmt: skip
def test_what_decoders_raise_becomes_one_line(error: Exception, message: str) -> None:
    with pytest.raises(ValueError, match=f"^damaged, or of an unknown sort \\({message}\\); {REMEDY}$"), readable():
        raise error


@pytest.mark.parametrize("error", [
    FileNotFoundError(errno.ENOENT, "gone"), OSError(errno.ENOSPC, "full"), ImportError("x"), MemoryError(),
])  # fmt: skip
def test_errors_of_the_machine_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, readable():
        raise error
    assert caught.value is error


def test_a_decoder_that_stumbles_is_a_broken_file_and_a_missing_file_stays_missing(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"II*\0garbagegarbage")
    with pytest.raises(ValueError, match=r"\(IndexError: .*\); copy it again"):
        open_image(tmp_path / "broken.tif")
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none.tif")


def test_the_remedy_is_said_once_also_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(DamagedError("truncated")))
    with pytest.raises(DamagedError, match=f"^truncated; {REMEDY}$"), readable(), readable():
        raise error
