"""A small provider: scripted HTTP responses on a loopback socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct


class Answer(Struct, frozen=True):
    """A scripted response. An empty `body` with status 0 closes the connection instead."""

    body: bytes = b""
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = {}


class ReceivedRequest(Struct, frozen=True):
    """A received request."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedServer:
    """Answers in the scripted order, regardless of the request."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = iter(answers)
        self.seen: list[ReceivedRequest] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        try:
            while (head := await _head(reader)) is not None:
                path, headers = head
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.seen.append(ReceivedRequest(path, headers, body, connection))
                answer = next(self._answers)
                if not answer.status:
                    break
                writer.write(_encoded(answer))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client disconnected, or the test has ended
        finally:
            writer.close()


@asynccontextmanager
async def scripted_server(*answers: Answer) -> AsyncIterator[ScriptedServer]:
    """A server on a free port for one test."""
    scripted = ScriptedServer(answers)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    pairs = (line.partition(":") for line in lines[1:] if line)
    return lines[0].split()[1], {name.lower(): value.strip() for name, _, value in pairs}


def _encoded(answer: Answer) -> bytes:
    length = str(len(answer.body))
    headers = {"content-type": answer.kind, "content-length": length, **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Scripted", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body
