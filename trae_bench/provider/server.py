"""The scripted provider's process: a server that does as little as it can.

`Loopback` (the parent's side) starts it as `python -m trae_bench.provider.server`, with a
listening socket, its end of the control channel and the core to stay on. Replies come over the
control channel ready to be sent; a request costs one read, one look into a dictionary and one
write. It ends when the control channel does, so it never outlives its parent.
"""

import gc
import os
import resource
import signal
import socket
import sys
import time
from collections import deque
from typing import Any

from trae_bench.provider.control import FrameReader, pack
from trae_bench.provider.listeners import Acceptor, open_door, plain_door
from trae_bench.provider.reactor import Reactor
from trae_bench.provider.sessions import Provider, session_of

_READ_SIZE = 262_144
_MAX_FDS = 16


class Control:
    """The parent's wishes: one frame in, one frame out."""

    def __init__(self, provider: Provider, reactor: Reactor, parent: socket.socket) -> None:
        self._provider = provider
        self._reactor = reactor
        self._parent = parent
        self._reader = FrameReader()
        self._fds: deque[int] = deque()
        """Sockets that came along, for the wishes that speak of them."""
        self._doors: list[Acceptor] = []
        self._wishes = {
            "door": self._door,
            "register": self._register,
            "collect": self._collect,
            "stats": self._stats,
        }
        reactor.watch(parent.fileno(), self._ready)
        parent.sendall(pack({"ready": True}))

    def _ready(self, events: int) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._parent, _READ_SIZE, _MAX_FDS)
            self._fds.extend(fds)
            self._reader.feed(data)
            while frame := self._reader.next():
                message, blobs = frame
                # The parent does nothing but read this: blocking here cannot last.
                self._parent.sendall(self._wishes[message["op"]](message, blobs))
        except OSError:
            data = b""
        if not data:
            self._reactor.stop()

    def _door(self, message: dict[str, Any], _: list[bytes]) -> bytes:
        listener = socket.socket(fileno=self._fds.popleft())
        self._doors.append(open_door(self._provider, self._reactor, listener, message))
        _forget_the_past()
        return pack({})

    def _register(self, message: dict[str, Any], blobs: list[bytes]) -> bytes:
        name = message["session"].encode()
        if name in self._provider.sessions:
            return pack({"error": "session is registered already"})
        try:
            self._provider.sessions[name] = session_of(message, blobs)
        except OSError as error:
            return pack({"error": f"cannot read {error.filename}: {error.strerror}"})
        self._watch_own_delay()
        return pack({})

    def _watch_own_delay(self) -> None:
        """Note this process's run delay (2 us per wake-up) only while a session wants it."""
        wanted = any(session.has_pressure for session in self._provider.sessions.values())
        self._reactor.own_delay = self._provider.own_delay if wanted else None

    def _collect(self, message: dict[str, Any], _: list[bytes]) -> bytes:
        session = self._provider.sessions.pop(message["session"].encode(), None)
        if session is None:
            return pack({"error": "no such session"})
        session.close()
        self._watch_own_delay()
        answer = {
            "log": session.log,
            "unexpected": session.unexpected,
            "handshakes": session.handshakes,
            "cpu_seconds": time.process_time() - session.cpu_at_start,
        }
        if self._doors:
            # HTTP/2 and TLS leave cycles behind, and nobody else will sweep them up.
            gc.collect()
        return pack(answer, [session.last_body])

    def _stats(self, _: dict[str, Any], __: list[bytes]) -> bytes:
        provider = self._provider
        return pack(
            {
                "cpu_seconds": time.process_time(),
                "sessions": len(provider.sessions),
                "connections": provider.connections,
                "open_connections": provider.open_connections,
                "requests": provider.requests,
                "strays": provider.strays,
            }
        )


def _forget_the_past() -> None:
    # Nothing below makes reference cycles as it works, and a collection in the middle of a
    # request would be time that the subject is charged for.
    gc.collect()
    gc.freeze()
    gc.disable()


def serve(listener: socket.socket, parent: socket.socket) -> None:
    """Until the parent is gone."""
    reactor, provider = Reactor(), Provider()
    plain_door(provider, reactor, listener)
    Control(provider, reactor, parent)
    _forget_the_past()
    reactor.run()


def main() -> None:
    """`server.py LISTENER_FD CONTROL_FD CORE`; an empty core leaves the process where it is."""
    # Ctrl-C goes to the whole process group; whether the run is over is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener_fd, control_fd, core = sys.argv[1:]
    if core:
        os.sched_setaffinity(0, {int(core)})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        socket.socket(fileno=int(listener_fd)) as listener,
        socket.socket(fileno=int(control_fd)) as parent,
    ):
        serve(listener, parent)


if __name__ == "__main__":
    main()
