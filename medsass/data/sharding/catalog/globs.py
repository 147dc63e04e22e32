"""Globs of images and masks below a source: braces, placeholders, and what the wildcards stand for in a path.

`{stem}`, `{name}`, `{dir}` and `{folder}` in a pattern of masks are filled in for each image. Names are compared in Unicode's NFC,
because macOS and others write accents differently.
"""

import glob
import re
from collections.abc import Sequence
from functools import lru_cache
from unicodedata import normalize

from medsass.data.sharding import patterns
from medsass.data.sharding.catalog.listing import MAGIC
from medsass.data.sharding.catalog.names import stem

PLACEHOLDER = re.compile(r"\{(stem|name|dir|folder)\}")
_PLACEHOLDERS = ("stem", "name", "dir", "folder", "number", "key")
_UNKNOWN = re.compile(rf"\{{(?!(?:{'|'.join(_PLACEHOLDERS)})\}})[^{{}}]*\}}")
_FILLED = re.compile(rf"\{{(?:{'|'.join(_PLACEHOLDERS)})\}}")
_TOKEN = re.compile(r"\{(?:stem|key)\}|\*+|\?|\[!?\]?[^\]]*\]")
_STEPS = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")  # that are resolved: empty ones, . and ..


class Glob:
    """A glob of images or masks; `{stem}` in it is a wildcard within a name that says what an image's stem is, and `{key}` one
    that ends at the first dot.

    Attributes:
        pattern: the glob with `*` for `{stem}` and `{key}`.
        keyed: whether it has a `{key}`.
        fits: whether a path matches.
    """

    def __init__(self, pattern: str) -> None:
        self._text, self.keyed = pattern, "{key}" in pattern
        self.pattern = pattern.replace("{stem}", "*").replace("{key}", "*")
        folder, _, name = pattern.rpartition("/")
        name = name if name == "**" or self.keyed else stem(name)
        above = "".join(
            "((?:[^/]+/)*)" if step == "**" else _translated(step) + "/" for step in folder.split("/") if step
        )
        try:
            text = above + ("(.*)" if name == "**" else _translated(name))
            self._match = patterns.compiled(pattern, text).fullmatch
            self.fits = self._match if self.keyed else patterns.fits(self.pattern)
        except ValueError as error:
            raise ValueError(
                f"'{pattern}' is no glob ({error}); [ab] is one of some letters, and {{stem}} or {{key}} stands in it once"
            ) from error

    def _found(self, path: str) -> "re.Match[str] | None":
        folder, slash, name = path.rpartition("/")
        found: re.Match[str] | None = self._match(path if self.keyed else folder + slash + stem(name))
        return found

    def wildcards(self, path: str) -> str | None:
        """Return what the wildcards stand for in a path, None where it does not match."""
        if (found := self._found(path)) is None:
            return None
        texts = found.groups()[: found.re.groupindex["stem"] if self.keyed else None]
        return normalize("NFC", "\0".join(text.rstrip("/") for text in texts))

    def stem(self, path: str) -> str:
        """Return what `{stem}` or `{key}` stands for in a path, or the path's own stem."""
        found = self._found(path) if self.keyed or "{stem}" in self._text else None
        return found["stem"] if found else stem(path)

    def as_mask(self, path: str, masks: str) -> str:
        """Return the name that a glob of masks has for an image, as far as the wildcards say."""
        folder, slash, name = masks.rpartition("/")
        core, suffix = stem(name), name[len(stem(name)) :]
        found, parts = self._found(path), _TOKEN.split(folder + slash + core)
        values = [text.rstrip("/") for text in found.groups()] if found else []
        if len(values) != len(parts) - 1:
            return folder + slash + stem(path) + suffix
        filled = "".join(a + b for a, b in zip(parts, [*values, ""], strict=True))
        return re.sub("/+", "/", filled).lstrip("/") + suffix


def _translated(step: str) -> str:
    """Return a regular expression for one step of a glob, with a group for each wildcard."""

    def group(token: str) -> str:
        if token[0] == "[":
            negated = token.startswith("[!")
            held = re.sub(r"([\\\[\]^])", r"\\\1", token[2:-1] if negated else token[1:-1])
            return re.escape(token[1]) if len(token) == 3 else f"([{'^' * negated}{held}])"  # [x] is a literal x
        return {"?": "([^/])", "{stem}": "(?P<stem>[^/]+)", "{key}": "(?P<stem>[^./]+)"}.get(token, "([^/]*)")

    texts, tokens = _TOKEN.split(step), _TOKEN.findall(step)
    return "".join(re.escape(text) + token for text, token in zip(texts, [*map(group, tokens), ""], strict=True))


def filling(pattern: str, image: str, found: Glob) -> list[str]:
    """Return a mask pattern with its placeholders replaced by an image's values, in each form that Unicode has for them."""
    return forms(fill(pattern, image, found.stem(image)))


def forms(text: str) -> list[str]:
    """Return a text and, where they differ, its composed and its decomposed form."""
    return [text] if text.isascii() else [*dict.fromkeys([text, normalize("NFC", text), normalize("NFD", text)])]


@lru_cache(1 << 10)
def expand(pattern: str) -> tuple[str, ...]:
    """Return the globs that a pattern with braces stands for, as in `{images,scans}/*.{png,tif}`, below the source.

    Raises `ValueError` for a pattern that leads out of it, and for braces that are neither a list nor a placeholder.
    """
    if pattern.startswith("/"):
        raise ValueError(f"'{pattern}' begins with /, and globs are below SOURCE, as images/*.png is")
    try:
        found = patterns.braces(pattern)
    except ValueError as error:
        raise ValueError(
            f"'{pattern:.200}': {error}; a brace that is a part of a name is written as a wildcard, ?"
        ) from error
    if unknown := next(filter(None, map(_UNKNOWN.search, found)), None):
        raise ValueError(
            f"'{pattern}': {unknown[0]} is no placeholder (these are {{{'}, {'.join(_PLACEHOLDERS)}}}), and no list such as {{a,b}}; a "
            "brace that is a part of a name is written as a wildcard, ?"
        )
    for one in found:
        Glob(_FILLED.sub("x", one))
    return tuple(_resolve(one) for one in found)


def fill(pattern: str, image: str, own: str, *, any_name: bool = False) -> str:
    """Replace a mask pattern's placeholders by the image's values (its name by `*` with `any_name`)."""
    folder, _, name = image.rpartition("/")
    values = {"stem": own, "name": "*" if any_name else name, "dir": folder or ".", "folder": folder.rpartition("/")[2]}
    if MAGIC.search(image):
        wild = ("stem", "name") if any_name else ()
        values = {key: value if key in wild else glob.escape(value) for key, value in values.items()}
    return _resolve(PLACEHOLDER.sub(lambda match: values[match[1]], pattern), filled=True)


def _resolve(pattern: str, *, filled: bool = False) -> str:
    """Resolve empty steps, `.` and `..` in a pattern; `{dir}/..` only when it is filled in.

    Raises `ValueError` where it leads out of the source.
    """
    if not _STEPS.search(pattern):
        return pattern
    steps: list[str] = []
    for step in pattern.split("/"):
        if step == ".." and not steps:
            raise ValueError(f"'{pattern}' leads out of SOURCE; give the folder above both as SOURCE")
        if step == ".." and (filled or not (PLACEHOLDER.search(steps[-1]) or steps[-1] == "..")):
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps)


def common(folders: Sequence[str]) -> str:
    """Return a glob of folders of one depth, with a wildcard for each step in which they differ."""
    steps = zip(*(folder.split("/") for folder in folders), strict=True)
    return "/".join("*" if len(set(step)) > 1 else escaped(step[0]) for step in steps)


def escaped(text: str) -> str:
    """Return a glob of a text; a brace, which would begin a list, is a wildcard."""
    return re.sub(r"[{}]", "?", glob.escape(text))


def spanning(start: str, end: str) -> str:
    """Return a glob of names between a start and an end, of any suffix where there is an end."""
    return f"{escaped(start)}*{tail(end)}"


def tail(end: str) -> str:
    """Return a glob of the end of a stem and of any suffix, "" where there is no end."""
    return f"{escaped(end)}.*" if end else ""
