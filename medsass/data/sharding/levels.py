"""The levels of a dataset's masks: with foreground "binary" all masks together may hold two, of which the higher is foreground.

One mask with the levels 0 and 1 and another with 0 and 2 are two classes, whichever is seen first. What is foreground is then
for the user to say.
"""

import sqlite3

from medsass.data.formats.mask import Foreground, Seen


class MasksError(ValueError):
    """The masks of a dataset hold several classes, or are among its images, and no option says what is what."""


class DatasetLevels:
    """What the masks of a dataset have shown so far: their levels or, where a rule names levels or colours, those of it. Kept in
    the journal's database for a run that is resumed.
    """

    def __init__(self, database: sqlite3.Connection, foreground: Foreground = "binary") -> None:
        self._database, self._foreground = database, foreground
        database.execute("CREATE TABLE IF NOT EXISTS levels (level PRIMARY KEY, mask TEXT, alone INTEGER)")
        self._known: dict[float | str, int] = dict(database.execute("SELECT level, alone FROM levels"))

    def add(self, mask: str, levels: Seen) -> None:
        """Enter what a mask shows. Raises `MasksError` where the levels of all masks cannot be ground and foreground."""
        alone = len(levels) == 1 and levels != (0,)  # a mask that is taken for all foreground
        for level in levels:
            if alone <= self._known.get(level, -1):
                continue
            self._known[level] = max(alone, self._known.get(level, 0))
            row = level, mask, self._known[level]
            self._database.execute(
                "INSERT INTO levels VALUES (?, ?, ?) ON CONFLICT (level) DO UPDATE SET alone = excluded.alone", row
            )
        if self._foreground == "binary":
            self._check()

    def unseen(self) -> list[str]:
        """Return a warning of levels or colours that the rule names and no mask holds, if any. Raises `MasksError` where no mask has
        any foreground by the rule.
        """
        named = () if isinstance(self._foreground, str) else self._foreground
        shown = ",".join(map(str, named)) or str(self._foreground)
        if not self._known and (named or shown == "half"):
            raise MasksError(
                f"no mask holds any foreground by --foreground {shown}; without the option, the levels that they hold are named, and "
                "nonzero takes all but 0"
            )
        if not named and len(self._known) == 2 and 0 not in self._known:
            low, high = sorted(self._known, key=float)
            return [
                f"WARNING: the masks hold {low:g} and {high:g}, none 0, and {high:g} is foreground; --foreground {low:g} if that one is meant"
            ]
        missing = ", ".join(str(value) for value in named if value not in self._known)
        return [f"WARNING: no mask holds {missing} of --foreground {shown}"] if missing else []

    def _check(self) -> None:
        few = sorted(self._known, key=float)
        if len(few) > 2 or (len(few) == 2 and (self._known[few[0]] or not few[1])):
            shown = ", ".join(
                f"{level:g} ({name})"
                for level, name in self._database.execute("SELECT level, mask FROM levels ORDER BY level")
            )
            foreground = ",".join(f"{level:g}" for level in few if level)
            raise MasksError(
                f"the masks hold the levels {shown}, so that one rule must say what is foreground in all of them: --foreground "
                f"{foreground} (some of these levels), nonzero, or half where edges are soft"
            )
