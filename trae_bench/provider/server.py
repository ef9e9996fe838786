"""The server process of the scripted provider, with as little work per request as possible.

`Loopback` (the parent's side) starts it as `python -m trae_bench.provider.server` with a
listening socket, a control socket and a core. Responses arrive over the control socket ready
to send. A request costs one read, one dictionary lookup and one write. The process exits when
the control socket closes, so it never outlives its parent.
"""

import gc
import os
import resource
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

from trae_bench.provider.control import FrameReader, pack
from trae_bench.provider.listeners import Acceptor, listen_plain, listen_with_conditions
from trae_bench.provider.reactor import Reactor
from trae_bench.provider.session_setup import session_from
from trae_bench.provider.sessions import Provider

_READ_SIZE = 262_144
_MAX_FDS = 16


class Control:
    """Handles the parent's messages: one frame in, one frame out."""

    def __init__(self, provider: Provider, reactor: Reactor, parent: socket.socket) -> None:
        self._provider = provider
        self._reactor = reactor
        self._parent = parent
        self._reader = FrameReader()
        self._fds: deque[int] = deque()
        """Received listening sockets, for the `listen` messages that follow."""
        self._acceptors: list[Acceptor] = []
        self._operations = {
            "listen": self._listen,
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
                # The parent is waiting for this reply, so a blocking send is short.
                self._parent.sendall(self._operations[message["op"]](message, blobs))
        except OSError:
            data = b""
        if not data:
            self._reactor.stop()

    def _listen(self, message: dict[str, Any], _: list[bytes]) -> bytes:
        listener = socket.socket(fileno=self._fds.popleft())
        acceptor = listen_with_conditions(self._provider, self._reactor, listener, message)
        self._acceptors.append(acceptor)
        _disable_gc()
        return pack({})

    def _register(self, message: dict[str, Any], blobs: list[bytes]) -> bytes:
        name = message["session"].encode()
        if name in self._provider.sessions:
            return pack({"error": "session is already registered"})
        try:
            self._provider.sessions[name] = session_from(message, blobs)
        except OSError as error:
            return pack({"error": f"cannot read {error.filename}: {error.strerror}"})
        self._watch_own_delay()
        return pack({})

    def _watch_own_delay(self) -> None:
        """Note this process's run delay (2 us per wake-up) only while a session needs it."""
        needed = any(session.pressure for session in self._provider.sessions.values())
        self._reactor.own_delay = self._provider.own_delay if needed else None

    def _collect(self, message: dict[str, Any], _: list[bytes]) -> bytes:
        session = self._provider.sessions.pop(message["session"].encode(), None)
        if session is None:
            return pack({"error": "no such session"})
        session.pressure.close()
        self._watch_own_delay()
        account, bodies = session.account()
        account["cpu_seconds"] = time.process_time() - session.cpu_at_start
        if self._acceptors:
            # HTTP/2 and TLS leave reference cycles, and automatic collection is disabled.
            gc.collect()
        return pack(account, bodies)

    def _stats(self, _: dict[str, Any], __: list[bytes]) -> bytes:
        provider = self._provider
        return pack(
            {
                "cpu_seconds": time.process_time(),
                "sessions": len(provider.sessions),
                "connections": provider.connections,
                "open_connections": provider.open_connections,
                "requests": provider.requests,
                "unrouted": provider.unrouted,
            }
        )


def _disable_gc() -> None:
    # Plain HTTP/1.1 creates no reference cycles. A collection during a request would add its
    # time to the subject's.
    gc.collect()
    gc.freeze()
    gc.disable()


def serve(listener: socket.socket, parent: socket.socket) -> None:
    """Serve until the parent closes the control socket."""
    reactor, provider = Reactor(), Provider()
    listen_plain(provider, reactor, listener)
    Control(provider, reactor, parent)
    _disable_gc()
    reactor.run()


def _run_first() -> None:
    """Take this core before other processes as soon as a request arrives, if that is allowed.

    Otherwise the provider reads requests late on a busy machine, and that time cannot be told
    apart from the agent's.
    """
    if hasattr(os, "SCHED_FIFO") and not _real_time_is_limited():
        with suppress(OSError):
            policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(1))


def _real_time_is_limited() -> bool:
    """Whether the kernel ends a real-time process that works for some time without a pause."""
    # mypy does not know this limit on other systems.
    limit: int = getattr(resource, "RLIMIT_RTTIME", -1)
    return limit >= 0 and resource.getrlimit(limit)[0] != resource.RLIM_INFINITY


def main() -> None:
    """`server.py LISTENER_FD CONTROL_FD CORE`; an empty core does not pin the process."""
    # Ctrl-C signals the whole process group, but the parent decides when the run ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listener_fd, control_fd, core = sys.argv[1:]
    if core:
        os.sched_setaffinity(0, {int(core)})
        _run_first()
    _, max_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    with (
        socket.socket(fileno=int(listener_fd)) as listener,
        socket.socket(fileno=int(control_fd)) as parent,
    ):
        serve(listener, parent)


if __name__ == "__main__":
    main()
