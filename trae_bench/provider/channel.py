"""A client's connection as a stream of bytes on the reactor.

A `Channel` carries bytes; a `ProtocolHandler` parses and answers them. Channels are stacked:
the socket's channel at the bottom, then a `DelayedChannel` and a `TlsChannel` if a scenario
needs them.
"""

import socket
import struct
import time
from collections import deque
from typing import Protocol

from trae_bench.provider.reactor import READ, WRITE, Reactor

GRACEFUL = 0
"""Close as the protocol prescribes, including the TLS close_notify."""
ABRUPT = 1
"""Close the TCP connection without a protocol-level close."""
RESET = 2
"""Send a TCP reset, so that the client gets an error instead of end of file."""

_READ_BUFFER = memoryview(bytearray(262_144))
"""Shared by all reads. A new buffer for each read would be mapped and unmapped every time."""
_LINGER_ZERO = struct.pack("ii", 1, 0)

Bytes = bytes | memoryview


class ProtocolHandler(Protocol):
    """Receives the bytes and events of a channel."""

    def data_received(self, data: Bytes) -> None:
        """`data` is valid only until this method returns."""
        ...

    def drained(self, when: float) -> None:
        """All sent data has left; the last of it was handed on at `when` (monotonic seconds)."""
        ...

    def connection_lost(self) -> None:
        """The client disconnected or the connection broke. No other method is called later."""
        ...


class Channel(Protocol):
    """Carries bytes between a client and a handler."""

    handler: ProtocolHandler
    """Set before `open`; may be replaced later."""
    handshakes: int
    """Completed TLS handshakes: 0 or 1."""

    def open(self) -> None: ...

    def send(self, data: bytes) -> float | None:
        """Return the time at which all data was handed on (monotonic seconds).

        None if `drained` reports it later, or if the connection is lost.
        """
        ...

    def close(self, mode: int) -> None:
        """Close after all data is sent. The handler is not called again."""
        ...


class SocketChannel:
    """The channel of a TCP connection."""

    handler: ProtocolHandler

    def __init__(self, reactor: Reactor, client: socket.socket) -> None:
        self.handshakes = 0
        self._reactor = reactor
        self._client = client
        self._unsent: deque[memoryview] = deque()
        """Data that the kernel's send buffer had no space for."""
        self._open = True
        self._close_mode: int | None = None

    def open(self) -> None:
        self._reactor.watch(self._client.fileno(), self._ready)

    def send(self, data: bytes) -> float | None:
        if self._unsent or not self._open:
            if self._open:
                self._unsent.append(memoryview(data))
            return None
        # Read the clock first: before the call returns, the client can have the reply and
        # this process can lose its core to it.
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
        self._unsent.append(memoryview(data)[sent:])
        self._reactor.want(self._client.fileno(), WRITE)
        return None

    def close(self, mode: int) -> None:
        self._close_mode = mode
        if not self._unsent:
            self._close()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write_unsent()
        elif self._open:
            self._read()

    def _read(self) -> None:
        try:
            size = self._client.recv_into(_READ_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.handler.data_received(_READ_BUFFER[:size])
        else:
            self._lost()

    def _write_unsent(self) -> None:
        while self._unsent:
            now = time.monotonic()
            try:
                sent = self._client.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            self._unsent[0] = self._unsent[0][sent:]
            if not self._unsent[0]:
                self._unsent.popleft()
        if self._close_mode is not None:
            self._close()
            return
        self._reactor.want(self._client.fileno(), READ)
        self.handler.drained(now)

    def _lost(self) -> None:
        was_closing = self._close_mode is not None
        self._close_mode = ABRUPT
        self._close()
        if not was_closing:
            self.handler.connection_lost()

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._unsent.clear()
        if self._close_mode == RESET:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self._reactor.unwatch(self._client.fileno())
        self._client.close()
