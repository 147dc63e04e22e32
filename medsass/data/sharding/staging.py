"""The staging folder of a dataset: written beside OUT, and moved into its place when it is complete.

Until then OUT keeps what it held, whatever happens. The folder stays when a run is interrupted, for --resume. For an OUT
in object storage it is `<name>.part` in the current folder: each finished tar file is uploaded and removed here, and the
manifest is uploaded last.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medsass import files, temporary
from medsass.config.options import SPLIT
from medsass.data.sharding import journal
from medsass.data.sharding.journal import Journal
from medsass.data.sharding.levels import MasksError
from medsass.data.shards import manifest
from medsass.data.shards.tar import Shard

_OURS = re.compile(
    rf"({re.escape(manifest.NAME)}|{re.escape(manifest.REJECTED)}|{re.escape(journal.NAME)}(-journal)?|fetched"
    rf"|{SPLIT}-\d{{6}}\.(tar|idx|crc))(\.part)?"
)


class MismatchError(ValueError):
    """An interrupted run cannot be resumed with these options, or from this source. What was written stays."""


class Staging:
    """The staging `folder` of `out` with its `journal`.

    `copies` is a folder in it for temporary files and copies of remote ones; `excluded` are the folders that do not belong to a source, even
    where they are inside it.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self.out, self.folder = out, folder
        self.journal = Journal(folder / journal.NAME)
        self.copies = folder / "fetched"
        with suppress(OSError):
            temporary.remove(self.copies)  # of a run that was killed
        self.copies.mkdir()
        self.excluded = apart(out)

    def finish(self, split: str, shard: Shard, position: tuple[int, int]) -> None:
        """Upload a finished tar file where OUT is remote, and enter it in the journal."""
        if not files.is_local(self.out):
            self._upload(*(Path(shard.file).with_suffix(suffix).name for suffix in (".tar", ".idx", ".crc")))
        self.journal.finish(split, shard, position)

    def close(self) -> None:
        """Close the journal, and remove temporary files."""
        with suppress(OSError):
            temporary.remove(self.copies)
        self.journal.close()

    def publish(self) -> None:
        """Put the complete folder in OUT's place."""
        if not files.is_local(self.out):
            self._upload(manifest.REJECTED, manifest.NAME)
            self.close()
            remove(self.folder)
            return
        self.close()
        (self.folder / journal.NAME).unlink()
        _swap(self.folder, self.out)

    def _upload(self, *names: str) -> None:
        fs = self.out.fs  # type: ignore[attr-defined]
        with files.reaching(self.out, "written"):
            fs.makedirs(self.out.path, exist_ok=True)  # type: ignore[attr-defined]
        for name in names:
            with files.reaching(self.out / name, "written"):
                fs.put_file(str(self.folder / name), (self.out / name).path)  # type: ignore[attr-defined]
            (self.folder / name).unlink()


def apart(out: Path) -> tuple[Path, ...]:
    """Return the folders that belong to no source, even where they are inside it."""
    return (_part(out), out, _old(out)) if files.is_local(out) else (_part(out),)


@contextmanager
def opened(out: Path, *, resume: bool, overwrite: bool) -> Iterator[Staging | None]:
    """Lock and yield the staging folder of `out`, None where `resume` finds the dataset finished.

    Where the block fails, the folder is removed if no tar file in it is finished; otherwise it stays, and the error says
    how to resume. Raises `FileExistsError` where another process writes it, where `out` holds anything and `overwrite` is
    not set, and where an interrupted run's folder exists and neither `resume` nor `overwrite` is set.
    """
    out = out.resolve() if files.is_local(out) else out  # a link keeps pointing at the folder
    folder = _part(out)
    files.refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.refuse_links(*folder.iterdir(), *([_old(out)] if files.is_local(out) else []))
    with temporary.locked(folder, str(out), "medsass shard"):
        if _make_ready(out, folder, resume=resume, overwrite=overwrite):
            with _reporting(out, folder) as staging:
                yield staging
        else:
            yield None


def _make_ready(out: Path, folder: Path, *, resume: bool, overwrite: bool) -> bool:
    """Prepare `folder` for writing. Returns False where the dataset is complete and in its place.

    Raises `FileExistsError`.
    """
    begun = any(path.name != temporary.LOCK for path in folder.iterdir())
    try:
        if begun and not (resume or overwrite):
            raise FileExistsError(
                f"{folder} holds what an interrupted run has written; go on with --resume, or start again with --overwrite"
            )
        finished = files.is_file(out / manifest.NAME)
        if resume and not begun and finished:
            if files.is_local(out):
                remove(_old(out))
                (out / temporary.LOCK).unlink(missing_ok=True)  # as in `_swap`
            remove(folder)
            return False
        may_hold = begun or overwrite
        if not files.is_local(out):
            if finished and not may_hold:
                raise FileExistsError(
                    f"{out} holds shards already; choose another address, or replace them with --overwrite"
                )
        elif files.own_content(out, "OUT", _is_ours, "shards") and not may_hold:
            raise FileExistsError(f"{out} is not empty; choose another folder, or replace its shards with --overwrite")
        elif out.is_mount():
            raise FileExistsError(f"{out} is a mount point and cannot be replaced; take a folder inside of it as OUT")
    except (FileExistsError, files.UnreachableError):
        if not begun:
            remove(folder)
        raise
    if overwrite:
        if files.is_local(out) and _old(out).is_dir() and not out.exists():
            _old(out).replace(out)  # killed between the two steps of `_swap`: keep the old dataset
        remove(folder, keep=True)
        if not files.is_local(out):
            (out / manifest.NAME).unlink(missing_ok=True)  # a half-replaced dataset must not look complete
    elif (folder / manifest.NAME).is_file() and not (folder / journal.NAME).is_file():
        _swap(folder, out)  # killed just before this step
        return False
    return True


@contextmanager
def _reporting(out: Path, folder: Path) -> Iterator[Staging]:
    """Open the staging in `folder`; an error becomes one line that says what is kept, and how to resume."""
    try:
        staging = Staging(out, folder)
    except sqlite3.Error as error:
        raise OSError(f"{folder / journal.NAME}: {error}; start again with --overwrite") from error
    try:
        yield staging
    except MismatchError:
        staging.close()
        raise
    except MasksError as error:  # what is written goes by a rule that the masks contradict
        staging.close()
        remove(folder)
        raise ValueError(str(error)) from error
    except BaseException as error:
        finished = len(staging.journal.shards())
        staging.close()
        if not finished:
            remove(folder)
        if isinstance(error, KeyboardInterrupt):
            kept = f"{finished} finished tar files are kept in {folder}: go on with --resume"
            raise KeyboardInterrupt(kept if finished else "nothing was kept; start again") from error
        if not isinstance(error, (ValueError, OSError, sqlite3.Error)):
            raise
        reason = str(error)
        if isinstance(error, sqlite3.Error):
            reason = f"{folder / journal.NAME}: {error}"
        elif isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename or folder}: {error.strerror}"
        if finished:
            kept = f"{finished} finished tar files are kept in {folder}"
            raise ValueError(f"{reason}; {kept}: go on with --resume") from error
        if reason == str(error):
            raise
        raise (OSError if isinstance(error, sqlite3.Error) else type(error))(reason) from error


def _swap(folder: Path, out: Path) -> None:
    """Put a finished folder in the place of `out`."""
    old = _old(out)
    if out.is_dir():
        remove(old)  # left over from a swap that was killed
        out.replace(old)
    folder.replace(out)
    (out / temporary.LOCK).unlink(missing_ok=True)  # last, so that no other process writes meanwhile
    remove(old)


def _part(out: Path) -> Path:
    """Return where a dataset is while it is written."""
    return out.with_name(f"{out.name}.part") if files.is_local(out) else Path.cwd() / f"{out.name}.part"


def _old(out: Path) -> Path:
    """Return where the old dataset is while a new one takes its place."""
    return out.with_name(f"{out.name}.old")


def remove(folder: Path, keep: bool = False) -> None:
    """Remove from a shard folder only what medsass wrote, and the folder itself unless `keep`."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _is_ours(path.name) and not (keep and path.name == temporary.LOCK):
            temporary.remove(path)
    if not keep:
        folder.rmdir()


def _is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None or temporary.is_ours(name)
