"""Files that cannot be read: errors that say what is wrong and what to do, for whatever a decoder raises."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from medsass.budget import ExceededError
from medsass.errors import is_memory

REMEDY = "copy it again, or save it anew by a program that opens it"

_MOST = 200  # letters of a decoder's own words


class UnreadableError(ValueError):
    """A file that cannot be read; the text says by which rule, and what to do. `readable` lets it pass."""


class DamagedError(UnreadableError):
    """A file that is cut off or damaged, or that its decoder does not know; the text says how that shows, `REMEDY` follows."""

    def __str__(self) -> str:
        return f"{super().__str__()}; {REMEDY}"


@contextmanager
def readable() -> Iterator[None]:
    """Turn what a decoder raises at a damaged file into a `DamagedError` of one line.

    Wrap calls of other libraries only: the same errors in our own code are bugs and must stay tracebacks. Errors of the
    file system (a missing file, a full disk) pass unchanged.
    """
    try:
        yield
    except (ImportError, MemoryError, UnreadableError, ExceededError):
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        if is_memory(error):
            raise MemoryError(" ".join(str(error).split())) from error
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a seek to nowhere
            raise
        if "set_int_max_str_digits" in str(error):  # it says how to take the limit away
            error = ValueError("a number of thousands of digits")
        words = "".join(letter if letter.isprintable() else " " for letter in str(error))  # some name bytes of the file
        text = " ".join(words.split())[:_MOST].rstrip(" .:") or type(error).__name__
        if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):  # texts that alone say little
            text = f"{type(error).__name__}: {text}"
        raise DamagedError(f"damaged, or of an unknown sort ({text})") from error
