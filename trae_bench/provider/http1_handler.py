"""HTTP/1.1 on a channel. Requests are answered in order, one at a time."""

import time

from trae_bench.provider.channel import ABRUPT, GRACEFUL, Bytes, Channel
from trae_bench.provider.channel import RESET as RESET_CONNECTION
from trae_bench.provider.http1_parser import BadRequest, Request, RequestReader
from trae_bench.provider.reactor import Reactor, Timer
from trae_bench.provider.responses import KEEP_OPEN, RESET, Response, rejection
from trae_bench.provider.sessions import Exchange, Provider


class Http1Handler:
    """Serves one HTTP/1.1 connection."""

    def __init__(self, provider: Provider, reactor: Reactor, channel: Channel) -> None:
        self._provider = provider
        self._reactor = reactor
        self._channel = channel
        self._connection = provider.connection_opened()
        self._reader = RequestReader()
        self._pending: Exchange | None = None
        """The request whose response is not yet completely sent."""
        self._next_chunk = 0
        """Index of the next chunk of the pending response."""
        self._timer: Timer | None = None
        self._read_at = 0.0
        self._open = True

    def data_received(self, data: Bytes) -> None:
        self._read_at = time.monotonic()
        self._reader.feed(data)
        self._serve()

    def drained(self, when: float) -> None:
        # With a timer set, more chunks follow, so the response is not complete.
        if self._timer is None:
            self._complete(when)
            self._serve()

    def connection_lost(self) -> None:
        self._open = False
        self._provider.connection_closed()
        if self._timer is not None:
            self._timer.cancel()
        if self._pending is not None:
            self._pending.log(time.monotonic(), delivered=False)
            self._pending = None

    def _serve(self) -> None:
        while self._pending is None and self._open:
            try:
                request = self._reader.next()
            except BadRequest as error:
                self._reject(error)
                return
            if request is None:
                if self._reader.wants_continue():
                    self._channel.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._begin(request)

    def _reject(self, error: BadRequest) -> None:
        self._provider.unrouted += 1
        self._channel.send(rejection(error.status, error.reason, close=True).chunks[0])
        if self._open:
            self._close(GRACEFUL)

    def _begin(self, request: Request) -> None:
        exchange = self._pending = Exchange(
            self._provider,
            request,
            connection=self._connection,
            handshakes=self._channel.handshakes,
            arrived=self._read_at,
        )
        self._next_chunk = 0
        if exchange.response.delay:
            self._timer = self._reactor.call_later(exchange.response.delay, self._timer_expired)
        else:
            self._send_chunk(exchange)

    def _timer_expired(self) -> None:
        """The think time, or the gap between two chunks, is over."""
        self._timer = None
        if self._pending is not None:
            self._send_chunk(self._pending)
            self._serve()

    def _send_chunk(self, exchange: Exchange) -> None:
        """Send the next chunk of the response."""
        response = exchange.response
        if response.ending == RESET:
            self._complete(time.monotonic())
            return
        chunk = response.chunks[self._next_chunk]
        self._next_chunk += 1
        exchange.sent += len(chunk)
        if self._next_chunk < len(response.chunks):
            self._timer = self._reactor.call_later(response.gap, self._timer_expired)
            self._channel.send(chunk)
            return
        when = self._channel.send(chunk)
        if when is not None:
            self._complete(when)

    def _complete(self, when: float) -> None:
        """Log the pending response, whose last byte was handed on at `when`."""
        exchange = self._pending
        if exchange is None:
            return
        self._pending = None
        exchange.log(when)
        exchange.settle()
        mode = _close_mode(exchange.response, exchange.keep_alive)
        if mode is not None:
            self._close(mode)

    def _close(self, mode: int) -> None:
        self._open = False
        self._provider.connection_closed()
        self._channel.close(mode)


def _close_mode(response: Response, keep_alive: bool) -> int | None:
    """Return how to close the connection after a response; None keeps it open."""
    if response.ending == RESET:
        return RESET_CONNECTION
    if response.ending != KEEP_OPEN:
        return ABRUPT
    return None if keep_alive else GRACEFUL
