"""A minimal HTTP/1.1 client: one connection, sequential requests."""

import asyncio
from collections.abc import Iterable

from tests.benchmarks.floors.conversation import HEADERS


class RawConnection:
    """A keep-alive connection to a server that sends Content-Length."""

    def __init__(self, base_url: str) -> None:
        self._host, _, path = base_url.removeprefix("http://").partition("/")
        headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        head = f"POST /{path}/chat/completions HTTP/1.1\r\nhost: {self._host}\r\n{headers}"
        self._head = head.encode()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        host, _, port = self._host.partition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))

    async def post(self, parts: Iterable[bytes | bytearray]) -> bytes:
        """Send a request with the body `parts` and return the body of the reply."""
        body = b"".join(parts)
        self._writer.write(b"%scontent-length: %d\r\n\r\n%s" % (self._head, len(body), body))
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return await self._reader.readexactly(int(length))

    def close(self) -> None:
        self._writer.close()
