"""Connections to providers: a new one for every request, or kept alive and shared safely.

Both bodies of the port `Connections` send, retry and count through `_Carrier`; they
differ in where a connection comes from and where it goes afterwards.

The guide's own names (`get_client`, `get_pooled_client`, `PooledOpenAIClient`,
`pool_metrics`) work on the same pools. `pool_metrics` counts for the whole process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from agent_core.ports import Request, Response
from agent_core.providers import PROVIDERS
from agent_core.retries import BackOff, Clock, Failed, Retrier

if TYPE_CHECKING:
    import httpcore
    import httpx

    from agent_core._http import Call, Exchange, Target

KEEPALIVE = 60.0
"""Seconds an idle connection is kept: longer than most tool calls, shorter than the idle
limit of the providers' front ends."""

_TIMEOUTS: dict[str, float | None] = {"connect": 10.0, "read": 600.0, "write": 60.0}
_PROVIDER_TIMEOUTS: dict[str, dict[str, float | None]] = {
    # A local server answers the connect at once or never, but may load a model first.
    "ollama": {"connect": 3.0, "read": 1800.0, "write": 60.0},
}
_KEY_HEADERS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")


class ConnectionPoolMetrics:
    """Counts requests and connections."""

    def __init__(self) -> None:
        self.request_count = 0
        self.connection_reuse_count = 0
        self.total_request_time = 0.0
        """Seconds, from sending to the end of the body."""
        self.connections_opened = 0
        self.tls_handshakes = 0

    def record_request(self, duration: float, connection_reused: bool = False) -> None:
        """One answered request; `duration` in seconds."""
        self.request_count += 1
        self.total_request_time += duration
        self.connection_reuse_count += connection_reused

    def record_event(self, event: str) -> None:
        """One event of httpcore's trace: what really happened on the network."""
        if event.endswith("connect_tcp.complete"):
            self.connections_opened += 1
        elif event.endswith("start_tls.complete"):
            self.tls_handshakes += 1

    @property
    def average_request_time(self) -> float:
        """Seconds."""
        return self.total_request_time / self.request_count if self.request_count else 0.0

    def get_stats(self) -> dict[str, float]:
        requests = self.request_count
        reuse = 100 * self.connection_reuse_count / requests if requests else 0.0
        return {
            "total_requests": requests,
            "connection_reuse_count": self.connection_reuse_count,
            "connection_reuse_rate_percent": round(reuse, 2),
            "average_request_time_ms": round(self.average_request_time * 1000, 2),
            "total_request_time_seconds": round(self.total_request_time, 2),
            "connections_opened": self.connections_opened,
            "tls_handshakes": self.tls_handshakes,
        }


pool_metrics = ConnectionPoolMetrics()


# ----------------------------------------------------------------- what both sides share


class _Wire:
    """One connection and the number of requests on it (more than one with HTTP/2)."""

    __slots__ = ("answered", "connection", "users")

    def __init__(self, connection: "httpcore.AsyncConnectionInterface") -> None:
        self.connection = connection
        self.users = 0
        self.answered = False
        """Whether a reply ever came over it: only then can it have gone stale."""


GiveBack = Callable[[_Wire], Awaitable[None]]


class _Carrier:
    """Sends, retries, counts. The bodies below say which connection a request gets.

    All connections of a process share one TLS context, unless `shared_tls` is false; then
    each reads the certificates into its own.
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
        answer = await self._retrier.run(lambda: self._whole(request.provider, call))
        return Response(answer.status, answer.headers, answer.body)

    @asynccontextmanager
    async def stream(
        self, request: Request
    ) -> AsyncIterator[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        """Raises `ConnectionFailedError`, also while the body is read."""
        answer = await self.open(request.provider, self._call(request))
        chunks = answer.chunks()
        try:
            yield answer.status, answer.headers, chunks
        finally:
            await chunks.aclose()
            await answer.close()

    def stats(self) -> dict[str, float]:
        return {**self.metrics.get_stats(), "retries": self._retrier.retried}

    async def open(self, provider: str, call: "Call") -> "Exchange":
        """The head of an answer, retried; the body is the caller's to read and close."""
        return await self._retrier.run(lambda: self._head(provider, call))

    async def _whole(self, provider: str, call: "Call") -> "Exchange":
        exchange = await self._head(provider, call)
        try:
            await exchange.read()
        finally:
            await exchange.close()
        return exchange

    async def _head(self, provider: str, call: "Call") -> "Exchange":
        """One attempt. Raises `Failed`."""
        from agent_core._http import NotAvailable, StaleConnection

        fresh = False
        while True:
            wire, give_back = await self._take(provider, call, fresh=fresh)
            try:
                return await self._sent(wire, give_back, call)
            except NotAvailable:
                continue
            except StaleConnection as stale:
                if not call.safe_to_repeat:
                    raise Failed("The connection was closed", again=False) from stale.__cause__
                fresh = True  # its idle neighbours were probably closed with it

    async def _sent(self, wire: _Wire, give_back: GiveBack, call: "Call") -> "Exchange":
        from agent_core._http import Exchange, send

        stale, started = wire.answered, self._clock.now()
        # A connection that has answered was counted when it was opened.
        trace = None if stale else self._trace
        try:
            response = await send(wire.connection, call, reused=stale, trace=trace)
        except BaseException:
            await give_back(wire)
            raise
        # Asked anew: of several first requests over HTTP/2, all but one found it in use.
        reused, wire.answered = wire.answered, True

        async def release() -> None:
            self._count(self._clock.now() - started, reused=reused)
            await give_back(wire)

        return Exchange(response, release, safe_to_repeat=call.safe_to_repeat)

    async def _take(self, provider: str, call: "Call", *, fresh: bool) -> tuple[_Wire, GiveBack]:
        raise NotImplementedError

    def _call(self, request: Request) -> "Call":
        from agent_core._http import Call, target  # httpcore is imported with the first request

        if request.url not in self._targets:
            self._targets[request.url] = target(request.url)
        headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        limits = self._timeouts or _PROVIDER_TIMEOUTS.get(request.provider, _TIMEOUTS)
        to = self._targets[request.url]
        return Call(to, headers, request.body, limits, safe_to_repeat=request.safe_to_repeat)

    def _count(self, duration: float, *, reused: bool) -> None:
        self.metrics.record_request(duration, reused)
        pool_metrics.record_request(duration, reused)

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        self.metrics.record_event(event)
        pool_metrics.record_event(event)


# ------------------------------------------------------------------------------ baseline


class FreshConnections(_Carrier):
    """A new connection for every request. Synthetic: it is what the guide calls "before",
    and no agent or SDK that was measured works so; all keep connections alive.

    The TLS context is shared all the same, unless it is told otherwise, so that the contrast
    to `ConnectionPoolManager` is the connections and not the reading of certificates.
    """

    @cached_property
    def _connect(self) -> "dict[str, Callable[[], httpcore.AsyncConnectionInterface]]":
        """What makes a connection, by origin."""
        return {}

    async def close(self) -> None:
        """Nothing is kept, so nothing is closed."""

    async def _take(self, provider: str, call: "Call", *, fresh: bool) -> tuple[_Wire, GiveBack]:
        from agent_core._http import connector

        place = call.to.place
        if place not in self._connect:
            self._connect[place] = connector(
                call.to, http2=False, keepalive=0.0, shared_tls=self._shared_tls
            )
        return _Wire(self._connect[place]()), self._drop

    @staticmethod
    async def _drop(wire: _Wire) -> None:
        await wire.connection.aclose()


# ----------------------------------------------------------------------------- optimised


class _Pool:
    """The connections of one tenant to one origin on one event loop.

    Its methods decide and never wait; who calls them closes what they hand out. How many idle
    connections are kept, `_LoopPools` decides for all tenants together.
    """

    def __init__(
        self,
        connect: "Callable[[], httpcore.AsyncConnectionInterface]",
        *,
        http2: bool,
    ) -> None:
        self.under_way = 0
        """Requests."""
        self._connect = connect
        self._idle: list[_Wire] = []
        self._multiplexes = http2
        """Whether the origin speaks HTTP/2; until a connection stands, whether it may."""
        self._shared: _Wire | None = None
        """The HTTP/2 connection that takes the next request."""

    def take(self, *, fresh: bool) -> tuple[_Wire, list[_Wire]]:
        """A connection for one request, and dead ones to close; `fresh` asks for a new one."""
        closing: list[_Wire] = []
        wire = None if fresh else self._kept(closing)
        if wire is None:
            wire = _Wire(self._connect())
            if self._multiplexes:
                closing += self._replace_shared(wire)
        wire.users += 1
        self.under_way += 1
        return wire, closing

    def take_back(self, wire: _Wire) -> bool:
        """Ends a request; whether its connection is whole and may be kept."""
        wire.users -= 1
        self.under_way -= 1
        # Decided from the connection and not from the reply: a request that waited for
        # another's handshake learns here, long before any reply, that it must not wait.
        if self._multiplexes and "HTTP/1.1" in wire.connection.info():
            self._multiplexes = False
            self._shared = None
        if wire.users or (wire is self._shared and self._usable(wire)):
            return True
        if wire is self._shared:
            self._shared = None
        elif not self._multiplexes and wire.connection.is_idle():
            self._idle.append(wire)
            return True
        return False

    def forget(self, wire: _Wire) -> None:
        """Keeps an idle connection no longer."""
        if wire is self._shared:
            self._shared = None
        elif wire in self._idle:
            self._idle.remove(wire)

    @property
    def empty(self) -> bool:
        return not (self.under_way or self._idle or self._shared)

    def _kept(self, closing: list[_Wire]) -> _Wire | None:
        while self._idle:
            # The last one used: the others may then grow old and be closed.
            wire = self._idle.pop()
            if not wire.connection.has_expired():
                return wire
            closing.append(wire)
        if self._shared is not None and self._usable(self._shared):
            return self._shared
        return None

    def _replace_shared(self, wire: _Wire | None) -> list[_Wire]:
        before, self._shared = self._shared, wire
        return [before] if before is not None and before.users == 0 else []

    @staticmethod
    def _usable(wire: _Wire) -> bool:
        return wire.connection.is_available() and not wire.connection.has_expired()


class _PoolKey(NamedTuple):
    """What connections are shared by."""

    provider: str
    place: str
    tenant: bytes
    http2: bool
    shares_tls: bool


class _LoopPools:
    """All pools of one event loop, open as long as any manager uses them."""

    def __init__(self) -> None:
        self.pools: dict[_PoolKey, _Pool] = {}
        self.members = 0
        self.room = 0
        """How many idle connections are kept, in all pools together."""
        self._idle: dict[_Wire, tuple[_PoolKey, float]] = {}
        """Whose each is, and since when it is idle in the manager's seconds; the longest idle
        come first, so that nobody has to look at the others."""

    def join(self, room: int) -> None:
        self.members += 1
        self.room += room

    def leave(self, room: int, now: float) -> list[_Wire]:
        """The connections to close, all idle ones where nobody is left; the others close when
        their requests end."""
        self.members -= 1
        self.room -= room
        return self._surplus(now)

    def take(self, key: _PoolKey, to: "Target", *, fresh: bool) -> tuple[_Wire, list[_Wire]]:
        """A connection of that pool to `to`, and dead ones to close."""
        if key not in self.pools:
            self.pools[key] = self._new_pool(key, to)
        wire, closing = self.pools[key].take(fresh=fresh)
        for each in (wire, *closing):
            self._idle.pop(each, None)
        return wire, closing

    def take_back(self, key: _PoolKey, wire: _Wire, now: float) -> list[_Wire]:
        """Ends a request over `wire`. The connections to close: those too many or too old."""
        kept = self.pools[key].take_back(wire)
        if kept and not wire.users:
            self._idle[wire] = (key, now)
        closing = self._surplus(now)
        if not kept:
            closing.append(wire)
        self._drop_if_empty(key)
        return closing

    @staticmethod
    def _new_pool(key: _PoolKey, to: "Target") -> _Pool:
        from agent_core._http import connector

        connect = connector(to, http2=key.http2, keepalive=KEEPALIVE, shared_tls=key.shares_tls)
        return _Pool(connect, http2=key.http2)

    def _surplus(self, now: float) -> list[_Wire]:
        closing: list[_Wire] = []
        while self._idle:
            wire, (key, since) = next(iter(self._idle.items()))
            if len(self._idle) <= self.room and now - since < KEEPALIVE:
                break
            del self._idle[wire]
            closing.append(wire)
            if key in self.pools:
                self.pools[key].forget(wire)
                self._drop_if_empty(key)
        return closing

    def _drop_if_empty(self, key: _PoolKey) -> None:
        if self.pools[key].empty:
            del self.pools[key]


_LOOPS: dict[asyncio.AbstractEventLoop, _LoopPools] = {}
"""A connection belongs to the loop it was opened on and is dead in every other."""


def _pools_of(loop: asyncio.AbstractEventLoop) -> _LoopPools:
    _forget_ended_loops()
    return _LOOPS.setdefault(loop, _LoopPools())


def _forget_ended_loops() -> None:
    # Other threads have loops of their own, and come and go here meanwhile.
    for loop in list(_LOOPS):
        if loop.is_closed():
            _LOOPS.pop(loop, None)


def _digest(values: list[bytes]) -> bytes:
    """Stands for a key where pools are told apart, so that no table holds the key itself."""
    from hashlib import blake2b  # kept out of the import: only who sends a request needs it

    return blake2b(b"\0".join(values), digest_size=16).digest()


class ConnectionPoolManager(_Carrier):
    """Connections kept alive and shared by all managers of an event loop.

    A connection is used again only for the same provider, origin and key: what one tenant
    sends never travels on a connection opened for another. Each request carries its own
    headers; no connection has any of its own.

    `max_connections` bounds the requests that one manager has under way;
    `max_keepalive_connections` is what one manager adds to the idle connections that are
    kept, those of all tenants and providers together. Whenever a request ends, those too many
    or idle for longer than `KEEPALIVE` are closed, the longest idle first. The connections of
    a loop are closed with the last manager that used them there, so a program that runs
    sessions one after another keeps one manager open around them.

    HTTP/2 is spoken where address (https), server and an installed h2 allow it.
    """

    _clients: ClassVar[dict[tuple[Any, ...], "httpx.AsyncClient"]] = {}

    def __init__(
        self,
        *,
        max_connections: int = 10,
        max_keepalive_connections: int | None = None,
        http2: bool = True,
        max_retries: int = 10,
        timeouts: Mapping[str, float | None] | None = None,
        back_off: BackOff | None = None,
        clock: Clock | None = None,
        shared_tls: bool = True,
    ) -> None:
        super().__init__(
            max_retries=max_retries,
            timeouts=timeouts,
            back_off=back_off,
            clock=clock,
            shared_tls=shared_tls,
        )
        self._limit = max_connections
        self._room = max_connections
        if max_keepalive_connections is not None:
            self._room = max_keepalive_connections
        self._http2 = http2
        self._joined: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    async def __aenter__(self) -> Self:
        self._join(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leaves the running loop's pools; the last manager there closes them."""
        loop = asyncio.get_running_loop()
        pools = _pools_of(loop)
        if self._joined.pop(loop, None) is not None:
            closing = pools.leave(self._room, self._clock.now())
            await _close(closing)
        if not pools.members:
            _LOOPS.pop(loop, None)

    def _join(self, loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
        for other in [other for other in self._joined if other.is_closed()]:
            del self._joined[other]
        if loop not in self._joined:
            _pools_of(loop).join(self._room)
            self._joined[loop] = asyncio.Semaphore(self._limit)
        return self._joined[loop]

    async def _take(self, provider: str, call: "Call", *, fresh: bool) -> tuple[_Wire, GiveBack]:
        loop = asyncio.get_running_loop()
        slots, pools = self._join(loop), _pools_of(loop)
        await _acquire(slots, call.timeouts.get("pool"))
        try:
            key = self._key(provider, call)
            wire, closing = pools.take(key, call.to, fresh=fresh)
            await _close(closing)
        except BaseException:
            slots.release()
            raise

        async def give_back(wire: _Wire) -> None:
            slots.release()
            await _close(pools.take_back(key, wire, self._clock.now()))

        return wire, give_back

    def _key(self, provider: str, call: "Call") -> _PoolKey:
        from agent_core._http import http2_possible

        http2 = self._http2 and call.to.secure and http2_possible()
        keys = [value for name, value in call.headers if name.lower() in _KEY_HEADERS]
        return _PoolKey(provider, call.to.place, _digest(keys), http2, self._shared_tls)

    # ------------------------------------------------------------------- the guide's names

    @classmethod
    async def get_client(
        cls,
        provider: str,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        max_connections: int = 10,
        max_keepalive_connections: int = 5,
    ) -> "httpx.AsyncClient":
        """An `httpx.AsyncClient` for one provider, address, key and event loop.

        It is kept until `close_all`. Without `api_key` it carries no key. `base_url` is
        the provider's own where it is left out; `timeout` (seconds) replaces the
        provider's, and bounds the wait for a free connection as well. A timeout is raised
        and not retried. Raises `ValueError` for a provider without an address.
        """
        from agent_core._httpx import pooled_client

        loop = asyncio.get_running_loop()
        known = PROVIDERS.get(provider)
        address = base_url or (known.base_url if known else None)
        if address is None:
            raise ValueError(f"{provider!r} has no default address; pass base_url.")
        digest = _digest([(api_key or "").encode()])
        key = (loop, provider, address, digest, timeout, max_connections, max_keepalive_connections)
        if key not in cls._clients or cls._clients[key].is_closed:
            for old in list(cls._clients):
                if old[0].is_closed():
                    cls._clients.pop(old, None)
            carrier = cls(
                max_connections=max_connections,
                max_keepalive_connections=max_keepalive_connections,
            )
            limits = _PROVIDER_TIMEOUTS.get(provider, _TIMEOUTS) if timeout is None else timeout
            headers = known.headers(api_key or "") if known else _bearer(api_key)
            cls._clients[key] = pooled_client(carrier, provider, address, headers, limits)
        return cls._clients[key]

    @classmethod
    @asynccontextmanager
    async def get_pooled_client(
        cls, provider: str, **options: Any
    ) -> AsyncIterator["httpx.AsyncClient"]:
        """`get_client` as a context; leaving it keeps the client for the next user."""
        yield await cls.get_client(provider, **options)

    @classmethod
    async def close_all(cls) -> None:
        """Closes every client of the running loop that `get_client` handed out."""
        loop = asyncio.get_running_loop()
        for key in list(cls._clients):
            if key[0] is loop:
                await cls._clients.pop(key).aclose()
            elif key[0].is_closed():
                cls._clients.pop(key, None)
        _forget_ended_loops()


def get_pooled_client(
    provider: str, **options: Any
) -> AbstractAsyncContextManager["httpx.AsyncClient"]:
    """`ConnectionPoolManager.get_pooled_client`, as a function."""
    return ConnectionPoolManager.get_pooled_client(provider, **options)


class PooledOpenAIClient:
    """Chat Completions over pooled connections, in plain dictionaries."""

    def __init__(self, api_key: str, base_url: str | None = None) -> None:
        self._api_key = api_key
        self._base_url = base_url

    async def chat_completion(self, **fields: Any) -> dict[str, Any]:
        """The reply to a request of these fields. Raises `httpx.HTTPStatusError`."""
        client = await self._client()
        response = await client.post("/chat/completions", json=fields)
        response.raise_for_status()
        reply: dict[str, Any] = response.json()
        return reply

    async def chat_completion_stream(self, **fields: Any) -> AsyncIterator[str]:
        """The data of each event, `[DONE]` last. Raises `httpx.HTTPStatusError`."""
        client = await self._client()
        body = {**fields, "stream": True}
        async with client.stream("POST", "/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    yield line[5:].strip()

    async def _client(self) -> "httpx.AsyncClient":
        # Asked for at each request, because the running loop may be another one.
        return await ConnectionPoolManager.get_client(
            "openai",
            base_url=self._base_url,
            api_key=self._api_key,
            max_connections=15,
            max_keepalive_connections=8,
        )


def _bearer(api_key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


async def _acquire(slots: asyncio.Semaphore, seconds: float | None) -> None:
    """Raises `Failed` where no place is free in time."""
    try:
        async with asyncio.timeout(seconds):
            await slots.acquire()
    except TimeoutError as error:
        raise Failed(f"No connection was free within {seconds:g} s", again=False) from error


async def _close(wires: list[_Wire]) -> None:
    for wire in wires:
        await wire.connection.aclose()
