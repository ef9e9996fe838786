"""The kept connections of each event loop.

The classes here decide which connection serves a request and which ones to close. They do
no I/O: each method returns the connections that its caller must close.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from agent_core.connections import ManagedConnection

if TYPE_CHECKING:
    import httpcore

    from agent_core._http import Target

KEEPALIVE = 60.0
"""Seconds an idle connection is kept: longer than most tool calls, shorter than the idle
limit of the providers' front ends."""


class OriginPool:
    """The connections of one tenant to one origin on one event loop.

    `LoopPools` limits the number of idle connections over all tenants.
    """

    def __init__(
        self,
        connect: "Callable[[], httpcore.AsyncConnectionInterface]",
        *,
        http2: bool,
    ) -> None:
        self.active_requests = 0
        self._connect = connect
        self._idle: list[ManagedConnection] = []
        self._multiplexes = http2
        """Whether the origin speaks HTTP/2; before the first handshake, whether it may."""
        self._shared: ManagedConnection | None = None
        """The HTTP/2 connection that takes the next request."""

    def acquire(self, *, fresh: bool) -> tuple[ManagedConnection, list[ManagedConnection]]:
        """A connection for one request, and expired ones to close.

        `fresh` requires a new connection.
        """
        closing: list[ManagedConnection] = []
        managed = None if fresh else self._kept(closing)
        if managed is None:
            managed = ManagedConnection(self._connect())
            if self._multiplexes:
                before, self._shared = self._shared, managed
                if before is not None and before.users == 0:
                    closing.append(before)
        managed.users += 1
        self.active_requests += 1
        return managed, closing

    def release(self, managed: ManagedConnection) -> bool:
        """Ends a request. Returns whether its connection may be kept."""
        managed.users -= 1
        self.active_requests -= 1
        # Decided from the connection, not the response: a request that waited for another's
        # handshake then knows at once that it must not share an HTTP/1.1 connection.
        if self._multiplexes and "HTTP/1.1" in managed.connection.info():
            self._multiplexes = False
            self._shared = None
        if managed.users or (managed is self._shared and self._usable(managed)):
            return True
        if managed is self._shared:
            self._shared = None
        elif not self._multiplexes and managed.connection.is_idle():
            self._idle.append(managed)
            return True
        return False

    def forget(self, managed: ManagedConnection) -> None:
        """Stops keeping an idle connection."""
        if managed is self._shared:
            self._shared = None
        elif managed in self._idle:
            self._idle.remove(managed)

    @property
    def empty(self) -> bool:
        return not (self.active_requests or self._idle or self._shared)

    def _kept(self, closing: list[ManagedConnection]) -> ManagedConnection | None:
        while self._idle:
            # The most recently used one, so that the others expire and are closed.
            managed = self._idle.pop()
            if not managed.connection.has_expired():
                return managed
            closing.append(managed)
        if self._shared is not None and self._usable(self._shared):
            return self._shared
        return None

    @staticmethod
    def _usable(managed: ManagedConnection) -> bool:
        return managed.connection.is_available() and not managed.connection.has_expired()


class PoolKey(NamedTuple):
    """Requests share connections only if all of these are equal."""

    provider: str
    origin: str
    tenant: bytes
    """Digest of the API key."""
    http2: bool
    share_tls: bool


class LoopPools:
    """All pools of one event loop. They live as long as a transport uses them."""

    def __init__(self) -> None:
        self.pools: dict[PoolKey, OriginPool] = {}
        self.members = 0
        self.max_idle = 0
        """Idle connections kept, over all pools."""
        self._idle: dict[ManagedConnection, tuple[PoolKey, float]] = {}
        """The pool of each idle connection, and when it became idle (monotonic seconds). The
        longest idle comes first, so a scan stops at the first one to keep."""

    def join(self, max_idle: int) -> None:
        """Adds a transport and its share of idle connections."""
        self.members += 1
        self.max_idle += max_idle

    def leave(self, max_idle: int, now: float) -> list[ManagedConnection]:
        """Removes a transport. Returns the connections to close.

        After the last transport, that is every idle one. Busy ones close after their
        requests.
        """
        self.members -= 1
        self.max_idle -= max_idle
        return self._surplus(now)

    def acquire(
        self, key: PoolKey, to: "Target", *, fresh: bool
    ) -> tuple[ManagedConnection, list[ManagedConnection]]:
        """A connection of the pool `key` to `to`, and expired ones to close."""
        if key not in self.pools:
            self.pools[key] = self._new_pool(key, to)
        managed, closing = self.pools[key].acquire(fresh=fresh)
        for connection in (managed, *closing):
            self._idle.pop(connection, None)
        return managed, closing

    def release(
        self, key: PoolKey, managed: ManagedConnection, now: float
    ) -> list[ManagedConnection]:
        """Ends a request. Returns the connections to close: unusable, surplus or expired."""
        kept = self.pools[key].release(managed)
        if kept and not managed.users:
            self._idle[managed] = (key, now)
        closing = self._surplus(now)
        if not kept:
            closing.append(managed)
        self._drop_if_empty(key)
        return closing

    @staticmethod
    def _new_pool(key: PoolKey, to: "Target") -> OriginPool:
        from agent_core._http import connector

        connect = connector(to, http2=key.http2, keepalive=KEEPALIVE, shared_tls=key.share_tls)
        return OriginPool(connect, http2=key.http2)

    def _surplus(self, now: float) -> list[ManagedConnection]:
        closing: list[ManagedConnection] = []
        while self._idle:
            managed, (key, since) = next(iter(self._idle.items()))
            if len(self._idle) <= self.max_idle and now - since < KEEPALIVE:
                break
            del self._idle[managed]
            closing.append(managed)
            if key in self.pools:
                self.pools[key].forget(managed)
                self._drop_if_empty(key)
        return closing

    def _drop_if_empty(self, key: PoolKey) -> None:
        if self.pools[key].empty:
            del self.pools[key]


_LOOPS: dict[asyncio.AbstractEventLoop, LoopPools] = {}
"""A connection works only on the event loop that opened it."""


def pools_of(loop: asyncio.AbstractEventLoop) -> LoopPools:
    forget_closed_loops()
    return _LOOPS.setdefault(loop, LoopPools())


def drop_pools(loop: asyncio.AbstractEventLoop) -> None:
    _LOOPS.pop(loop, None)


def forget_closed_loops() -> None:
    # Other threads add and remove their loops at the same time, hence the copy.
    for loop in list(_LOOPS):
        if loop.is_closed():
            _LOOPS.pop(loop, None)


def digest(values: list[bytes]) -> bytes:
    """Identifies API keys in a table that must not hold the keys."""
    from hashlib import blake2b  # imported here: only a program that sends requests needs it

    return blake2b(b"\0".join(values), digest_size=16).digest()
