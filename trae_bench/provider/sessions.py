"""The scripts that are being played, who asks for which, and the log of it."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trae_bench.provider import responses
from trae_bench.provider.http1_parser import Request
from trae_bench.provider.reactor import OwnDelay
from trae_bench.provider.responses import Answer, refusal, whole

_PREFIX = b"/s/"
_HEALTHY = whole(200, b'{"status": "ok"}')
_NO_SESSION = refusal(404, "no such session; it is over, or was never registered")
_NO_PATH = refusal(404, "this path is not the session's protocol")
_NO_METHOD = refusal(405, "only POST is answered here")
_SCRIPT_OVER = refusal(400, "the script has ended; it has no reply for this request")

_PRESSURE_SIZE = 256
"""Bytes; more than a pressure file has."""
Pressure = tuple[int, int]
"""A level of the trial's cgroup, and its full CPU pressure (microseconds); level 0 is not read."""
LogEntry = tuple[float, float, int, int, int, int, int, Pressure | None, float]
Fault = Callable[[Answer], tuple[Answer, bool]]
"""Turns the reply into what comes in its place; True where the turn is thereby played."""


class Session:
    """One script being played, and the log of it."""

    def __init__(
        self,
        tail: bytes,
        answers: list[Answer],
        faults: Mapping[int, Fault] | None = None,
        pressure: Sequence[str] = (),
    ) -> None:
        self.log: list[LogEntry] = []
        """As `RequestLog`, in the order of its fields."""
        self.last_body = b""
        self.unexpected = 0
        self.handshakes = 0
        self.cpu_at_start = time.process_time()
        self._tail = tail
        self._answers = answers
        self._faults = faults or {}
        """By the number of the request, from 1."""
        self._arrived = 0
        self._played = 0
        self._connections: set[int] = set()
        self._pressure: list[int] = []
        """Open `cpu.pressure` files."""
        self._pressure_reads = 0
        for path in pressure:
            self._pressure.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def answer(self, request: Request) -> Answer:
        if request.method == b"POST" and request.path.endswith(self._tail):
            self.last_body = request.body
            if self._played < len(self._answers):
                answer = self._answers[self._played]
                self._arrived += 1
                if self._arrived in self._faults:
                    answer, played = self._faults[self._arrived](answer)
                    self._played += played
                else:
                    self._played += 1
                return answer
            self.unexpected += 1
            return _SCRIPT_OVER
        self.unexpected += 1
        return _NO_PATH if request.method == b"POST" else _NO_METHOD

    @property
    def has_pressure(self) -> bool:
        return bool(self._pressure)

    def read_pressure(self) -> "Pressure | None":
        """Read the next of the pressure files; None without files. It takes 2 us."""
        if not self._pressure:
            return None
        index = self._pressure_reads % len(self._pressure)
        self._pressure_reads += 1
        text = os.pread(self._pressure[index], _PRESSURE_SIZE, 0)
        # The last total is that of the "full" line.
        return index + 1, int(text.rpartition(b"total=")[2])

    def close(self) -> None:
        while self._pressure:
            os.close(self._pressure.pop())

    def met(self, connection: int, handshakes: int) -> None:
        """A request came over this connection, which was opened with so many handshakes."""
        if connection not in self._connections:
            self._connections.add(connection)
            self.handshakes += handshakes


def session_of(wish: dict[str, Any], blobs: Sequence[bytes]) -> Session:
    """The session that a wish of `replies.for_the_server` describes."""
    rest = deque(blobs)
    replies = [_reply(wish["media_type"], entry, rest) for entry in wish["replies"]]
    faults = {entry["request"]: _fault(entry, rest) for entry in wish["faults"]}
    return Session(wish["tail"].encode(), replies, faults, wish.get("pressure", ()))


def _reply(media_type: str | None, entry: dict[str, Any], blobs: deque[bytes]) -> Answer:
    """`media_type` is that of a stream; None for a whole JSON document."""
    pieces = [blobs.popleft() for _ in range(entry["pieces"])]
    if media_type is None:
        return responses.whole(200, pieces[0], delay=entry["delay"])
    return responses.streamed(media_type, pieces, delay=entry["delay"], gap=entry["gap"])


def _fault(entry: dict[str, Any], blobs: deque[bytes]) -> Fault:
    kind = entry["kind"]
    if kind == "cut":
        return lambda reply: (responses.cut(reply), False)
    if kind == "close":
        return lambda reply: (responses.then_closed(reply), True)
    instead = {
        "status": lambda: responses.failed(entry["status"], blobs.popleft(), entry["retry_after"]),
        "reset": responses.reset,
        "garbage": responses.garbage,
    }[kind]()
    return lambda reply: (instead, False)


class Provider:
    """All sessions, and what came that belongs to none."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.connections = 0
        self.open_connections = 0
        self.requests = 0
        self.own_delay = OwnDelay()
        self.strays = 0
        """Requests for no session, and bytes that were no request."""

    def enter(self) -> int:
        """One more connection; its number."""
        self.connections += 1
        self.open_connections += 1
        return self.connections

    def leave(self) -> None:
        self.open_connections -= 1

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


class Exchange:
    """A request on its way to its reply."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_pressure",
        "_read_late",
        "_received",
        "_session",
        "_stream",
        "answer",
        "keep_alive",
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
        self._session, self.answer = provider.route(request)
        self.keep_alive = request.keep_alive
        self.sent = 0
        """Bytes handed on so far."""
        self._received = len(request.body)
        self._connection = connection
        self._arrived = arrived
        self._stream = stream
        self._pressure = self._session.read_pressure() if self._session is not None else None
        self._read_late = 0.0
        if self._pressure is not None:
            self._read_late = provider.own_delay.read() - provider.own_delay.before_sleep
        if self._session is not None:
            self._session.met(connection, handshakes)

    def log(self, replied: float, *, sent: bool = True) -> None:
        """Into the session's log; status 0 and no bytes where the client did not wait."""
        if self._session is None:
            return
        size, status = (self.sent, self.answer.status) if sent else (0, 0)
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
            )
        )
