"""A scripted server that can answer, hang up, reset or stall."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from msgspec import Struct

End = Literal["keep", "close", "reset", "stall"]


class ReceivedRequest(Struct, frozen=True):
    """A received request."""

    number: int
    """From 0, over all connections."""
    connection: int
    """From 0."""
    line: str
    headers: dict[str, str]
    body: bytes


class Step(Struct, frozen=True):
    """The server's reaction to one request."""

    sends: bytes = b""
    then: End = "keep"
    after: float = 0.0
    """Seconds before sending."""


Script = Callable[[ReceivedRequest], Step]


def http(body: bytes = b"{}", status: int = 200, **headers: str) -> bytes:
    """A complete response. `retry_after=...` becomes the header `retry-after`."""
    fields = {"content-length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return f"HTTP/1.1 {status} Any\r\n{''.join(lines)}\r\n".encode() + body


def answers(*steps: Step | bytes) -> Script:
    """One step per request, in order. The last one repeats."""

    def script(asked: ReceivedRequest) -> Step:
        step = steps[min(asked.number, len(steps) - 1)]
        return step if isinstance(step, Step) else Step(step)

    return script


class RawServer:
    """Records requests, their connections and the maximum concurrency."""

    def __init__(self, script: Script, scheme: str) -> None:
        self._script = script
        self._scheme = scheme
        self.asked: list[ReceivedRequest] = []
        self.connections = 0
        self.at_once = 0
        self.max_concurrent = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.first = asyncio.Event()
        """Set with the first request."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self._scheme}://localhost:{self.port}/v1"

    async def hang_up(self) -> None:
        """Closes every connection between requests."""
        for writer in tuple(self.writers):
            writer.close()
            await writer.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, self.connections = self.connections, self.connections + 1
        self.writers.add(writer)
        try:
            while (asked := await self._request(reader, connection)) is not None:
                if not await self._answer(self._script(asked), writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _request(
        self, reader: asyncio.StreamReader, connection: int
    ) -> ReceivedRequest | None:
        line = await reader.readline()
        if not line:
            return None
        headers = {}
        while (field := (await reader.readline()).decode().strip()) != "":
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.first.set()
        self.asked.append(
            ReceivedRequest(len(self.asked), connection, line.decode().strip(), headers, body)
        )
        return self.asked[-1]

    async def _answer(self, step: Step, writer: asyncio.StreamWriter) -> bool:
        self.at_once += 1
        self.max_concurrent = max(self.max_concurrent, self.at_once)
        try:
            await asyncio.sleep(step.after)
            writer.write(step.sends)
            await writer.drain()
            if step.then == "stall":
                await asyncio.sleep(60)
        finally:
            self.at_once -= 1
        if step.then == "reset":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return step.then == "keep"


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """A server on a free port for the duration of the block."""
    raw = RawServer(script, "https" if tls else "http")
    server = await asyncio.start_server(raw.serve, "localhost", 0, ssl=tls, family=socket.AF_INET)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for writer in tuple(raw.writers):
            writer.transport.abort()
        # One loop iteration per layer, so that every transport is closed.
        for _ in range(5):
            await asyncio.sleep(0)
