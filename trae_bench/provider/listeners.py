"""Listening sockets, one for each set of network conditions.

Distance, TLS and HTTP version take effect before a client names its session, so each
combination of them has a separate port.
"""

import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from trae_bench.provider.channel import Channel, ProtocolHandler, SocketChannel
from trae_bench.provider.delay import DelayedChannel
from trae_bench.provider.http1_handler import Http1Handler
from trae_bench.provider.reactor import Reactor
from trae_bench.provider.sessions import Provider

_MAX_ACCEPTS = 64
"""Maximum connections accepted per wake-up, so that open connections are served too."""

Start = Callable[[Channel], None]
"""Attaches a handler to a channel and opens the channel."""
MakeHandler = Callable[[Provider, Reactor, Channel], ProtocolHandler]


class Acceptor:
    """Accepts the connections of a listening socket."""

    def __init__(
        self, reactor: Reactor, listener: socket.socket, accept: Callable[[socket.socket], None]
    ) -> None:
        self._listener = listener
        self._accept = accept
        listener.setblocking(False)
        reactor.watch(listener.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                client, _address = self._listener.accept()
            except OSError:
                # The queue is empty, or the client disconnected before accept().
                return
            client.setblocking(False)
            self._accept(client)


def listen_with_conditions(
    provider: Provider, reactor: Reactor, listener: socket.socket, message: dict[str, Any]
) -> Acceptor:
    """Serve the network conditions of a `listen` message.

    `tls` is a PEM file or None, `http2` a flag, `rtt` seconds, `bandwidth` bytes per second or
    None, and `path` a list of folders to add to `sys.path` for libraries.
    """
    sys.path += [folder for folder in message["path"] if folder not in sys.path]
    handler: MakeHandler = Http1Handler
    if message["http2"]:
        # Only a listener with HTTP/2 pays for this import, before the first measurement.
        from trae_bench.provider.http2_handler import PrefaceDetector

        handler = PrefaceDetector
    start: Start = partial(_start, provider, reactor, handler)
    if message["tls"] is not None:
        start = _tls_start(provider, reactor, message["tls"], http2=message["http2"])
    rtt, bandwidth = message["rtt"], message["bandwidth"]

    def accept(client: socket.socket) -> None:
        channel: Channel = SocketChannel(reactor, client)
        if rtt or bandwidth is not None:
            channel = DelayedChannel(reactor, channel, rtt=rtt, bandwidth=bandwidth)
        start(channel)

    return Acceptor(reactor, listener, accept)


def listen_plain(provider: Provider, reactor: Reactor, listener: socket.socket) -> Acceptor:
    """Serve HTTP/1.1 without TLS or delay, with the least work per connection."""
    start = partial(_start, provider, reactor, Http1Handler)
    return Acceptor(reactor, listener, lambda client: start(SocketChannel(reactor, client)))


def _start(provider: Provider, reactor: Reactor, handler: MakeHandler, channel: Channel) -> None:
    channel.handler = handler(provider, reactor, channel)
    channel.open()


def _tls_start(provider: Provider, reactor: Reactor, chain: str, *, http2: bool) -> Start:
    from trae_bench.provider.tls import TlsChannel, server_context

    context = server_context(chain, http2=http2)

    def set_handler(channel: Channel, alpn: str | None) -> None:
        if alpn == "h2":
            # `listen_with_conditions` has imported it already.
            from trae_bench.provider.http2_handler import Http2Handler

            handler = Http2Handler(provider, reactor, channel)
            channel.handler = handler
            handler.begin()
        else:
            channel.handler = Http1Handler(provider, reactor, channel)

    return lambda channel: TlsChannel(channel, context, set_handler).open()
