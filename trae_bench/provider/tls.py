"""TLS on a channel. Imported with the first listener that uses TLS."""

import ssl
from collections.abc import Callable
from contextlib import suppress

from trae_bench.provider.channel import ABRUPT, GRACEFUL, Bytes, Channel, ProtocolHandler

_READ_SIZE = 65_536

SetHandler = Callable[[Channel, str | None], None]
"""Sets the channel's handler for the protocol that ALPN selected, if any."""


def server_context(chain: str, *, http2: bool) -> ssl.SSLContext:
    """Return a server context. `chain` is a PEM file with the private key and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


class TlsChannel:
    """Wraps a channel in TLS. The handler is set after the handshake."""

    handler: ProtocolHandler

    def __init__(self, below: Channel, context: ssl.SSLContext, set_handler: SetHandler) -> None:
        self._below = below
        self._set_handler = set_handler
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.handshakes = 0
        self._closed = False

    def open(self) -> None:
        self._below.handler = self
        self._below.open()

    # -- called by the channel below

    def data_received(self, data: Bytes) -> None:
        self._incoming.write(data)
        if not self.handshakes and not self._continue_handshake():
            return
        self._read()

    def drained(self, when: float) -> None:
        if self.handshakes and not self._closed:
            self.handler.drained(when)

    def connection_lost(self) -> None:
        if not self._closed:
            self._closed = True
            if self.handshakes:
                self.handler.connection_lost()

    # -- called by the handler

    def send(self, data: bytes) -> float | None:
        if self._closed:
            return None
        self._tls.write(data)
        return self._below.send(self._outgoing.read())

    def close(self, mode: int) -> None:
        self._closed = True
        if mode == GRACEFUL:
            self._send_close_notify()
        self._below.close(mode)

    def _continue_handshake(self) -> bool:
        """Return True once the handshake is complete."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            # Not TLS, or no common version or cipher; the alert tells the client which.
            self._flush()
            self._closed = True
            self._below.close(ABRUPT)
            return False
        self.handshakes = 1
        self._flush()
        self._set_handler(self, self._tls.selected_alpn_protocol())
        return True

    def _read(self) -> None:
        while not self._closed:
            try:
                data = self._tls.read(_READ_SIZE)
            except ssl.SSLWantReadError:
                # TLS itself may have an answer to send, such as one to a key update.
                self._flush()
                return
            except ssl.SSLError:
                data = b""
            if not data:
                self._below.close(ABRUPT)
                self.connection_lost()
                return
            self.handler.data_received(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.send(self._outgoing.read())

    def _send_close_notify(self) -> None:
        # `unwrap` also expects the client's close_notify, which the server does not wait for.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
