"""Web servers that send too much, nothing, no length or somewhere else: one line, bounded in bytes and time."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from medsass import files
from medsass.data.sharding.catalog.listing import Stat
from medsass.data.sharding.source import Source
from medsass.data.shards import remote

web = pytest.importorskip("medsass.web")
Send = Callable[[BaseHTTPRequestHandler], None]
BLOCK = bytes(1 << 16)
ENDS = 1 << 32  # bytes after which a server that "never ends" gives up


@contextmanager
def serving(send: Send) -> Iterator[Path]:
    """Run a web server that answers by `send`, and yield the address of a file on it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with suppress(OSError):  # the client has seen enough
                send(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads, block_on_close = True, False

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield files.location(f"http://127.0.0.1:{server.server_address[1]}/a.png")
        server.shutdown()


def endless(code: int, *headers: tuple[str, str]) -> Send:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers:
            request.send_header(name, value)
        request.end_headers()
        for _ in range(0 if request.command == "HEAD" else ENDS // len(BLOCK)):
            request.wfile.write(BLOCK)

    return send


def redirecting(request: BaseHTTPRequestHandler) -> None:
    request.send_response(302)
    request.send_header("Location", "file:///etc/passwd")
    request.send_header("Content-Length", "0")
    request.end_headers()


def silent(_: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(30)


@pytest.mark.parametrize("length", [(), (("Content-Length", str(ENDS)),)])
def test_an_answer_that_does_not_end_is_cut_at_what_was_promised(
    length: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    with serving(endless(200, *length)) as path:
        with pytest.raises(
            files.UnreachableError, match="sends more than the 100,000 bytes that it or a manifest says"
        ):
            b"".join(files.pieces(path, 100_000))
        with pytest.raises(files.UnreachableError, match="sends more than the 100,000 bytes"):
            remote._fetch(path, tmp_path / "a", 100_000, "0" * 64)
        with pytest.raises(files.UnreachableError, match="sends more than the 100,000 bytes"):
            Source(path.parent, tmp_path / "copies").fetch("a.png", Stat(100_000, "x"), "a", whole=True)
    assert not list(tmp_path.glob("*"))


def test_a_part_that_does_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MOST", 1_000_000)
    parts = endless(206, ("Accept-Ranges", "bytes"), ("Content-Range", "bytes 0-9/1000000"))
    with (
        serving(parts) as path,
        pytest.raises(files.UnreachableError, match="sends more than 1,000,000 bytes at once"),
        files.reaching(path),
    ):
        path.fs.cat_file(path.path, start=0, end=10)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("send", "reason"), [(redirecting, "cannot be read .*file:///etc/passwd"), (silent, "cannot be read .*[Tt]imeout")]
)
def test_an_answer_that_never_comes_or_leads_elsewhere_is_one_line(
    send: Send, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "SILENCE", 0.5)
    with serving(send) as path, pytest.raises(files.UnreachableError, match=reason) as refused:
        b"".join(files.pieces(path, 1000))
    assert "\n" not in str(refused.value)
