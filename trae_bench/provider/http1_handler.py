"""HTTP/1.1 on a channel: requests are answered in order, one at a time."""

import time

from trae_bench.provider.channel import CUT, POLITE, Bytes, Channel
from trae_bench.provider.channel import RESET as TORN_DOWN
from trae_bench.provider.http1_parser import BadRequest, Request, RequestReader
from trae_bench.provider.reactor import Reactor, Timer
from trae_bench.provider.responses import KEEP, RESET, Answer, refusal
from trae_bench.provider.sessions import Exchange, Provider


class Http1Handler:
    """One client's requests and what it is told."""

    def __init__(self, provider: Provider, reactor: Reactor, channel: Channel) -> None:
        self._provider = provider
        self._reactor = reactor
        self._channel = channel
        self._number = provider.enter()
        self._reader = RequestReader()
        self._pending: Exchange | None = None
        """A request whose reply is still waited for, or not yet all handed on."""
        self._piece = 0
        """Of the pending reply: which comes next."""
        self._timer: Timer | None = None
        self._read_at = 0.0
        self._open = True

    def received(self, data: Bytes) -> None:
        self._read_at = time.monotonic()
        self._reader.feed(data)
        self._serve()

    def drained(self, when: float) -> None:
        # A piece that still waits for its time speaks for itself.
        if self._timer is None:
            self._written(when)
            self._serve()

    def gone(self) -> None:
        self._open = False
        self._provider.leave()
        if self._timer is not None:
            self._timer.cancel()
        if self._pending is not None:
            self._pending.log(time.monotonic(), sent=False)
            self._pending = None

    def _serve(self) -> None:
        while self._pending is None and self._open:
            try:
                request = self._reader.next()
            except BadRequest as error:
                self._refuse(error)
                return
            if request is None:
                if self._reader.wants_continue():
                    self._channel.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._begin(request)

    def _refuse(self, error: BadRequest) -> None:
        self._provider.strays += 1
        self._channel.send(refusal(error.status, error.reason, close=True).pieces[0])
        if self._open:
            self._end(POLITE)

    def _begin(self, request: Request) -> None:
        exchange = self._pending = Exchange(
            self._provider,
            request,
            connection=self._number,
            handshakes=self._channel.handshakes,
            arrived=self._read_at,
        )
        self._piece = 0
        if exchange.answer.delay:
            self._timer = self._reactor.call_later(exchange.answer.delay, self._late)
        else:
            self._say(exchange)

    def _late(self) -> None:
        """The think time, or the gap between two pieces, is over."""
        self._timer = None
        if self._pending is not None:
            self._say(self._pending)
            self._serve()

    def _say(self, exchange: Exchange) -> None:
        """Send the next piece of the reply."""
        answer = exchange.answer
        if answer.ending == RESET:
            self._written(time.monotonic())
            return
        piece = answer.pieces[self._piece]
        self._piece += 1
        exchange.sent += len(piece)
        if self._piece < len(answer.pieces):
            self._timer = self._reactor.call_later(answer.gap, self._late)
            self._channel.send(piece)
            return
        when = self._channel.send(piece)
        if when is not None:
            self._written(when)

    def _written(self, when: float) -> None:
        """All that there was to say has been handed on; the last of it then."""
        exchange = self._pending
        if exchange is None:
            return
        self._pending = None
        exchange.log(when)
        how = _ending(exchange.answer, exchange.keep_alive)
        if how is not None:
            self._end(how)

    def _end(self, how: int) -> None:
        self._open = False
        self._provider.leave()
        self._channel.end(how)


def _ending(answer: Answer, keep_alive: bool) -> int | None:
    if answer.ending == RESET:
        return TORN_DOWN
    if answer.ending != KEEP:
        return CUT
    return None if keep_alive else POLITE
