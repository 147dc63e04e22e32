"""Atomic writes, and addresses beside local paths."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medsass import errors, files


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    files.write(tmp_path / "a", b"\x00\r\n\xff")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n\xff"


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    files.write(tmp_path / "a", "größer\n")
    assert (tmp_path / "a").read_bytes() == b"gr\xc3\xb6\xc3\x9fer\n"


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("something longer")
    files.write(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "new")]


def test_the_old_content_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with files.atomic(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_content_and_no_other_file(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with files.atomic(tmp_path / "a") as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_first_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), files.atomic(tmp_path / "a"):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        files.write(tmp_path / "none" / "a.json", "x")
    assert "none" in str(error.value.filename)


def test_a_path_is_local_and_an_address_is_not(tmp_path: Path) -> None:
    pytest.importorskip("upath")
    assert files.location(str(tmp_path)) == tmp_path
    assert files.is_local(files.location("a/b"))
    address = files.location("memory://bucket/folder")
    assert not files.is_local(address)
    (address / "a.txt").write_bytes(b"1")
    assert (address / "a.txt").read_bytes() == b"1"


def test_an_unknown_scheme_is_refused() -> None:
    pytest.importorskip("upath")
    with pytest.raises(ValueError, match="nowhere"):
        files.location("nowhere://bucket/folder")


def test_addresses_without_their_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(
        ImportError, match=r"s3://bucket/x: addresses need more packages .* pip install 'medsass\[cloud\]'"
    ):
        files.location("s3://bucket/x")


def test_an_existing_output_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    files.check_new(tmp_path / "a", "OUT", False)
    (tmp_path / "a").write_text("old")
    files.check_new(tmp_path / "a", "OUT", True)
    with pytest.raises(FileExistsError, match=r"/a exists; choose another --out, or replace it with --overwrite$"):
        files.check_new(tmp_path / "a", "--out", False)


def test_an_output_folder_may_hold_files_of_its_command_alone(tmp_path: Path) -> None:
    def is_ours(name: str) -> bool:
        return name.startswith("run")

    assert files.own_content(tmp_path / "none", "RUN", is_ours, "a run's") == []
    for name in ("run2", "run1"):
        (tmp_path / name).touch()
    assert files.own_content(tmp_path, "RUN", is_ours, "a run's") == [tmp_path / "run1", tmp_path / "run2"]
    with pytest.raises(FileExistsError, match=r"run1 is a file; RUN must be a folder$"):
        files.own_content(tmp_path / "run1", "RUN", is_ours, "a run's")
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(
        FileExistsError, match=r"holds files that are not a run's, such as thesis\.docx; choose another"
    ):
        files.own_content(tmp_path, "RUN", is_ours, "a run's")


class PartialCredentialsError(Exception):
    """As botocore's: an error of no class that Python knows."""


class ClientConnectorError(ConnectionError):
    """As aiohttp's."""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (PartialCredentialsError("half\n of them."), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
        (PermissionError("half of them"), "the server refuses: check AWS_ACCESS_KEY_ID"),
        (
            ClientConnectorError("half of them"),
            "check the address and the network and, where the bucket is not Amazon's",
        ),
        (RuntimeError("half of them"), "check the address, the credentials and the network"),
    ],
)
def test_an_error_from_an_address_names_it_and_the_remedy(error: Exception, remedy: str) -> None:
    place = files.location("memory://bucket/x")

    def wrapped() -> None:
        with files.reaching(place, "written"):
            raise OSError("wrapped") from error

    with pytest.raises(files.UnreachableError) as raised:
        wrapped()
    assert str(raised.value).startswith(f"memory://bucket/x cannot be written (half of them); {remedy}")


def test_a_file_that_is_missing_and_local_errors_stay_what_they_are(tmp_path: Path) -> None:
    for place, error in ((files.location("memory://x"), FileNotFoundError("gone")), (tmp_path, PermissionError("no"))):
        with pytest.raises(type(error), match=str(error)), files.reaching(place):
            raise error
    assert not files.is_file(files.location("memory://bucket/none"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a named pipe, and no file; copy its content into a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, and no file; copy its content into a file"),
        (lambda path: path.mkdir(), "it is a folder; name a file"),
        (lambda path: path.write_bytes(bytes(1025)), "it has more than the 1024 bytes that such a file may have"),
    ],
)
def test_what_is_no_small_file_is_not_read(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    make(path)
    with pytest.raises(OSError, match=said) as error:
        files.read(path, 1024)
    assert errors.line(error.value, "train").startswith(f"{path}: it ")  # type: ignore[union-attr]


def test_small_files_are_read_also_by_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1024))
    (tmp_path / "b").symlink_to("a")
    assert files.read(tmp_path / "b", 1024) == bytes(1024)
