"""The scripted provider's process: an HTTP/1.1 server that does as little as it can.

`Loopback` (the parent's side) starts it as `python -m trae_bench.provider.server`, with a
listening socket, its end of the control channel and the core to stay on. Replies come over the
control channel ready to be sent; a request costs one read, one look into a dictionary and one
write. It ends when the control channel does, so it never outlives its parent.
"""

import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from typing import Any

from trae_bench.provider.control import FrameReader, pack
from trae_bench.provider.http1 import BadRequest, Request, RequestReader
from trae_bench.provider.reactor import READ, WRITE, Reactor, Timer

_AT_ONCE = 64
"""Clients let in before those inside are served again."""
_INBOX = memoryview(bytearray(262_144))
"""Where all reads go: a buffer of its own for each read would be mapped and unmapped."""
_PREFIX = b"/s/"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def http_reply(status: int, body: bytes, *, close: bool = False) -> bytes:
    """Head and body in one piece, so that they leave in one write."""
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    tail = "Connection: close\r\n" if close else ""
    return f"{head}{tail}\r\n".encode() + body


def _refusal(status: int, message: str, *, close: bool = False) -> bytes:
    error = {"message": f"scripted provider: {message}", "type": "scripted_provider"}
    return http_reply(status, json.dumps({"error": error}).encode(), close=close)


class Answer:
    """What goes out for one request."""

    __slots__ = ("data", "delay", "status")

    def __init__(self, status: int, data: bytes, delay: float = 0.0) -> None:
        self.status = status
        self.data = data
        self.delay = delay
        """Seconds between the request's last byte and the reply."""


_HEALTHY = Answer(200, http_reply(200, b'{"status": "ok"}'))
_NO_SESSION = Answer(404, _refusal(404, "no such session; it is over, or was never registered"))
_NO_PATH = Answer(404, _refusal(404, "this path is not the session's protocol"))
_NO_METHOD = Answer(405, _refusal(405, "only POST is answered here"))
_SCRIPT_OVER = Answer(400, _refusal(400, "the script has ended; it has no reply for this request"))


class Session:
    """One script being played, and the log of it."""

    def __init__(self, tail: bytes, answers: list[Answer]) -> None:
        self.log: list[tuple[float, float, int, int, int, int]] = []
        """As `RequestLog`: arrived, replied, connection, received, sent, status."""
        self.last_body = b""
        self.unexpected = 0
        self.cpu_at_start = time.process_time()
        self._tail = tail
        self._answers = answers
        self._played = 0

    def answer(self, request: Request) -> Answer:
        if request.method == b"POST" and request.path.endswith(self._tail):
            self.last_body = request.body
            if self._played < len(self._answers):
                answer = self._answers[self._played]
                self._played += 1
                return answer
            self.unexpected += 1
            return _SCRIPT_OVER
        self.unexpected += 1
        return _NO_PATH if request.method == b"POST" else _NO_METHOD


class Provider:
    """All sessions, and what came that belongs to none."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.connections = 0
        self.open_connections = 0
        self.requests = 0
        self.strays = 0
        """Requests for no session, and bytes that were no request."""

    def route(self, request: Request) -> tuple[Session | None, Answer]:
        self.requests += 1
        path = request.path
        if path.startswith(_PREFIX):
            session = self.sessions.get(path[len(_PREFIX) :].partition(b"/")[0])
            if session is not None:
                return session, session.answer(request)
        elif path == b"/healthz":
            return None, _HEALTHY
        self.strays += 1
        return None, _NO_SESSION


class Connection:
    """One client's connection: requests are answered in order, one at a time."""

    def __init__(self, provider: Provider, reactor: Reactor, client: socket.socket) -> None:
        self._provider = provider
        self._reactor = reactor
        self._client = client
        provider.connections += 1
        provider.open_connections += 1
        self._number = provider.connections
        self._reader = RequestReader()
        self._pending: _Exchange | None = None
        """A request whose reply is still waited for, or not yet all with the kernel."""
        self._rest = memoryview(b"")
        """What the kernel had no room for yet."""
        self._timer: Timer | None = None
        self._read_at = 0.0
        self._open = True
        self._leaving = False
        """Close as soon as all is written."""
        reactor.watch(client.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write_rest()
        elif self._open:
            self._read()

    def _read(self) -> None:
        try:
            size = self._client.recv_into(_INBOX)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0:
            self._close()
            return
        self._read_at = time.monotonic()
        self._reader.feed(_INBOX[:size])
        self._serve()

    def _serve(self) -> None:
        while self._pending is None and self._open and not self._leaving:
            try:
                request = self._reader.next()
            except BadRequest as error:
                self._provider.strays += 1
                self._leaving = True
                self._write(_refusal(error.status, error.reason, close=True))
                return
            if request is None:
                if self._reader.wants_continue():
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._begin(request)

    def _begin(self, request: Request) -> None:
        session, answer = self._provider.route(request)
        self._pending = _Exchange(session, answer, request, self._number, self._read_at)
        if answer.delay:
            self._timer = self._reactor.call_later(answer.delay, partial(self._late, answer.data))
        else:
            self._write(answer.data)

    def _late(self, data: bytes) -> None:
        """The think time is over."""
        self._timer = None
        self._write(data)
        self._serve()

    def _write(self, data: bytes) -> None:
        # Read before the call: the client may have its reply, and this process may have lost
        # its core to it, before the call is back.
        now = time.monotonic()
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        if sent == len(data):
            self._written(now)
        else:
            self._rest = memoryview(data)[sent:]
            self._reactor.want(self._client.fileno(), WRITE)

    def _write_rest(self) -> None:
        now = time.monotonic()
        try:
            sent = self._client.send(self._rest)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._rest = self._rest[sent:]
        if not self._rest:
            self._reactor.want(self._client.fileno(), READ)
            self._written(now)
            self._serve()

    def _written(self, when: float) -> None:
        """The kernel has all that there was to say; the last of it was given to it then."""
        exchange = self._pending
        if exchange is not None:
            exchange.log(when)
            self._pending = None
            self._leaving = not exchange.keep_alive
        if self._leaving:
            self._close()

    def _close(self) -> None:
        self._open = False
        self._provider.open_connections -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._pending is not None:
            self._pending.log(time.monotonic(), sent=False)
            self._pending = None
        self._reactor.forget(self._client.fileno())
        self._client.close()


class Doorman:
    """Takes in the clients that knock at the listening socket."""

    def __init__(self, provider: Provider, reactor: Reactor, listener: socket.socket) -> None:
        self._provider = provider
        self._reactor = reactor
        self._listener = listener
        reactor.watch(listener.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _address = self._listener.accept()
            except OSError:
                # Nobody is left, or the one who knocked has gone again.
                return
            client.setblocking(False)
            Connection(self._provider, self._reactor, client)


class _Exchange:
    """A request on its way to its reply."""

    __slots__ = ("_arrived", "_connection", "_received", "_session", "answer", "keep_alive")

    def __init__(
        self,
        session: Session | None,
        answer: Answer,
        request: Request,
        connection: int,
        arrived: float,
    ) -> None:
        self.answer = answer
        self.keep_alive = request.keep_alive
        self._session = session
        self._received = len(request.body)
        self._connection = connection
        self._arrived = arrived

    def log(self, replied: float, *, sent: bool = True) -> None:
        """Into the session's log; status 0 and no bytes where the client did not wait."""
        if self._session is not None:
            size, status = (len(self.answer.data), self.answer.status) if sent else (0, 0)
            self._session.log.append(
                (self._arrived, replied, self._connection, self._received, size, status)
            )


class Control:
    """The parent's wishes: one frame in, one frame out."""

    def __init__(self, provider: Provider, reactor: Reactor, parent: socket.socket) -> None:
        self._provider = provider
        self._reactor = reactor
        self._parent = parent
        self._reader = FrameReader()
        self._wishes = {
            "register": self._register,
            "collect": self._collect,
            "stats": self._stats,
        }
        reactor.watch(parent.fileno(), self._ready)
        parent.sendall(pack({"ready": True}))

    def _ready(self, events: int) -> None:
        try:
            data = self._parent.recv(len(_INBOX))
            self._reader.feed(data)
            while frame := self._reader.next():
                message, blobs = frame
                # The parent does nothing but read this: blocking here cannot last.
                self._parent.sendall(self._wishes[message["op"]](message, blobs))
        except OSError:
            data = b""
        if not data:
            self._reactor.stop()

    def _register(self, message: dict[str, Any], blobs: list[bytes]) -> bytes:
        name = message["session"].encode()
        if name in self._provider.sessions:
            return pack({"error": "session is registered already"})
        answers = [
            Answer(status, http_reply(status, body), delay)
            for (status, delay), body in zip(message["answers"], blobs, strict=True)
        ]
        self._provider.sessions[name] = Session(message["tail"].encode(), answers)
        return pack({})

    def _collect(self, message: dict[str, Any], _: list[bytes]) -> bytes:
        session = self._provider.sessions.pop(message["session"].encode(), None)
        if session is None:
            return pack({"error": "no such session"})
        answer = {
            "log": session.log,
            "unexpected": session.unexpected,
            "cpu_seconds": time.process_time() - session.cpu_at_start,
        }
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


def serve(listener: socket.socket, parent: socket.socket) -> None:
    """Until the parent is gone."""
    reactor, provider = Reactor(), Provider()
    listener.setblocking(False)
    Doorman(provider, reactor, listener)
    Control(provider, reactor, parent)
    # Nothing below makes reference cycles as it works, and a collection in the middle of a
    # request would be time that the subject is charged for.
    gc.collect()
    gc.freeze()
    gc.disable()
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
