"""The files below a folder, whose links are followed within it alone. Folders may be of any depth, and links in circles."""

import errno
import os
import stat
from collections import Counter, deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from medsass import files
from medsass.data.formats import kinds
from medsass.data.formats.damage import UnreadableError

OUTSIDE = "a symbolic link that leads out of the folder; put a copy in its place, or take --follow-links"


class Found(NamedTuple):
    """A file, or a Zarr folder.

    Attributes:
        path: below the folder that is walked.
        status: of the file; None where it is not to be read.
        fault: why that is.
        folder: whether it is a folder, none of whose files are listed.
    """

    path: str
    status: os.stat_result | None
    fault: str = ""
    folder: bool = False


def walk(
    root: Path, *, excluded: Collection[tuple[int, int]] = (), deep: int | None = None, follow: bool = False
) -> Iterator[Found]:
    """Yield the files below a folder, without those that are hidden or that systems leave behind.

    A link to a folder is followed once, where it stands: not below another link, and not back up to a folder that it is in.

    Args:
        root: the folder, which may be a link.
        excluded: device and inode of folders that are left out.
        deep: folders below one another that are entered, all by default.
        follow: whether links are followed that lead out of `root`.

    Raises:
        OSError: where a folder cannot be read.
    """
    real, links, below = os.path.realpath(root), deque[str](), [""]
    followed = set[tuple[int, int]]()
    while below or links:
        above = below.pop() if below else links.popleft()
        folders, own_links = [], []
        try:
            with os.scandir(f"{root}/{above}") as entries:
                for entry in entries:
                    path = above + entry.name
                    try:
                        status = entry.stat()
                    except OSError as error:
                        if entry.is_symlink() and not kinds.is_junk(entry.name):
                            yield Found(path, None, f"a broken link: {error.strerror}")
                        continue  # or it has gone meanwhile
                    if kinds.is_junk(entry.name) or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                        continue
                    is_folder, is_link = stat.S_ISDIR(status.st_mode), entry.is_symlink()
                    target = os.path.realpath(entry.path) if is_link else ""
                    if is_link and not (follow or files.is_below(target, real)):
                        yield Found(path, None, OUTSIDE, is_folder)
                    elif not is_folder or kinds.is_zarr(Path(entry.path)):
                        yield Found(path, status)
                    elif identity(status) in excluded or (deep is not None and path.count("/") >= deep):
                        continue
                    elif not is_link:
                        folders.append(f"{path}/")
                    elif (own := identity(entry.stat(follow_symlinks=False))) not in followed and not files.is_below(
                        os.path.realpath(f"{root}/{above}"), target
                    ):
                        followed.add(own)
                        own_links.append(f"{path}/")
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            yield Found(above.rstrip("/"), None, f"{error.strerror}; move it further up", folder=True)
        below += sorted(folders, reverse=True)
        links += sorted(own_links)


def refuse_part(path: Path, folder: Path) -> None:
    """Raise `UnreadableError` where a part of an image, such as its voxels, leads by a link out of `folder` and out of the source."""
    real, roots = os.path.realpath(path), [str(folder), *filter(None, [os.environ.get(files.SOURCE)])]
    if os.environ.get(files.FOLLOW) != "1" and not any(files.is_below(real, os.path.realpath(root)) for root in roots):
        raise UnreadableError(
            f"{path.name}, a part of it, is a link that leads out of its folder; put a copy in its place (cp -rL), or set {files.FOLLOW}=1"
        )


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return device and inode of a file."""
    return status.st_dev, status.st_ino


def images(folder: Path, *, follow: bool = False) -> tuple[list[Path], Counter[str], list[str]]:
    """Return the images below a folder, sorted, how many other files there are of each sort, and links that are not followed.

    A Zarr folder is one image; files in it are not looked at. A broken link is an image, of which it is said that it cannot
    be read.
    """
    found, others, outside = set(), [], []
    for each in walk(folder, follow=follow):
        path = folder / each.path
        if each.folder or each.fault == OUTSIDE:
            outside.append(each.path)
        elif (each.status and stat.S_ISDIR(each.status.st_mode)) or kinds.kind(kinds.head(path), path):
            found.add(path)
        else:
            others.append(path)
    alone = (path for path in others if not any(Path(header) in found for header in kinds.headers(str(path))))
    passed = Counter(path.suffix.lower() or "without a suffix" for path in alone)
    return sorted(found), passed, sorted(outside)


def told(passed: Counter[str]) -> str:
    """Return one line on the files that were passed over, or ""."""
    if not passed:
        return ""
    sorts = ", ".join(
        f"{count} {suffix}" for suffix, count in sorted(passed.items(), key=lambda item: (-item[1], item[0]))
    )
    return f"{passed.total()} files passed over, because they are no images that can be read: {sorts}"
