"""Messages of other libraries, caught and counted: a command ends with "pydicom: 3 messages (first: a.dcm: ...)".

Warnings and log records are caught in Python. What C libraries write to stderr passes through a child process, the sieve,
which counts the lines that it knows and hands on all others at once. It outlives a crash, so that last words are never lost.
With MEDSASS_TRACE=1 nothing is caught.
"""

import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TextIO

from medsass.text import printable

_NAMES = {"PIL": "Pillow", "cv2": "OpenCV", "nvidia": "DALI", "PNG": "libpng"}
_PLACE = re.compile(r"/(?:site|dist)-packages/(\w+)")
_OURS = os.path.dirname(__file__)  # noqa: PTH120 - compared with the text of a path
_COLOURS = re.compile(rb"\x1b\[[\d;]*m")
_SHOWN = 200  # characters of a first message
_END = b"\0medsass\0"  # the line after which the sieve reports
# The library and the message of a line on stderr.
_LINES = (
    (re.compile(rb"(lib)?png (?:warning|error): (.*)", re.IGNORECASE), "libpng"),
    (re.compile(rb"()((?:Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Warning: unknown JFIF).*)"), "libjpeg"),
    (re.compile(rb"()((?:Meta(?:Image|Object): |Uncompress failed| +ideal = |\w+ (?:required and not|defined prior)).*)"), "ITK"),
    (re.compile(rb"()((?:Bogus|Quantization table|Huffman table|Invalid JPEG file structure).*)"), "libjpeg"),
    (re.compile(rb"()((?:Improper call to JPEG|Unsupported (?:marker|JPEG)|Not a JPEG|Empty JPEG).*)"), "libjpeg"),
    (re.compile(rb"()((?:Tile part length|Failed to decode tile|Stream too short).*)"), "OpenJPEG"),
    (re.compile(rb"(?:\x1b\[[\d;]*m)*\[()(?:ERROR|WARNING)\] (?:\x1b\[[\d;]*m)*(\[\w+\] .*)"), "DALI"),
    (re.compile(rb"()((?:TIFF|JPEG)\w+: .*)"), "libtiff"),
    (re.compile(rb"\[ ?(WARN|ERROR|INFO|FATAL):\d+@[\d.]+\] (.*)"), "OpenCV"),
    (re.compile(rb"(\[/opt/dali|/opt/dali|\[nvimgcodec|\[nvJPEG|Warning in thread \d+: )(.*)"), "DALI"),
)  # fmt: skip

_listener: "_Listener | None" = None
_reading: ContextVar[str] = ContextVar("reading", default="")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Name the file that this thread reads while the block runs, so that a message can name it too."""
    token = _reading.set(name)
    try:
        yield
    finally:
        _reading.reset(token)


class Counts:
    """The number of messages of each library, and the first."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, str]] = {}

    def add(self, library: str, text: str) -> None:
        """Count a message."""
        self.merge({library: (1, text)})

    def merge(self, others: "dict[str, tuple[int, str]]") -> None:
        """Add counts of each library, with its first message."""
        for library, (more, text) in others.items():
            count, first = self._held.get(library, (0, text))
            self._held[library] = count + more, first

    def take(self) -> dict[str, tuple[int, str]]:
        """Return all counts, as `merge` takes them, and forget them."""
        held, self._held = self._held, {}
        return held

    def lines(self) -> list[str]:
        """Return what a user reads of each library."""
        return [
            printable(f"{name}: {count} message{'s' * (count > 1)} (first: {' '.join(first.split()):.{_SHOWN}})")
            for name, (count, first) in self._held.items()
        ]


class _Listener(logging.Handler):
    """Counts log records and warnings. pydicom sends some twice, as one and as the other."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts, self._recent, self._guard = Counts(), deque[str](maxlen=100), threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(record.name.partition(".")[0], record.getMessage())

    def warn(
        self,
        message: Warning | str,
        category: type[Warning],  # noqa: ARG002 - as `warnings.showwarning`
        filename: str,
        lineno: int,  # noqa: ARG002
        file: TextIO | None = None,  # noqa: ARG002
        line: str | None = None,  # noqa: ARG002
    ) -> None:
        """Replace `warnings.showwarning`; our own warnings are printed."""
        if filename.startswith(_OURS):
            print(printable(f"warning: {message}"), file=sys.stderr, flush=True)
            return
        found = _PLACE.search(filename)
        self._hear(found[1] if found else "Python", str(message))

    def _hear(self, library: str, text: str) -> None:
        text = f"{name}: {text}" if (name := _reading.get()) else text
        with self._guard:
            if text not in self._recent:
                self._recent.append(text)
                self.counts.add(_NAMES.get(library, library), text)


@contextmanager
def caught() -> Iterator[None]:
    """Catch the messages of other libraries while the block runs, and print their counts at its end."""
    global _listener
    if os.environ.get("MEDSASS_TRACE") == "1":
        yield
        return
    before, show, root = _listener, warnings.showwarning, logging.getLogger()
    with _sieved():
        _listener = listener = _Listener()
        warnings.showwarning = listener.warn
        root.addHandler(listener)
        try:
            yield
        finally:
            root.removeHandler(listener)
            warnings.showwarning, _listener = show, before
            for line in listener.counts.lines():
                print(line, file=sys.stderr, flush=True)


def catching() -> bool:
    """Return whether messages are caught now, so that worker processes are to `listen`."""
    return _listener is not None


def listen() -> Callable[[], dict[str, tuple[int, str]]]:
    """Catch messages in this worker process for good. Returns a function that gives their counts since its last call, for
    `add` in the process that prints them.
    """
    listener = _Listener()
    warnings.showwarning = listener.warn
    logging.getLogger().addHandler(listener)
    return listener.counts.take


def add(counts: dict[str, tuple[int, str]]) -> None:
    """Add what a worker process has heard."""
    if _listener:
        _listener.counts.merge(counts)


@contextmanager
def overheard() -> Iterator[bytearray]:
    """Give what C libraries write to file descriptor 2 while the block runs, once it is done, and hand it on."""
    text, own, held = bytearray(), os.dup(2), os.memfd_create("stderr")
    os.dup2(held, 2)
    try:
        yield text
    finally:
        os.dup2(own, 2)
        if size := os.lseek(held, 0, os.SEEK_CUR):
            text += os.pread(held, size, 0)
            os.write(2, text)
        os.close(own)
        os.close(held)


@contextmanager
def _sieved() -> Iterator[None]:
    """Lead file descriptor 2 through the sieve while the block runs; `sys.stderr` goes past it. Only where that is the
    process's own stderr: tests replace it.
    """
    before = sys.stderr
    if before is not sys.__stderr__ or before is None or before.fileno() != 2:
        yield
        return
    before.flush()
    (source, sink), (done, doing) = os.pipe(), os.pipe()
    if os.fork() == 0:
        with suppress(BaseException):
            for each in (sink, done, 0, 1):
                os.close(each)
            _sieve(source, doing)
        os._exit(0)
    own = os.dup(2)
    for each in (source, doing):
        os.close(each)
    os.dup2(sink, 2)
    os.close(sink)
    with open(own, "w", buffering=1, encoding=before.encoding, errors=before.errors) as stderr:  # noqa: PTH123
        sys.stderr = stderr
        try:
            yield
        finally:
            sys.stderr = before
            stderr.flush()
            with suppress(OSError):
                os.write(2, b"\n" + _END + b"\n")
                os.read(done, 1)  # until the sieve has reported; children of ours may keep it for longer
            os.dup2(own, 2)
            os.close(done)


def _sieve(source: int, doing: int) -> None:
    """Read lines until all who can write them have ended; count those of libraries and hand on the others."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    counts, rest = Counts(), b""
    while chunk := os.read(source, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line == _END:
                os.write(2, "".join(f"{text}\n" for text in counts.lines()).encode())
                counts = Counts()
                os.close(doing)
            elif found := next(((match[2], name) for form, name in _LINES if (match := form.match(line))), None):
                counts.add(found[1], found[0].decode(errors="replace"))
            elif line:
                os.write(2, _plain(line))
    os.write(2, _plain(rest) * bool(rest) + "".join(f"{text}\n" for text in counts.lines()).encode())


def _plain(line: bytes) -> bytes:
    """Return a line as a terminal may show it, whatever file names it quotes."""
    return printable(_COLOURS.sub(b"", line).decode(errors="replace").expandtabs()).encode() + b"\n"
