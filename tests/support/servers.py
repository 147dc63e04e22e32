"""Local servers for tests of addresses: S3 by moto, and the web by http.server."""

import atexit
import functools
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from medsass import files


@dataclass(frozen=True)
class S3:
    """A running S3 server: the address of its only bucket, and the environment that leads programs to it."""

    bucket: Path
    environment: dict[str, str]

    def upload(self, folder: Path, name: str) -> Path:
        """Copy the files of a local folder into <bucket>/<name> and return its address."""
        for path in folder.iterdir():
            (self.bucket / name / path.name).write_bytes(path.read_bytes())
        return self.bucket / name


@contextmanager
def server(*command: str) -> Iterator[int]:
    """Run a server in a process of its own and yield its port, which replaces PORT in `command`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", *(part.replace("PORT", str(port)) for part in command)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not _answers(port):
            time.sleep(0.05)
        assert process.poll() is None, f"{command[0]} did not start"
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@functools.cache
def _s3_port() -> int:
    """Start the only S3 server of the test session, and return its port."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(server("moto.server", "-H", "127.0.0.1", "-p", "PORT"))


@contextmanager
def running_s3() -> Iterator[S3]:
    """Empty the S3 server, point the environment of this process to it, and make a bucket."""
    port = _s3_port()
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")).close()
    with pytest.MonkeyPatch.context() as patch:
        environment = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        type(files.location("s3://bucket").fs).clear_instance_cache()  # type: ignore[attr-defined] # an earlier server
        bucket = files.location("s3://bucket")
        bucket.fs.mkdir("bucket")  # type: ignore[attr-defined]
        yield S3(bucket, environment)
