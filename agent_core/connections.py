"""HTTP transports: what both share, and the baseline that opens a connection per request.

Both implementations of the port `Connections` send, retry and count in `Transport`. They
differ in where a connection comes from and what happens to it after the request:
`FreshConnections` is here, `PooledConnections` is in `pooled_connections.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agent_core.connection_metrics import ConnectionPoolMetrics, pool_metrics
from agent_core.ports import Request, Response
from agent_core.retries import AttemptFailed, BackOff, Clock, Retrier

if TYPE_CHECKING:
    import httpcore

    from agent_core._http import Call, Exchange, Target

_TIMEOUTS: dict[str, float | None] = {"connect": 10.0, "read": 600.0, "write": 60.0}
_PROVIDER_TIMEOUTS: dict[str, dict[str, float | None]] = {
    # A local server accepts at once or never, but may load a model before it answers.
    "ollama": {"connect": 3.0, "read": 1800.0, "write": 60.0},
}


def default_timeouts(provider: str) -> dict[str, float | None]:
    """Seconds for "connect", "read" and "write"."""
    return _PROVIDER_TIMEOUTS.get(provider, _TIMEOUTS)


class ManagedConnection:
    """One connection and its number of active requests (more than one with HTTP/2)."""

    __slots__ = ("answered", "connection", "users")

    def __init__(self, connection: "httpcore.AsyncConnectionInterface") -> None:
        self.connection = connection
        self.users = 0
        self.answered = False
        """Whether a response has arrived on it. Only then can it be stale."""


Release = Callable[[ManagedConnection], Awaitable[None]]


class Transport(ABC):
    """Sends requests, retries them and counts them. Subclasses supply the connections.

    All connections of a process share one TLS context. With `shared_tls` false, each
    connection reads the certificates into its own context.
    """

    def __init__(
        self,
        *,
        max_retries: int = 10,
        timeouts: Mapping[str, float | None] | None = None,
        back_off: BackOff | None = None,
        clock: Clock | None = None,
        shared_tls: bool = True,
    ) -> None:
        self.metrics = ConnectionPoolMetrics()
        self._shared_tls = shared_tls
        self._clock = clock or Clock()
        self._retrier = Retrier(back_off or BackOff(retries=max_retries), self._clock)
        self._timeouts = dict(timeouts) if timeouts else None
        self._targets: dict[str, Target] = {}

    async def post(self, request: Request) -> Response:
        """Raises `ConnectionFailedError`."""
        call = self._call(request)
        answer = await self._retrier.run(lambda: self._exchange(request.provider, call))
        return Response(answer.status, answer.headers, answer.content())

    @asynccontextmanager
    async def stream(
        self, request: Request
    ) -> AsyncIterator[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        """Raises `ConnectionFailedError`, also while the body is read."""
        answer = await self.open(request.provider, self._call(request))
        chunks = answer.chunks(plain=True)
        try:
            yield answer.status, answer.headers, chunks
        finally:
            await chunks.aclose()
            await answer.close()

    def stats(self) -> dict[str, float]:
        return {**self.metrics.get_stats(), "retries": self._retrier.retried}

    async def open(self, provider: str, call: "Call") -> "Exchange":
        """Sends `call`, with retries, and returns once the response headers are here.

        The caller reads the body and closes the exchange. Only the body of a failure has been
        read, because it says whether a retry can help.
        """
        return await self._retrier.run(lambda: self._opened(provider, call))

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def _acquire(
        self, provider: str, call: "Call", *, fresh: bool
    ) -> tuple[ManagedConnection, Release]:
        """A connection for `call` and the function that gives it back.

        `fresh` excludes kept connections.
        """

    async def _exchange(self, provider: str, call: "Call") -> "Exchange":
        exchange = await self._read(await self._open_once(provider, call))
        exchange.content()  # damaged data is a failed attempt
        return exchange

    async def _opened(self, provider: str, call: "Call") -> "Exchange":
        exchange = await self._open_once(provider, call)
        return exchange if exchange.status < 400 else await self._read(exchange)

    @staticmethod
    async def _read(exchange: "Exchange") -> "Exchange":
        try:
            await exchange.read()
        finally:
            await exchange.close()
        return exchange

    async def _open_once(self, provider: str, call: "Call") -> "Exchange":
        """One attempt. Raises `AttemptFailed`."""
        from agent_core._http import NotAvailable, StaleConnection

        fresh = False
        while True:
            managed, release = await self._acquire(provider, call, fresh=fresh)
            try:
                return await self._send(managed, release, call)
            except NotAvailable:
                continue
            except StaleConnection as stale:
                if not call.safe_to_repeat:
                    raise AttemptFailed(
                        "The connection was closed", retryable=False
                    ) from stale.__cause__
                fresh = True  # the other idle connections were probably closed with it

    async def _send(self, managed: ManagedConnection, release: Release, call: "Call") -> "Exchange":
        from agent_core._http import Exchange, send

        may_be_stale, started = managed.answered, self._clock.now()
        # A connection that has answered was counted when it was opened.
        trace = None if may_be_stale else self._trace
        try:
            response = await send(managed.connection, call, reused=may_be_stale, trace=trace)
        except BaseException:
            await release(managed)
            raise
        # Read again: of several first requests on one HTTP/2 connection, all but one reuse it.
        reused, managed.answered = managed.answered, True

        async def finish() -> None:
            self._count(self._clock.now() - started, reused=reused)
            await release(managed)

        return Exchange(response, finish, safe_to_repeat=call.safe_to_repeat)

    def _call(self, request: Request) -> "Call":
        from agent_core._http import Call, target  # defers httpcore to the first request

        if request.url not in self._targets:
            self._targets[request.url] = target(request.url)
        headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        timeouts = self._timeouts or default_timeouts(request.provider)
        to = self._targets[request.url]
        return Call(to, headers, request.body, timeouts, safe_to_repeat=request.safe_to_repeat)

    def _count(self, duration: float, *, reused: bool) -> None:
        self.metrics.record_request(duration, reused)
        pool_metrics.record_request(duration, reused)

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        self.metrics.record_event(event)
        pool_metrics.record_event(event)


class FreshConnections(Transport):
    """Opens a new connection for every request: the baseline of `connection_pool`.

    It is synthetic. The guide calls it "before", but every agent and SDK measured so far
    keeps connections alive. By default it shares the TLS context, so a comparison with
    `PooledConnections` measures connections and not the reading of certificates.
    """

    @cached_property
    def _connectors(self) -> "dict[str, Callable[[], httpcore.AsyncConnectionInterface]]":
        """Connection factories by origin."""
        return {}

    async def close(self) -> None:
        """Does nothing: no connection is kept."""

    async def _acquire(
        self, provider: str, call: "Call", *, fresh: bool
    ) -> tuple[ManagedConnection, Release]:
        from agent_core._http import connector

        origin = call.to.origin
        if origin not in self._connectors:
            self._connectors[origin] = connector(
                call.to, http2=False, keepalive=0.0, shared_tls=self._shared_tls
            )
        return ManagedConnection(self._connectors[origin]()), self._close_connection

    @staticmethod
    async def _close_connection(managed: ManagedConnection) -> None:
        await managed.connection.aclose()
