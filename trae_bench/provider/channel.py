"""One client's connection as a stream of bytes on the reactor.

A `Channel` carries bytes, a `ProtocolHandler` understands them. Channels stand on each other: the
socket's below, then the delay line's where a scenario asks for distance, then TLS.
"""

import socket
import struct
import time
from collections import deque
from typing import Protocol

from trae_bench.provider.reactor import READ, WRITE, Reactor

POLITE = 0
"""The end as the protocols want it."""
CUT = 1
"""No farewell, whatever the protocol would say."""
RESET = 2
"""Torn down, so that the client gets an error and no end of data."""

_INBOX = memoryview(bytearray(262_144))
"""Where all reads go: a buffer of its own for each read would be mapped and unmapped."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Bytes = bytes | memoryview


class ProtocolHandler(Protocol):
    """What hears the bytes."""

    def received(self, data: Bytes) -> None:
        """`data` is only good until this returns."""
        ...

    def drained(self, when: float) -> None:
        """All that was sent has left; the last of it was handed on then."""
        ...

    def gone(self) -> None:
        """The client has left, or the connection has broken: nothing more will come or go."""
        ...


class Channel(Protocol):
    """What carries them."""

    talk: ProtocolHandler
    """Who hears the bytes; set before `open`, and may be replaced by another."""
    handshakes: int
    """Completed TLS handshakes: 0 or 1."""

    def open(self) -> None: ...

    def send(self, data: bytes) -> float | None:
        """The time at which all of it was handed on; None where `drained` will say it, or
        `gone` has said that nothing goes any more."""
        ...

    def end(self, how: int) -> None:
        """Closes when all is sent. The talk hears nothing more."""
        ...


class SocketChannel:
    """The connection itself."""

    talk: ProtocolHandler

    def __init__(self, reactor: Reactor, client: socket.socket) -> None:
        self.handshakes = 0
        self._reactor = reactor
        self._client = client
        self._rest: deque[memoryview] = deque()
        """What the kernel had no room for yet."""
        self._open = True
        self._ending: int | None = None

    def open(self) -> None:
        self._reactor.watch(self._client.fileno(), self._ready)

    def send(self, data: bytes) -> float | None:
        if self._rest or not self._open:
            if self._open:
                self._rest.append(memoryview(data))
            return None
        # Read before the call: the client may have its reply, and this process may have lost
        # its core to it, before the call is back.
        now = time.monotonic()
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return None
        if sent == len(data):
            return now
        self._rest.append(memoryview(data)[sent:])
        self._reactor.want(self._client.fileno(), WRITE)
        return None

    def end(self, how: int) -> None:
        self._ending = how
        if not self._rest:
            self._close()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write_rest()
        elif self._open:
            self._read()

    def _read(self) -> None:
        try:
            size = self._client.recv_into(_INBOX)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.talk.received(_INBOX[:size])
        else:
            self._lost()

    def _write_rest(self) -> None:
        while self._rest:
            now = time.monotonic()
            try:
                sent = self._client.send(self._rest[0])
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            self._rest[0] = self._rest[0][sent:]
            if not self._rest[0]:
                self._rest.popleft()
        if self._ending is not None:
            self._close()
            return
        self._reactor.want(self._client.fileno(), READ)
        self.talk.drained(now)

    def _lost(self) -> None:
        told = self._ending is not None
        self._ending = CUT
        self._close()
        if not told:
            self.talk.gone()

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._rest.clear()
        if self._ending == RESET:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._reactor.forget(self._client.fileno())
        self._client.close()
