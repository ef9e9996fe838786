"""A delay line: distance to the provider, without the kernel's help.

Half a round trip each way, and a rate at which bytes leave. Opening a connection costs a
round trip, as TCP does: the kernel of this machine has let the client in at once, so what
it says first is held back by that much more.
"""

import time
from collections import deque
from collections.abc import Callable

from trae_bench.provider.channel import Bytes, Channel, ProtocolHandler
from trae_bench.provider.reactor import Reactor, Timer

_PACKET = 16_384
"""Bytes of a slow reply that arrive together."""


class Line:
    """One direction. What is put in comes out in order, each thing at its time."""

    def __init__(self, reactor: Reactor, seconds: float, rate: float | None) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._rate = rate
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: Timer | None = None
        self.free_at = 0.0
        """When the last byte that was put in has left on its way (monotonic seconds)."""

    def put(self, size: int, arrive: Callable[[], None], *, not_before: float = 0.0) -> None:
        leaves = max(self.free_at, time.monotonic())
        if self._rate is not None:
            leaves += size / self._rate
        self.free_at = leaves
        self._waiting.append((max(leaves + self._seconds, not_before), arrive))
        self._wind()

    def stop(self) -> None:
        self._waiting.clear()

    def _wind(self) -> None:
        if self._timer is None and self._waiting:
            seconds = max(0.0, self._waiting[0][0] - time.monotonic())
            self._timer = self._reactor.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1]()
        self._wind()


class DelayedChannel:
    """Stands on the socket's channel and hands everything on later, both ways."""

    talk: ProtocolHandler

    def __init__(self, reactor: Reactor, below: Channel, *, rtt: float, rate: float | None) -> None:
        self.handshakes = 0
        self._reactor = reactor
        self._below = below
        self._rate = rate
        self._in = Line(reactor, rtt / 2, rate)
        self._out = Line(reactor, rtt / 2, rate)
        self._opened = time.monotonic() + 1.5 * rtt
        """Before this, nothing of the client can have arrived."""
        self._over = False

    def open(self) -> None:
        self._below.talk = self
        self._below.open()

    # -- from below

    def received(self, data: Bytes) -> None:
        kept = bytes(data)
        self._in.put(len(kept), lambda: self._hand_up(kept), not_before=self._opened)

    def drained(self, when: float) -> None:
        """What lies below has no say: the line is what takes its time."""

    def gone(self) -> None:
        self._out.stop()
        self._in.put(0, self._hand_gone, not_before=self._opened)

    def _hand_up(self, data: bytes) -> None:
        if not self._over:
            self.talk.received(data)

    def _hand_gone(self) -> None:
        if not self._over:
            self._over = True
            self.talk.gone()

    # -- from above

    def send(self, data: bytes) -> float | None:
        if self._rate is None:
            self._out.put(len(data), lambda: self._hand_down(data))
            return self._out.free_at
        for start in range(0, len(data), _PACKET):
            self._put_packet(data[start : start + _PACKET])
        self._reactor.call_later(self._out.free_at - time.monotonic(), self._has_left)
        return None

    def end(self, how: int) -> None:
        self._over = True
        self._in.stop()
        self._out.put(0, lambda: self._below.end(how))

    def _put_packet(self, packet: bytes) -> None:
        self._out.put(len(packet), lambda: self._hand_down(packet))

    def _hand_down(self, data: bytes) -> None:
        self._below.send(data)

    def _has_left(self) -> None:
        # Where more was sent meanwhile, its own timer will say so.
        if not self._over and self._out.free_at <= time.monotonic():
            self.talk.drained(self._out.free_at)
