"""Registered sessions: their scripts, their request logs, and the routing of requests."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from trae_bench.provider.http1_parser import Request
from trae_bench.provider.pressure import OwnDelay, Pressure, PressureFiles
from trae_bench.provider.responses import ABORT, Response, json_response, rejection
from trae_bench.provider.routes import MAX_SHOWN_PATH, find_route, relative_path
from trae_bench.provider.sent_bodies import SentBodies
from trae_bench.provider.usage import UsageEstimate, filled

_PREFIX = b"/s/"
_HEALTHY = json_response(200, b'{"status": "ok"}')
_NO_SESSION = rejection(404, "no such session; it has ended or was never registered")
WRONG_METHOD = rejection(405, "only POST is supported here")
SCRIPT_ENDED = rejection(400, "the script has ended; it has no reply for this request")

LogEntry = tuple[
    float, float, int, int, int, int, int, Pressure | None, float, int, int, Pressure | None
]
"""Fields of `RequestLog`: arrived, replied, connection, received, sent, status, stream, pressure,
read_late, calls, conversation, reply_pressure."""
Fault = Callable[[Response], tuple[Response, bool]]
"""Replaces a response. The flag is True if the turn counts as played."""
SUCCESS = 200
MAX_REJECTED = 3
"""Rejected requests that a session describes; the others are only counted."""


class NotedRequest(NamedTuple):
    """The first request of a session, without its headers: these hold keys."""

    method: str
    path: str
    """Below the session's path."""
    body: bytes
    user_agent: str


class Session:
    """The state of one script, and its request log."""

    def __init__(
        self,
        protocol: str,
        path_suffix: bytes,
        replies: list[Response],
        faults: Mapping[int, Fault] | None = None,
        pressure: Sequence[str] = (),
    ) -> None:
        self.log: list[LogEntry] = []
        self.pressure = PressureFiles(pressure)
        self.last_body = b""
        """Of the last request that got a reply, decompressed."""
        self.sent_bodies = SentBodies()
        self.output_tokens: Sequence[int] = ()
        """Of each turn; the account returns them."""
        self.unexpected = 0
        self.rejected: list[str] = []
        self.side_calls = 0
        self.repeats = 0
        self.first_request: NotedRequest | None = None
        self.protocol = protocol
        self.played = 0
        """Turns played."""
        self.conversation = 0
        """Number of the conversation of the last request."""
        self.handshakes = 0
        self.cpu_at_start = time.process_time()
        self._usage = UsageEstimate(protocol)
        self._path_suffix = path_suffix
        self._replies = replies
        self._faults = faults or {}
        """By number of the request, from 1."""
        self._arrived = 0
        self._connections: set[int] = set()

    @property
    def turn(self) -> int:
        """Number of the turn that the last request got, from 1."""
        return self.played

    def respond(self, request: Request) -> Response:
        """Return the response to a request, and advance the script."""
        if request.method == b"POST" and request.path.endswith(self._path_suffix):
            self.last_body = request.body
            if self.played < len(self._replies):
                return self.play(self._replies[self.played], request.body)
            return self.reject(request, SCRIPT_ENDED)
        if request.method != b"POST":
            return self.reject(request, WRONG_METHOD)
        return self.reject(request, wrong_path(self.protocol, relative_path(request.path)))

    def play(self, reply: Response, body: bytes) -> Response:
        """Return the reply of the next turn to a request's body, or the fault of this request."""
        self._arrived += 1
        reply = self.counted(reply, body)
        if self._arrived in self._faults:
            reply, played = self._faults[self._arrived](reply)
            self.played += played
        else:
            self.played += 1
        return reply

    def counted(self, reply: Response, body: bytes) -> Response:
        """Return a reply with the token counts for a request's body."""
        return filled(reply, *self._usage.add(body))

    def reject(self, request: Request, response: Response) -> Response:
        """Count a request that the script does not expect, and describe the first ones."""
        self.unexpected += 1
        if len(self.rejected) < MAX_REJECTED:
            path = relative_path(request.path)[:MAX_SHOWN_PATH]
            method = request.method.decode("ascii", "backslashreplace")
            self.rejected.append(f"{method} {path}: {response.status}")
        return response

    def account(self) -> tuple[dict[str, Any], list[bytes]]:
        """Return what `registration.session_log` reads: plain data, and bodies."""
        first = self.first_request
        bodies, rest = self.sent_bodies.account()
        data = {
            "bodies": bodies,
            "output_tokens": self.output_tokens,
            "log": self.log,
            "unexpected": self.unexpected,
            "handshakes": self.handshakes,
            "played": self.played,
            "unplayed": len(self._replies) - self.played,
            "rejected": self.rejected,
            "side_calls": self.side_calls,
            "repeats": self.repeats,
            "first": None if first is None else [first.method, first.path, first.user_agent],
        }
        return data, [self.last_body, b"" if first is None else first.body, *rest]

    def count_connection(self, connection: int, handshakes: int) -> None:
        """Add the connection's handshakes, at its first request only."""
        if connection not in self._connections:
            self._connections.add(connection)
            self.handshakes += handshakes


def wrong_path(protocol: str, path: str) -> Response:
    """Return the rejection of a path that does not belong to the session's protocol."""
    route = find_route(path)
    if route is None or route.protocol == protocol:
        return rejection(404, "this path does not belong to the session's protocol")
    return rejection(404, f"this session speaks {protocol}; the request is {route.protocol}")


class Provider:
    """All sessions, and counters of connections and requests."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.connections = 0
        self.open_connections = 0
        self.requests = 0
        self.own_delay = OwnDelay()
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
                response = session.respond(request)
                return None if response.side else session, response
        elif path == b"/healthz":
            return None, _HEALTHY
        self.unrouted += 1
        return None, _NO_SESSION


class Exchange:
    """A request and its response."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_conversation",
        "_pressure",
        "_read_late",
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
        self._conversation = 0 if self._session is None else self._session.conversation
        self.keep_alive = request.keep_alive
        self.sent = 0
        """Bytes handed on so far."""
        self._received = len(request.body)
        self._connection = connection
        self._arrived = arrived
        self._stream = stream
        self._pressure: Pressure | None = None
        self._read_late = 0.0
        if self._session is not None and self._session.pressure:
            self._pressure = self._session.pressure.read_next()
            self._read_late = provider.own_delay.since_sleep()
        if self._session is not None:
            self._session.count_connection(connection, handshakes)
            if self.response.status == SUCCESS:
                turn = 0 if self.response.ending == ABORT else self._session.turn
                body = self._session.last_body
                self._session.sent_bodies.add(arrived, request.path, turn, body)

    def log(self, replied: float, *, delivered: bool = True) -> None:
        """Append to the session's log; status and bytes are 0 if the client disconnected."""
        if self._session is None:
            return
        response = self.response
        size, status, calls = (
            (self.sent, response.status, response.calls) if delivered else (0, 0, 0)
        )
        pressure = self._session.pressure
        reply_pressure = pressure.read_next() if pressure else None
        self._session.log.append(
            (
                self._arrived,
                replied,
                self._connection,
                self._received,
                size,
                status,
                self._stream,
                self._pressure,
                self._read_late,
                calls,
                self._conversation,
                reply_pressure,
            )
        )

    def settle(self) -> None:
        """Do the work that can wait until the reply is sent."""
        if self._session is not None:
            self._session.sent_bodies.settle()
