"""How a command ends: exceptions of our own, and the one line for what a user can mend. Light: the command line imports it."""

import errno

# What a user can mend, beside memory; anything else is a bug and shows its trace.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)

# The same of torch, OpenCV and DALI, which raise RuntimeError.
_MEMORY = (
    "can't allocate",
    "not enough memory",
    "nsufficient memory",
    "bad_alloc",
    "out of memory",
    "Cannot allocate memory",
)

_MOST = 4000  # characters of a line

_LOWER = {
    "shard": "take fewer --workers and go on with --resume, or start again with --tile, which cuts large images",
    "tune": "take fewer --images or a smaller --size",
    "train": "start again with a smaller --batch-size or --size, or with more --accumulate; or free memory and go on with "
    "--resume",
    "evaluate": "take a smaller --batch-size or fewer --threads",
    "probe": "take a smaller --batch-size or fewer --threads",
    "predict": "predict in tiles, such as --tile 512; go on with the images that are left",
    "label": "cut large images by medsass shard --tile, and label the shards",
    "experiment": "take fewer --jobs; the same command goes on",
}
_AGAIN = {
    "train": "start again, with --resume if RUN holds a run",
    "predict": "masks that are written stay; --overwrite writes all again",
    "label": "masks that are written stay; --overwrite writes all again",
    "experiment": "the same command goes on",
}


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM stopped a training, which is saved; the text says how to go on, "" where another process says it.

    A `KeyboardInterrupt`, so that `except Exception` lets it pass. The command line ends with exit code 0.
    """


class ElsewhereError(RuntimeError):
    """Another process of the same training failed and says why. The command line ends with exit code 2 and adds nothing."""


class TooLargeError(MemoryError):
    """Something does not fit the memory; the text says what would."""


def is_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, by whatever library's error."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    foreign = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return named or (foreign and any(mark in str(error) for mark in _MEMORY))


def line(error: BaseException, command: str) -> str | None:
    """Return what a user reads of an error that ended `command`, in one line; None where it is a bug."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= _MOST else f"{text[: _MOST // 2]} ... {text[-_MOST // 2 :]}"  # it may quote a file
    if is_memory(error) and not isinstance(error, TooLargeError):
        lower = _LOWER.get(command, "end other programs, or take a machine with more of it")
        return f"memory ran out ({text:.200}); {lower}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if isinstance(error, (*_EXPECTED, TooLargeError)) else None


def interrupted(stop: KeyboardInterrupt, command: str) -> str:
    """Return what a user reads who has interrupted `command`: how to go on."""
    return f"interrupted; {str(stop) or _AGAIN.get(command, 'nothing was written; start again')}"
