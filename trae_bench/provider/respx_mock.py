"""The scripted provider in this process: no socket is opened, no other process started.

    with RespxProvider() as provider:
        base_url = provider.register("trial-1", script)
        ...                       # an agent in this process talks to base_url
        log = provider.collect("trial-1")

It stands where `loopback` does and plays scripts by the same rules. Needs the extra `mock`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, TracebackType
from typing import ClassVar, Self

import httpx

from trae_bench.errors import UsageError
from trae_bench.model.sample import RequestLog, SessionLog
from trae_bench.provider.encoded_script import for_the_server, path_of
from trae_bench.provider.http1_parser import Request
from trae_bench.provider.responses import BROKEN, RESET, Answer
from trae_bench.provider.script import Script
from trae_bench.provider.sessions import Exchange, Provider, session_of

try:
    from respx import MockRouter
    from respx.mocks import HTTPCoreMocker
except ImportError as error:
    raise UsageError(
        "transport = \"respx\" needs the package respx; pip install 'trae-bench[mock]'"
    ) from error

ADDRESS = "http://scripted.invalid"
"""A host that no resolver knows: what is not intercepted goes nowhere."""


class HTTPCore2Mocker(HTTPCoreMocker):
    """What respx does to httpcore, done to httpcore2, on which the newest SDKs stand."""

    name = "trae-bench-httpcore2"
    targets: ClassVar[list[str]] = [
        target.replace("httpcore.", "httpcore2.", 1) for target in HTTPCoreMocker.targets
    ]


_MOCKERS = {"httpcore": HTTPCoreMocker.name, "httpcore2": HTTPCore2Mocker.name}
"""Each library that is intercepted where it is installed, and who does it."""


class RespxProvider:
    """Intercepts httpcore and httpcore2 from entry to exit, in the whole process."""

    def __init__(self) -> None:
        self._provider = Provider()
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for library, mocker in _MOCKERS.items():
                if find_spec(library) is not None:
                    stage = _Stage(self._provider, import_module(library))
                    opened.enter_context(_Router(stage, using=mocker))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def register(self, session: str, script: Script, pressure: Sequence[str] = ()) -> str:
        """Have `script` played to whoever asks under the base URL that is returned.

        Raises `ValueError` for a name that is in use.
        """
        if session.encode() in self._provider.sessions:
            raise ValueError(f"{session}: session is registered already")
        message, blobs = for_the_server(session, script)
        playing = session_of(message | {"pressure": pressure}, blobs)
        self._provider.sessions[session.encode()] = playing
        return ADDRESS + path_of(session, script)

    def environ(self, session: str) -> dict[str, str]:
        """What the environment of this session's client must say: nothing."""
        return {}

    def collect(self, session: str) -> SessionLog:
        """The log of a session, which is over from now on. Raises `KeyError` for no session."""
        played = self._provider.sessions.pop(session.encode())
        played.close()
        return SessionLog(
            requests=tuple(RequestLog(*entry) for entry in played.log),
            connections=0,
            last_body=played.last_body,
            unexpected=played.unexpected,
        )


class _Stage:
    """Plays to the clients of one library, whose own errors they expect."""

    def __init__(self, provider: Provider, library: ModuleType) -> None:
        self._provider = provider
        self._library = library

    def exchange(self, request: httpx.Request) -> Exchange:
        path = request.url.raw_path.partition(b"?")[0]
        asked = Request(request.method.encode(), path, True, request.content)
        return Exchange(self._provider, asked, connection=0, handshakes=0, arrived=time.monotonic())

    def response(self, exchange: Exchange) -> httpx.Response:
        """What comes when the think time is over. Raises the library's errors."""
        answer = exchange.answer
        if not answer.headers:
            exchange.log(time.monotonic())
            raise self._no_reply(answer)
        return httpx.Response(
            answer.status, headers=list(answer.headers), stream=_Body(exchange, self._library)
        )

    def _no_reply(self, answer: Answer) -> Exception:
        said: tuple[str, str] = ("RemoteProtocolError", "illegal status line")
        if answer.ending == RESET:
            said = ("ReadError", "connection reset by peer")
        error: Exception = getattr(self._library, said[0])(said[1])
        return error


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A reply's pieces at their times; logged when the last one has been taken, or when the
    client has seen enough."""

    def __init__(self, exchange: Exchange, library: ModuleType) -> None:
        self._exchange = exchange
        self._library = library
        self._logged = False

    def __iter__(self) -> Iterator[bytes]:
        for number, piece in enumerate(self._exchange.answer.body):
            if number:
                time.sleep(self._exchange.answer.gap)
            yield self._given(piece)
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, piece in enumerate(self._exchange.answer.body):
            if number:
                await asyncio.sleep(self._exchange.answer.gap)
            yield self._given(piece)
        self._end()

    def close(self) -> None:
        if not self._logged:
            self._logged = True
            self._exchange.log(time.monotonic())

    async def aclose(self) -> None:
        self.close()

    def _given(self, piece: bytes) -> bytes:
        self._exchange.sent += len(piece)
        return piece

    def _end(self) -> None:
        self._logged = True
        self._exchange.log(time.monotonic())
        if self._exchange.answer.ending == BROKEN:
            message = "peer closed connection without sending complete message body"
            raise self._library.RemoteProtocolError(message)


class _Router(MockRouter):
    """Everything under our address is answered; respx refuses whatever else is asked for."""

    def __init__(self, stage: _Stage, using: str) -> None:
        super().__init__(assert_all_called=False, using=using)
        self._stage = stage

    def handler(self, request: httpx.Request) -> httpx.Response:
        if not _is_ours(request):
            return super().handler(request)
        exchange = self._stage.exchange(request)
        time.sleep(exchange.answer.delay)
        return self._stage.response(exchange)

    async def async_handler(self, request: httpx.Request) -> httpx.Response:
        if not _is_ours(request):
            return await super().async_handler(request)
        exchange = self._stage.exchange(request)
        if exchange.answer.delay:
            await asyncio.sleep(exchange.answer.delay)
        return self._stage.response(exchange)


def _is_ours(request: httpx.Request) -> bool:
    return str(request.url).startswith(f"{ADDRESS}/")
