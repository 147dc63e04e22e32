"""What is asked of web servers, by fsspec: answers that come, and end."""

from typing import Any

import aiohttp

CONNECT, SILENCE = 30.0, 60.0  # seconds in which a server must be reached, and in which it must send something
TOTAL = 300.0  # seconds of an answer, which is a piece of a file where the server sends such: aiohttp's own limit
MOST = 1 << 28  # bytes of an answer that is taken whole: a piece of a file, or a listing


class Answer(aiohttp.ClientResponse):
    """An answer of which no more is taken at once than `MOST` bytes, whatever length it has or says."""

    async def read(self) -> bytes:
        """Return its bytes. Raises `OSError` where they are more."""
        if self._body is None:
            parts, size = list[bytes](), 0
            async for part in self.content.iter_chunked(1 << 20):
                parts.append(part)
                if (size := size + len(part)) > MOST:
                    self.close()
                    raise OSError(f"it sends more than {MOST:,} bytes at once")
            self._body = b"".join(parts)
        return await super().read()


def options(scheme: str) -> dict[str, Any]:
    """Return the options of fsspec's file system for a scheme, {} for others than http and https."""
    if scheme not in ("http", "https"):
        return {}
    limits = aiohttp.ClientTimeout(total=TOTAL, sock_connect=CONNECT, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": limits, "response_class": Answer}}
