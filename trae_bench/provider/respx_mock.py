"""The scripted provider in this process, without sockets or another process.

    with RespxProvider() as provider:
        base_url = provider.register("trial-1", script)
        ...                       # an agent in this process sends requests to base_url
        log = provider.collect("trial-1")

It has the interface of `loopback.Loopback` and plays scripts by the same rules. It needs the
extra `mock`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import ClassVar, Self

import httpx
from msgspec.structs import replace

from trae_bench.errors import UsageError
from trae_bench.model.sample import SessionLog
from trae_bench.provider.http1_parser import Request
from trae_bench.provider.registration import registration, session_log, session_path
from trae_bench.provider.responses import ABORT, RESET, Response
from trae_bench.provider.script import Script
from trae_bench.provider.session_setup import session_from
from trae_bench.provider.sessions import Exchange, Provider

try:
    from respx import MockRouter
    from respx.mocks import HTTPCoreMocker
except ImportError as error:
    raise UsageError(
        "transport = \"respx\" needs the package respx; pip install 'trae-bench[mock]'"
    ) from error

ADDRESS = "http://scripted.invalid"
"""A host in the reserved domain `.invalid`, so requests never reach the network."""


class HTTPCore2Mocker(HTTPCoreMocker):
    """Patches httpcore2, which the newest SDKs use, as respx patches httpcore."""

    name = "trae-bench-httpcore2"
    targets: ClassVar[list[str]] = [
        target.replace("httpcore.", "httpcore2.", 1) for target in HTTPCoreMocker.targets
    ]


_MOCKERS = {"httpcore": HTTPCoreMocker.name, "httpcore2": HTTPCore2Mocker.name}
"""The mocker of each library. A library is patched if it is installed."""


class RespxProvider:
    """Patches httpcore and httpcore2 in the whole process, from entry to exit."""

    def __init__(self) -> None:
        self._provider = Provider()
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for library, mocker in _MOCKERS.items():
                if find_spec(library) is not None:
                    responder = _Responder(self._provider, import_module(library))
                    opened.enter_context(_Router(responder, using=mocker))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def register(self, session: str, script: Script, pressure: Sequence[str] = ()) -> str:
        """Register a session and return the base URL that plays `script`.

        Raises `ValueError` if the name is in use.
        """
        if session.encode() in self._provider.sessions:
            raise ValueError(f"{session}: session is already registered")
        message, blobs = registration(session, script, pressure)
        self._provider.sessions[session.encode()] = session_from(message, blobs)
        return ADDRESS + session_path(session, script)

    def environ(self, session: str) -> dict[str, str]:
        """Return the environment variables of the session's client: none."""
        return {}

    def collect(self, session: str) -> SessionLog:
        """End a session and return its log. Raises `KeyError` if it is not registered."""
        played = self._provider.sessions.pop(session.encode())
        played.pressure.close()
        return replace(session_log(*played.account()), connections=0)


class _Responder:
    """Answers the clients of one library, and raises that library's errors."""

    def __init__(self, provider: Provider, library: ModuleType) -> None:
        self._provider = provider
        self._library = library

    def exchange(self, request: httpx.Request) -> Exchange:
        path = request.url.raw_path.partition(b"?")[0]
        headers = {name.lower(): value for name, value in request.headers.raw}
        parsed = Request(request.method.encode(), path, True, request.content, headers)
        return Exchange(
            self._provider, parsed, connection=0, handshakes=0, arrived=time.monotonic()
        )

    def response(self, exchange: Exchange) -> httpx.Response:
        """Return the response after the think time. Raises the library's errors for a fault."""
        response = exchange.response
        if not response.headers:
            exchange.log(time.monotonic())
            raise self._fault_error(response)
        return httpx.Response(
            response.status, headers=list(response.headers), stream=_Body(exchange, self._library)
        )

    def _fault_error(self, response: Response) -> Exception:
        name, message = "RemoteProtocolError", "illegal status line"
        if response.ending == RESET:
            name, message = "ReadError", "connection reset by peer"
        error: Exception = getattr(self._library, name)(message)
        return error


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Yields the chunks of a response at their times.

    The exchange is logged after the last chunk, or when the client closes the response.
    """

    def __init__(self, exchange: Exchange, library: ModuleType) -> None:
        self._exchange = exchange
        self._library = library
        self._logged = False

    def __iter__(self) -> Iterator[bytes]:
        for number, chunk in enumerate(self._exchange.response.body):
            if number:
                time.sleep(self._exchange.response.gap)
            yield self._count(chunk)
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self._exchange.response.body):
            if number:
                await asyncio.sleep(self._exchange.response.gap)
            yield self._count(chunk)
        self._end()

    def close(self) -> None:
        if not self._logged:
            self._logged = True
            self._exchange.log(time.monotonic())

    async def aclose(self) -> None:
        self.close()

    def _count(self, chunk: bytes) -> bytes:
        self._exchange.sent += len(chunk)
        return chunk

    def _end(self) -> None:
        self._logged = True
        self._exchange.log(time.monotonic())
        if self._exchange.response.ending == ABORT:
            message = "peer closed connection without sending complete message body"
            raise self._library.RemoteProtocolError(message)


class _Router(MockRouter):
    """Answers requests to `ADDRESS`. respx rejects all others."""

    def __init__(self, responder: _Responder, using: str) -> None:
        super().__init__(assert_all_called=False, using=using)
        self._responder = responder

    def handler(self, request: httpx.Request) -> httpx.Response:
        if not _is_to_provider(request):
            return super().handler(request)
        exchange = self._responder.exchange(request)
        time.sleep(exchange.response.delay)
        return self._responder.response(exchange)

    async def async_handler(self, request: httpx.Request) -> httpx.Response:
        if not _is_to_provider(request):
            return await super().async_handler(request)
        exchange = self._responder.exchange(request)
        if exchange.response.delay:
            await asyncio.sleep(exchange.response.delay)
        return self._responder.response(exchange)


def _is_to_provider(request: httpx.Request) -> bool:
    return str(request.url).startswith(f"{ADDRESS}/")
