"""TLS on a channel. Imported with the first door that speaks it."""

import ssl
from collections.abc import Callable
from contextlib import suppress

from trae_bench.provider.channel import CUT, POLITE, Bytes, Channel, ProtocolHandler

_READ_SIZE = 65_536

Choose = Callable[[Channel, str | None], None]
"""Sets the talk of a channel on which this protocol was agreed by ALPN."""


def server_context(chain: str, *, http2: bool) -> ssl.SSLContext:
    """`chain` is a PEM file with the key and the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context


class TlsChannel:
    """Who talks here is known when the handshake is done."""

    talk: ProtocolHandler

    def __init__(self, below: Channel, context: ssl.SSLContext, choose: Choose) -> None:
        self._below = below
        self._choose = choose
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.handshakes = 0
        self._over = False

    def open(self) -> None:
        self._below.talk = self
        self._below.open()

    # -- from below

    def received(self, data: Bytes) -> None:
        self._incoming.write(data)
        if not self.handshakes and not self._shake_hands():
            return
        self._read()

    def drained(self, when: float) -> None:
        if self.handshakes and not self._over:
            self.talk.drained(when)

    def gone(self) -> None:
        if not self._over:
            self._over = True
            if self.handshakes:
                self.talk.gone()

    # -- from above

    def send(self, data: bytes) -> float | None:
        if self._over:
            return None
        self._tls.write(data)
        return self._below.send(self._outgoing.read())

    def end(self, how: int) -> None:
        self._over = True
        if how == POLITE:
            self._say_farewell()
        self._below.end(how)

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            # What came was no TLS, or nothing was agreed on; the alert says which.
            self._flush()
            self._over = True
            self._below.end(CUT)
            return False
        self.handshakes = 1
        self._flush()
        self._choose(self, self._tls.selected_alpn_protocol())
        return True

    def _read(self) -> None:
        while not self._over:
            try:
                data = self._tls.read(_READ_SIZE)
            except ssl.SSLWantReadError:
                # The client may have asked for new keys: that is answered at once.
                self._flush()
                return
            except ssl.SSLError:
                data = b""
            if not data:
                self._below.end(CUT)
                self.gone()
                return
            self.talk.received(data)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.send(self._outgoing.read())

    def _say_farewell(self) -> None:
        # It wants the client's farewell, too, which nobody waits for.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
