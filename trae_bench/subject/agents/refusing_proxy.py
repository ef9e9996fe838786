"""An HTTP proxy on loopback that refuses every request and remembers the hosts."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from trae_bench._util.child_output import printable

MAX_HOSTS = 20
"""Hosts that are remembered. An agent may ask for thousands."""
_MAX_LINE = 4096
_MAX_HOST = 100
_SECONDS = 5.0
_ANSWER = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class RefusingProxy:
    """The address of a running proxy, and what clients asked it for."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.url = "http://{}:{}".format(*listener.getsockname()[:2])
        self.hosts: dict[str, None] = {}
        """`host:port` or `host`, in order of the first request."""

    def serve(self) -> None:
        """Refuse requests until the listener closes."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(_SECONDS)
                self._remember(client.recv(_MAX_LINE))
                client.sendall(_ANSWER)

    def _remember(self, request: bytes) -> None:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) < 2 or len(self.hosts) >= MAX_HOSTS:
            return
        target = printable(words[1]).partition("://")[2] or printable(words[1])
        self.hosts[target.partition("/")[0][:_MAX_HOST]] = None


@contextmanager
def refusing_proxy() -> Iterator[RefusingProxy]:
    """Run a proxy in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = RefusingProxy(listener)
        thread = Thread(target=proxy.serve, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            # Closing alone does not wake a thread that waits in accept().
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(_SECONDS)
