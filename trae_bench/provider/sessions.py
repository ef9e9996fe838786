"""Registered sessions: their scripts, their request logs, and the routing of requests."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trae_bench.provider import responses
from trae_bench.provider.http1_parser import Request
from trae_bench.provider.responses import Response, json_response, rejection

_PREFIX = b"/s/"
_HEALTHY = json_response(200, b'{"status": "ok"}')
_NO_SESSION = rejection(404, "no such session; it has ended or was never registered")
_WRONG_PATH = rejection(404, "this path does not belong to the session's protocol")
_WRONG_METHOD = rejection(405, "only POST is supported here")
_SCRIPT_ENDED = rejection(400, "the script has ended; it has no reply for this request")

Fault = Callable[[Response], tuple[Response, bool]]
"""Replaces a response. The flag is True if the turn counts as played."""


class Session:
    """The state of one script, and its request log."""

    def __init__(
        self,
        path_suffix: bytes,
        replies: list[Response],
        faults: Mapping[int, Fault] | None = None,
    ) -> None:
        self.log: list[tuple[float, float, int, int, int, int, int]] = []
        """Fields of `RequestLog`: arrived, replied, connection, received, sent, status, stream."""
        self.last_body = b""
        self.unexpected = 0
        self.handshakes = 0
        self.cpu_at_start = time.process_time()
        self._path_suffix = path_suffix
        self._replies = replies
        self._faults = faults or {}
        """By number of the request, from 1."""
        self._arrived = 0
        self._played = 0
        self._connections: set[int] = set()

    def respond(self, request: Request) -> Response:
        """Return the response to a request, and advance the script."""
        if request.method == b"POST" and request.path.endswith(self._path_suffix):
            self.last_body = request.body
            if self._played < len(self._replies):
                response = self._replies[self._played]
                self._arrived += 1
                if self._arrived in self._faults:
                    response, played = self._faults[self._arrived](response)
                    self._played += played
                else:
                    self._played += 1
                return response
            self.unexpected += 1
            return _SCRIPT_ENDED
        self.unexpected += 1
        return _WRONG_PATH if request.method == b"POST" else _WRONG_METHOD

    def count_connection(self, connection: int, handshakes: int) -> None:
        """Add the connection's handshakes, at its first request only."""
        if connection not in self._connections:
            self._connections.add(connection)
            self.handshakes += handshakes


def session_from(message: dict[str, Any], blobs: Sequence[bytes]) -> Session:
    """Return the session that a message of `registration.registration` describes."""
    remaining = deque(blobs)
    replies = [_reply(message["media_type"], entry, remaining) for entry in message["replies"]]
    faults = {entry["request"]: _fault(entry, remaining) for entry in message["faults"]}
    return Session(message["path_suffix"].encode(), replies, faults)


def _reply(media_type: str | None, entry: dict[str, Any], blobs: deque[bytes]) -> Response:
    """`media_type` is that of a streamed reply; None means a complete JSON document."""
    chunks = [blobs.popleft() for _ in range(entry["chunks"])]
    if media_type is None:
        return json_response(200, chunks[0], delay=entry["delay"])
    return responses.streamed_response(media_type, chunks, delay=entry["delay"], gap=entry["gap"])


def _fault(entry: dict[str, Any], blobs: deque[bytes]) -> Fault:
    kind = entry["kind"]
    if kind == "cut":
        return lambda reply: (responses.truncated(reply), False)
    if kind == "close":
        return lambda reply: (responses.then_closed(reply), True)
    if kind == "status":
        fault = responses.error_response(entry["status"], blobs.popleft(), entry["retry_after"])
    else:
        fault = responses.reset() if kind == "reset" else responses.garbage()
    return lambda reply: (fault, False)


class Provider:
    """All sessions, and counters of connections and requests."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.connections = 0
        self.open_connections = 0
        self.requests = 0
        self.unrouted = 0
        """Requests without a session, and input that is not HTTP."""

    def connection_opened(self) -> int:
        """Count a connection and return its number."""
        self.connections += 1
        self.open_connections += 1
        return self.connections

    def connection_closed(self) -> None:
        self.open_connections -= 1

    def route(self, request: Request) -> tuple[Session | None, Response]:
        """Return the session that a request belongs to, if any, and the response."""
        self.requests += 1
        path = request.path
        if path.startswith(_PREFIX):
            session = self.sessions.get(path[len(_PREFIX) :].partition(b"/")[0])
            if session is not None:
                return session, session.respond(request)
        elif path == b"/healthz":
            return None, _HEALTHY
        self.unrouted += 1
        return None, _NO_SESSION


class Exchange:
    """A request and its response."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_received",
        "_session",
        "_stream",
        "keep_alive",
        "response",
        "sent",
    )

    def __init__(
        self,
        provider: Provider,
        request: Request,
        *,
        connection: int,
        handshakes: int,
        arrived: float,
        stream: int = 0,
    ) -> None:
        self._session, self.response = provider.route(request)
        self.keep_alive = request.keep_alive
        self.sent = 0
        """Bytes handed on so far."""
        self._received = len(request.body)
        self._connection = connection
        self._arrived = arrived
        self._stream = stream
        if self._session is not None:
            self._session.count_connection(connection, handshakes)

    def log(self, replied: float, *, delivered: bool = True) -> None:
        """Append to the session's log; status and bytes are 0 if the client disconnected."""
        if self._session is None:
            return
        size, status = (self.sent, self.response.status) if delivered else (0, 0)
        self._session.log.append(
            (
                self._arrived,
                replied,
                self._connection,
                self._received,
                size,
                status,
                self._stream,
            )
        )
