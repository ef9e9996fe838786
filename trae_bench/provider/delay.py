"""Simulates latency and bandwidth in user space, without kernel traffic control.

Each direction has half the round-trip time and an optional bandwidth. The kernel accepts a
loopback connection at once, so a client's first bytes are delayed by another round trip: the
cost of the TCP handshake.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from trae_bench.provider.channel import Bytes, Channel, ProtocolHandler
from trae_bench.provider.reactor import Reactor, Timer

_PACKET = 16_384
"""Bytes delivered together when bandwidth is limited."""


class DelayLine:
    """One direction. Calls the deliveries in order, each at its time."""

    def __init__(self, reactor: Reactor, seconds: float, bandwidth: float | None) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._bandwidth = bandwidth
        self._pending: deque[tuple[float, Callable[[], object]]] = deque()
        self._timer: Timer | None = None
        self.free_at = 0.0
        """When the last queued byte has left the sender (monotonic seconds)."""

    def put(self, size: int, deliver: Callable[[], object], *, not_before: float = 0.0) -> None:
        """Queue `size` bytes; `deliver` runs when they arrive, at `not_before` at the earliest."""
        leaves = max(self.free_at, time.monotonic())
        if self._bandwidth is not None:
            leaves += size / self._bandwidth
        self.free_at = leaves
        self._pending.append((max(leaves + self._seconds, not_before), deliver))
        self._schedule()

    def stop(self) -> None:
        self._pending.clear()

    def _schedule(self) -> None:
        if self._timer is None and self._pending:
            seconds = max(0.0, self._pending[0][0] - time.monotonic())
            self._timer = self._reactor.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._pending and self._pending[0][0] <= now:
            self._pending.popleft()[1]()
        self._schedule()


class DelayedChannel:
    """Wraps a channel and delays the data in both directions."""

    handler: ProtocolHandler

    def __init__(
        self, reactor: Reactor, below: Channel, *, rtt: float, bandwidth: float | None
    ) -> None:
        self.handshakes = 0
        self._reactor = reactor
        self._below = below
        self._bandwidth = bandwidth
        self._in = DelayLine(reactor, rtt / 2, bandwidth)
        self._out = DelayLine(reactor, rtt / 2, bandwidth)
        self._opened = time.monotonic() + 1.5 * rtt
        """The earliest arrival of the client's first bytes."""
        self._closed = False

    def open(self) -> None:
        self._below.handler = self
        self._below.open()

    # -- called by the channel below

    def data_received(self, data: Bytes) -> None:
        copy = bytes(data)
        self._in.put(len(copy), lambda: self._deliver(copy), not_before=self._opened)

    def drained(self, when: float) -> None:
        """Ignored: the delay line determines when data has left."""

    def connection_lost(self) -> None:
        self._out.stop()
        self._in.put(0, self._deliver_loss, not_before=self._opened)

    def _deliver(self, data: bytes) -> None:
        if not self._closed:
            self.handler.data_received(data)

    def _deliver_loss(self) -> None:
        if not self._closed:
            self._closed = True
            self.handler.connection_lost()

    # -- called by the handler

    def send(self, data: bytes) -> float | None:
        if self._bandwidth is None:
            self._out.put(len(data), partial(self._below.send, data))
            return self._out.free_at
        for start in range(0, len(data), _PACKET):
            packet = data[start : start + _PACKET]
            self._out.put(len(packet), partial(self._below.send, packet))
        self._reactor.call_later(self._out.free_at - time.monotonic(), self._report_drained)
        return None

    def close(self, mode: int) -> None:
        self._closed = True
        self._in.stop()
        self._out.put(0, lambda: self._below.close(mode))

    def _report_drained(self) -> None:
        # If more was sent meanwhile, the timer of that data reports it.
        if not self._closed and self._out.free_at <= time.monotonic():
            self.handler.drained(self._out.free_at)
