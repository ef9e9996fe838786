"""HTTP/2 on a channel: concurrent requests. Imported with the first listener that uses it."""

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

from trae_bench.provider.channel import ABRUPT, GRACEFUL, Bytes, Channel
from trae_bench.provider.channel import RESET as RESET_CONNECTION
from trae_bench.provider.http1_handler import Http1Handler
from trae_bench.provider.http1_parser import MAX_BODY, Request
from trae_bench.provider.reactor import Reactor, Timer
from trae_bench.provider.responses import ABORT, KEEP_OPEN, RESET
from trae_bench.provider.sessions import Exchange, Provider

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW = 1 << 24
"""Flow-control window in bytes. No request waits for it, as with large services."""
_MAX_STREAMS = 1000


class Stream:
    """One request and its response."""

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.method = headers.get(b":method", b"")
        self.path = headers.get(b":path", b"").partition(b"?")[0]
        self.headers = headers
        self.body = bytearray()
        self.exchange: Exchange | None = None
        self.due_chunks = 0
        """Number of response chunks whose send time has come."""
        self.unsent = bytearray()
        """Data of due chunks that the client's window has no space for."""
        self.timer: Timer | None = None


class Http2Handler:
    """Serves one HTTP/2 connection."""

    def __init__(self, provider: Provider, reactor: Reactor, channel: Channel) -> None:
        self._provider = provider
        self._reactor = reactor
        self._channel = channel
        self._connection = provider.connection_opened()
        self._streams: dict[int, Stream] = {}
        self._outbox = bytearray()
        self._unlogged: list[Exchange] = []
        """Complete exchanges whose last bytes are not yet handed on."""
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
        """Send the server's connection preface."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW)
        self._flush()

    def data_received(self, data: Bytes) -> None:
        now = time.monotonic()
        try:
            events = self._h2.receive_data(bytes(data))
        except ProtocolError:
            self._provider.unrouted += 1
            self._flush()
            if self._open:
                self._close(GRACEFUL)
            return
        for event in events:
            if self._open:
                self._handle(event, now)
        if self._open:
            self._flush()

    def drained(self, when: float) -> None:
        for exchange in self._unlogged:
            exchange.log(when)
            exchange.settle()
        self._unlogged.clear()

    def connection_lost(self) -> None:
        now = time.monotonic()
        for exchange in self._unlogged:
            exchange.log(now, delivered=False)
        self._unlogged.clear()
        self._cancel_streams(now)

    # -- requests

    def _handle(self, event: Event, now: float) -> None:
        if isinstance(event, RequestReceived):
            stream = self._streams[event.stream_id] = Stream(dict(event.headers))
            if stream.headers.get(b"expect", b"").lower() == b"100-continue":
                self._h2.send_headers(event.stream_id, [(":status", "100")])
        elif isinstance(event, DataReceived):
            self._receive_body(event)
        elif isinstance(event, StreamEnded):
            self._begin(event.stream_id, now)
        elif isinstance(event, StreamReset):
            removed = self._streams.pop(event.stream_id, None)
            if removed is not None:
                _cancel(removed, now)
        elif isinstance(event, WindowUpdated):
            for number, stream in list(self._streams.items()):
                if self._open:
                    self._send_unsent(number, stream)
        elif isinstance(event, ConnectionTerminated):
            # After GOAWAY the library sends nothing, not even pending responses.
            self._close(GRACEFUL)

    def _receive_body(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.body += event.data
            if len(stream.body) > MAX_BODY:
                self._h2.reset_stream(event.stream_id, ErrorCodes.ENHANCE_YOUR_CALM)
                del self._streams[event.stream_id]
        if event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _begin(self, number: int, now: float) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        request = Request(stream.method, stream.path, True, bytes(stream.body), stream.headers)
        stream.body.clear()
        exchange = stream.exchange = Exchange(
            self._provider,
            request,
            connection=self._connection,
            handshakes=self._channel.handshakes,
            arrived=now,
            stream=number,
        )
        if exchange.response.delay:
            self._send_later(number, stream, exchange.response.delay)
        else:
            self._send_chunk(number, stream)

    # -- responses

    def _send_later(self, number: int, stream: Stream, seconds: float) -> None:
        def due() -> None:
            stream.timer = None
            self._send_chunk(number, stream)
            if self._open:
                self._flush()

        stream.timer = self._reactor.call_later(seconds, due)

    def _send_chunk(self, number: int, stream: Stream) -> None:
        """Send the headers and the first chunk, or the next chunk."""
        exchange = stream.exchange
        assert exchange is not None
        response = exchange.response
        if not response.headers:
            self._send_raw(number, exchange)
            return
        stream.unsent += response.body[stream.due_chunks]
        stream.due_chunks += 1
        if stream.due_chunks < len(response.body):
            self._send_later(number, stream, response.gap)
        self._send_unsent(number, stream)

    def _send_unsent(self, number: int, stream: Stream) -> None:
        """Send as much as the client's flow-control window allows."""
        if stream.exchange is None or stream.due_chunks == 0:
            return
        # If one read contains both the request and its reset, the library already rejects the
        # response; the `StreamReset` event follows.
        with suppress(ProtocolError):
            self._send_data(number, stream, stream.exchange)

    def _send_data(self, number: int, stream: Stream, exchange: Exchange) -> None:
        if exchange.sent == 0:
            response = exchange.response
            headers = [(":status", str(response.status)), *response.headers]
            self._h2.send_headers(number, headers)
            exchange.sent += self._move_to_outbox()
        while stream.unsent:
            window = self._h2.local_flow_control_window(number)
            size = min(window, self._h2.max_outbound_frame_size, len(stream.unsent))
            if size <= 0:
                return
            self._h2.send_data(number, bytes(stream.unsent[:size]))
            del stream.unsent[:size]
            exchange.sent += self._move_to_outbox()
        if stream.due_chunks == len(exchange.response.body):
            self._finish(number, exchange)

    def _finish(self, number: int, exchange: Exchange) -> None:
        ending = exchange.response.ending
        if ending != ABORT:
            self._h2.end_stream(number)
            exchange.sent += self._move_to_outbox()
        del self._streams[number]
        self._unlogged.append(exchange)
        if ending != KEEP_OPEN:
            self._flush()
            self._close(ABRUPT)

    def _send_raw(self, number: int, exchange: Exchange) -> None:
        """Send the raw bytes of a fault, then close the whole connection."""
        # Remove the stream first, so that a disconnect does not log the exchange twice.
        del self._streams[number]
        self._flush()
        for chunk in exchange.response.chunks:
            self._channel.send(chunk)
            exchange.sent += len(chunk)
        exchange.log(time.monotonic())
        if self._open:
            self._close(RESET_CONNECTION if exchange.response.ending == RESET else ABRUPT)

    def _move_to_outbox(self) -> int:
        """Move the library's output to the outbox and return its size."""
        data = self._h2.data_to_send()
        self._outbox += data
        return len(data)

    def _flush(self) -> None:
        self._move_to_outbox()
        if self._outbox:
            data = bytes(self._outbox)
            self._outbox.clear()
            when = self._channel.send(data)
            if when is not None:
                self.drained(when)

    def _close(self, mode: int) -> None:
        self._channel.close(mode)
        now = time.monotonic()
        self.drained(now)
        self._cancel_streams(now)

    def _cancel_streams(self, now: float) -> None:
        self._open = False
        self._provider.connection_closed()
        for stream in self._streams.values():
            _cancel(stream, now)
        self._streams.clear()


def _cancel(stream: Stream, now: float) -> None:
    if stream.timer is not None:
        stream.timer.cancel()
    if stream.exchange is not None:
        stream.exchange.log(now, delivered=False)


class PrefaceDetector:
    """Chooses HTTP/2 or HTTP/1.1 by a plain connection's first bytes (prior knowledge)."""

    def __init__(self, provider: Provider, reactor: Reactor, channel: Channel) -> None:
        self._provider = provider
        self._reactor = reactor
        self._channel = channel
        self._buffer = b""

    def data_received(self, data: Bytes) -> None:
        self._buffer += bytes(data)
        if self._buffer.startswith(_PREFACE):
            handler = Http2Handler(self._provider, self._reactor, self._channel)
            self._channel.handler = handler
            handler.begin()
            handler.data_received(self._buffer)
        elif not _PREFACE.startswith(self._buffer):
            self._channel.handler = Http1Handler(self._provider, self._reactor, self._channel)
            self._channel.handler.data_received(self._buffer)

    def drained(self, when: float) -> None:
        """Ignored: nothing has been sent."""

    def connection_lost(self) -> None:
        """Ignored: no request has started."""
