"""Where clients knock: one listening socket for each way to be reached.

How far away a provider is, and what it speaks, is settled before a client has said which
session it wants; so each set of such conditions has a port of its own.
"""

import socket
import sys
from collections.abc import Callable
from typing import Any

from trae_bench.provider.channel import Channel, SocketChannel
from trae_bench.provider.delay import DelayedChannel
from trae_bench.provider.http1_handler import Http1Handler
from trae_bench.provider.reactor import Reactor
from trae_bench.provider.sessions import Provider

_AT_ONCE = 64
"""Clients let in before those inside are served again."""

Welcome = Callable[[Channel], None]
"""Begins the talk on a channel."""


class Acceptor:
    """Takes in the clients that knock at a listening socket."""

    def __init__(
        self, reactor: Reactor, listener: socket.socket, take_in: Callable[[socket.socket], None]
    ) -> None:
        self._listener = listener
        self._take_in = take_in
        listener.setblocking(False)
        reactor.watch(listener.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _address = self._listener.accept()
            except OSError:
                # Nobody is left, or the one who knocked has gone again.
                return
            client.setblocking(False)
            self._take_in(client)


def open_door(
    provider: Provider, reactor: Reactor, listener: socket.socket, wish: dict[str, Any]
) -> Acceptor:
    """A door as the parent wishes it.

    `tls` is a PEM file or None, `http2` whether it is spoken, `rtt` in seconds, `rate` in
    bytes a second or None, `path` folders where libraries lie that this process lacks.
    """
    sys.path += [folder for folder in wish["path"] if folder not in sys.path]
    welcome = _welcome(provider, reactor, http2=wish["http2"])
    if wish["tls"] is not None:
        welcome = _behind_tls(provider, reactor, wish["tls"], http2=wish["http2"])

    def take_in(client: socket.socket) -> None:
        channel: Channel = SocketChannel(reactor, client)
        if wish["rtt"] or wish["rate"] is not None:
            channel = DelayedChannel(reactor, channel, rtt=wish["rtt"], rate=wish["rate"])
        welcome(channel)

    return Acceptor(reactor, listener, take_in)


def plain_door(provider: Provider, reactor: Reactor, listener: socket.socket) -> Acceptor:
    """HTTP/1.1 and nothing else, for as little work as can be."""

    def take_in(client: socket.socket) -> None:
        channel = SocketChannel(reactor, client)
        channel.talk = Http1Handler(provider, reactor, channel)
        channel.open()

    return Acceptor(reactor, listener, take_in)


def _welcome(provider: Provider, reactor: Reactor, *, http2: bool) -> Welcome:
    def speak_http1(channel: Channel) -> None:
        channel.talk = Http1Handler(provider, reactor, channel)
        channel.open()

    if not http2:
        return speak_http1
    # Only who needs it pays for the import, and it is over before anybody is measured.
    from trae_bench.provider.http2_handler import FirstWords

    def listen(channel: Channel) -> None:
        channel.talk = FirstWords(provider, reactor, channel)
        channel.open()

    return listen


def _behind_tls(provider: Provider, reactor: Reactor, chain: str, *, http2: bool) -> Welcome:
    from trae_bench.provider.tls import TlsChannel, server_context

    context = server_context(chain, http2=http2)

    def choose(channel: Channel, agreed: str | None) -> None:
        if agreed == "h2":
            from trae_bench.provider.http2_handler import Http2Handler  # loaded by `_welcome`

            talk = Http2Handler(provider, reactor, channel)
            channel.talk = talk
            talk.begin()
        else:
            channel.talk = Http1Handler(provider, reactor, channel)

    return lambda channel: TlsChannel(channel, context, choose).open()
