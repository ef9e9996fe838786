"""The optimised transport: connections kept alive and shared."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Self

from agent_core.connections import ManagedConnection, Release, Transport
from agent_core.loop_pools import PoolKey, digest, drop_pools, pools_of
from agent_core.retries import AttemptFailed, BackOff, Clock

if TYPE_CHECKING:
    from agent_core._http import Call

_KEY_HEADERS = (b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key")


class PooledConnections(Transport):
    """Connections kept alive and shared by all instances on one event loop.

    A connection serves one provider, origin and API key only. Each request carries its own
    headers; a connection has none.

    `max_connections` limits the concurrent requests of one instance.
    `max_keepalive_connections` is what one instance adds to the number of idle connections
    kept on the loop, for all tenants and providers together. After each request, surplus
    connections and those idle for `KEEPALIVE` are closed, the longest idle first. The last
    instance on a loop closes all of them, so a program that runs several sessions should
    keep one instance open.

    HTTP/2 needs an https address, a server that supports it, and h2 installed.
    """

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
        self._max_connections = max_connections
        self._max_idle = max_connections
        if max_keepalive_connections is not None:
            self._max_idle = max_keepalive_connections
        self._http2 = http2
        self._joined: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    async def __aenter__(self) -> Self:
        self._join(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leaves the pools of the running loop. The last instance there closes them."""
        loop = asyncio.get_running_loop()
        pools = pools_of(loop)
        if self._joined.pop(loop, None) is not None:
            await _close_all(pools.leave(self._max_idle, self._clock.now()))
        if not pools.members:
            drop_pools(loop)

    def _join(self, loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
        for other in [other for other in self._joined if other.is_closed()]:
            del self._joined[other]
        if loop not in self._joined:
            pools_of(loop).join(self._max_idle)
            self._joined[loop] = asyncio.Semaphore(self._max_connections)
        return self._joined[loop]

    async def _acquire(
        self, provider: str, call: "Call", *, fresh: bool
    ) -> tuple[ManagedConnection, Release]:
        loop = asyncio.get_running_loop()
        slots, pools = self._join(loop), pools_of(loop)
        await _acquire_slot(slots, call.timeouts.get("pool"))
        try:
            key = self._key(provider, call)
            managed, closing = pools.acquire(key, call.to, fresh=fresh)
            await _close_all(closing)
        except BaseException:
            slots.release()
            raise

        async def release(managed: ManagedConnection) -> None:
            slots.release()
            await _close_all(pools.release(key, managed, self._clock.now()))

        return managed, release

    def _key(self, provider: str, call: "Call") -> PoolKey:
        from agent_core._http import http2_possible

        http2 = self._http2 and call.to.secure and http2_possible()
        keys = [value for name, value in call.headers if name.lower() in _KEY_HEADERS]
        return PoolKey(provider, call.to.origin, digest(keys), http2, self._shared_tls)


async def _acquire_slot(slots: asyncio.Semaphore, seconds: float | None) -> None:
    """Raises `AttemptFailed` if no slot is free within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await slots.acquire()
    except TimeoutError as error:
        raise AttemptFailed(
            f"No connection was free within {seconds:g} s", retryable=False
        ) from error


async def _close_all(connections: Iterable[ManagedConnection]) -> None:
    for managed in connections:
        await managed.connection.aclose()
