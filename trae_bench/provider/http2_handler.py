"""HTTP/2 on a channel: many requests at a time. Imported with the first door that speaks it."""

import time
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from trae_bench.provider.channel import CUT, POLITE, Bytes, Channel
from trae_bench.provider.channel import RESET as TORN_DOWN
from trae_bench.provider.http1_handler import Http1Handler
from trae_bench.provider.http1_parser import BODY_LIMIT, Request
from trae_bench.provider.reactor import Reactor, Timer
from trae_bench.provider.responses import BROKEN, KEEP, RESET
from trae_bench.provider.sessions import Exchange, Provider

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW = 1 << 24
"""Bytes that a client may send ahead: no request waits for a window, as with large services."""
_MAX_STREAMS = 1000


class Stream:
    """One request and its reply."""

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.method = headers.get(b":method", b"")
        self.path = headers.get(b":path", b"").partition(b"?")[0]
        self.body = bytearray()
        self.exchange: Exchange | None = None
        self.said = 0
        """Pieces of the reply whose time has come."""
        self.waiting = bytearray()
        """What of them the client has no room for yet."""
        self.timer: Timer | None = None


class Http2Handler:
    """One client's requests and what it is told."""

    def __init__(self, provider: Provider, reactor: Reactor, channel: Channel) -> None:
        self._provider = provider
        self._reactor = reactor
        self._channel = channel
        self._number = provider.enter()
        self._streams: dict[int, Stream] = {}
        self._outbox = bytearray()
        self._unlogged: list[Exchange] = []
        """Said to the end, but not all handed on yet."""
        self._open = True
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
            },
        )

    def begin(self) -> None:
        """The server's own preface."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)
        self._flush()

    def received(self, data: Bytes) -> None:
        now = time.monotonic()
        try:
            events = self._h2.receive_data(bytes(data))
        except ProtocolError:
            self._provider.strays += 1
            self._flush()
            if self._open:
                self._end(POLITE)
            return
        for event in events:
            if self._open:
                self._happened(event, now)
        if self._open:
            self._flush()

    def drained(self, when: float) -> None:
        for exchange in self._unlogged:
            exchange.log(when)
        self._unlogged.clear()

    def gone(self) -> None:
        now = time.monotonic()
        for exchange in self._unlogged:
            exchange.log(now, sent=False)
        self._unlogged.clear()
        self._leave(now)

    # -- what the client says

    def _happened(self, event: Event, now: float) -> None:
        if isinstance(event, RequestReceived):
            self._streams[event.stream_id] = Stream(dict(event.headers))
        elif isinstance(event, DataReceived):
            self._take(event)
        elif isinstance(event, StreamEnded):
            self._begin(event.stream_id, now)
        elif isinstance(event, StreamReset):
            stream = self._streams.pop(event.stream_id, None)
            if stream is not None:
                _abandon(stream, now)
        elif isinstance(event, WindowUpdated):
            for number, stream in list(self._streams.items()):
                if self._open:
                    self._pump(number, stream)
        elif isinstance(event, ConnectionTerminated):
            # The library sends nothing after a farewell, not even what was asked for before it.
            self._end(POLITE)

    def _take(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.body += event.data
            if len(stream.body) > BODY_LIMIT:
                self._h2.reset_stream(event.stream_id, ErrorCodes.ENHANCE_YOUR_CALM)
                del self._streams[event.stream_id]
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _begin(self, number: int, now: float) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        request = Request(stream.method, stream.path, True, bytes(stream.body))
        stream.body.clear()
        exchange = stream.exchange = Exchange(
            self._provider,
            request,
            connection=self._number,
            handshakes=self._channel.handshakes,
            arrived=now,
            stream=number,
        )
        if exchange.answer.delay:
            self._later(number, stream, exchange.answer.delay)
        else:
            self._say(number, stream)

    # -- what it is told

    def _later(self, number: int, stream: Stream, seconds: float) -> None:
        def due() -> None:
            stream.timer = None
            self._say(number, stream)
            if self._open:
                self._flush()

        stream.timer = self._reactor.call_later(seconds, due)

    def _say(self, number: int, stream: Stream) -> None:
        """The head and the first piece, or the next piece."""
        exchange = stream.exchange
        assert exchange is not None
        answer = exchange.answer
        if not answer.headers:
            self._break_off(number, exchange)
            return
        stream.waiting += answer.body[stream.said]
        stream.said += 1
        if stream.said < len(answer.body):
            self._later(number, stream, answer.gap)
        self._pump(number, stream)

    def _pump(self, number: int, stream: Stream) -> None:
        """Give the connection as much as the client has room for."""
        if stream.exchange is None or stream.said == 0:
            return
        # Where the client took the request back in the same breath, the library refuses to
        # answer it; that event is yet to come.
        with suppress(ProtocolError):
            self._hand_on(number, stream, stream.exchange)

    def _hand_on(self, number: int, stream: Stream, exchange: Exchange) -> None:
        if exchange.sent == 0:
            answer = exchange.answer
            self._h2.send_headers(number, [(":status", str(answer.status)), *answer.headers])
            exchange.sent += self._taken_out()
        while stream.waiting:
            room = self._h2.local_flow_control_window(number)
            size = min(room, self._h2.max_outbound_frame_size, len(stream.waiting))
            if size <= 0:
                return
            self._h2.send_data(number, bytes(stream.waiting[:size]))
            del stream.waiting[:size]
            exchange.sent += self._taken_out()
        if stream.said == len(exchange.answer.body):
            self._finish(number, exchange)

    def _finish(self, number: int, exchange: Exchange) -> None:
        ending = exchange.answer.ending
        if ending != BROKEN:
            self._h2.end_stream(number)
            exchange.sent += self._taken_out()
        del self._streams[number]
        self._unlogged.append(exchange)
        if ending != KEEP:
            self._flush()
            self._end(CUT)

    def _break_off(self, number: int, exchange: Exchange) -> None:
        """What comes in place of a reply takes the whole connection with it."""
        # Should the client leave meanwhile, this exchange is not logged a second time.
        del self._streams[number]
        self._flush()
        for piece in exchange.answer.pieces:
            self._channel.send(piece)
            exchange.sent += len(piece)
        exchange.log(time.monotonic())
        if self._open:
            self._end(TORN_DOWN if exchange.answer.ending == RESET else CUT)

    def _taken_out(self) -> int:
        """Moves what the library has made into the outbox; its size."""
        made = self._h2.data_to_send()
        self._outbox += made
        return len(made)

    def _flush(self) -> None:
        self._taken_out()
        if self._outbox:
            data = bytes(self._outbox)
            self._outbox.clear()
            when = self._channel.send(data)
            if when is not None:
                self.drained(when)

    def _end(self, how: int) -> None:
        self._channel.end(how)
        now = time.monotonic()
        self.drained(now)
        self._leave(now)

    def _leave(self, now: float) -> None:
        self._open = False
        self._provider.leave()
        for stream in self._streams.values():
            _abandon(stream, now)
        self._streams.clear()


def _abandon(stream: Stream, now: float) -> None:
    if stream.timer is not None:
        stream.timer.cancel()
    if stream.exchange is not None:
        stream.exchange.log(now, sent=False)


class FirstWords:
    """Without TLS, a client that knows that HTTP/2 is spoken here says so with its first bytes."""

    def __init__(self, provider: Provider, reactor: Reactor, channel: Channel) -> None:
        self._provider = provider
        self._reactor = reactor
        self._channel = channel
        self._heard = b""

    def received(self, data: Bytes) -> None:
        self._heard += bytes(data)
        if self._heard.startswith(_PREFACE):
            talk = Http2Handler(self._provider, self._reactor, self._channel)
            self._channel.talk = talk
            talk.begin()
            talk.received(self._heard)
        elif not _PREFACE.startswith(self._heard):
            self._channel.talk = Http1Handler(self._provider, self._reactor, self._channel)
            self._channel.talk.received(self._heard)

    def drained(self, when: float) -> None:
        """Nothing has been sent."""

    def gone(self) -> None:
        """Nothing was begun."""
