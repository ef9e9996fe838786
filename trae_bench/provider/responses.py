"""What goes out for one request, as HTTP/1.1 and HTTP/2 need it. Standard library only.

A fault is an answer like any other: other bytes, or another ending.
"""

import json

KEEP = 0
"""The connection stays open for the next request."""
CLOSE = 1
"""After a whole reply the connection ends without a word of farewell."""
BROKEN = 2
"""The reply is not whole, and the connection ends."""
RESET = 3
"""The connection is torn down, and the client is told so."""

JSON_TYPE = "application/json"
NOT_HTTP = b"\x15\x03\x01 this is no HTTP, and no end of it \x00\xff\r\n\r\n"
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
    529: "Overloaded",
}

Headers = tuple[tuple[str, str], ...]


class Answer:
    """One reply, or what comes in its place."""

    __slots__ = ("body", "delay", "ending", "gap", "headers", "pieces", "status")

    def __init__(
        self,
        status: int,
        pieces: tuple[bytes, ...],
        *,
        headers: Headers = (),
        body: tuple[bytes, ...] = (),
        delay: float = 0.0,
        gap: float = 0.0,
        ending: int = KEEP,
    ) -> None:
        self.status = status
        """0 where no status is said at all."""
        self.pieces = pieces
        """All bytes of HTTP/1.1, head first; one piece after the other, `gap` seconds apart."""
        self.headers = headers
        """What HTTP/2 says in its own way; without headers, `pieces` are sent as they are."""
        self.body = body
        """For HTTP/2: the body alone, in as many pieces."""
        self.delay = delay
        """Seconds between the request's last byte and the reply's first."""
        self.gap = gap
        self.ending = ending


def whole(
    status: int, body: bytes, *, extra: Headers = (), delay: float = 0.0, close: bool = False
) -> Answer:
    """A reply of JSON, head and body in one piece, so that they leave in one write."""
    headers = (("content-type", JSON_TYPE), ("content-length", str(len(body))), *extra)
    said = (*headers, ("connection", "close")) if close else headers
    return Answer(status, (_head(status, said) + body,), headers=headers, body=(body,), delay=delay)


def streamed(media_type: str, events: list[bytes], *, delay: float, gap: float) -> Answer:
    """A reply in events. Without a gap between them they leave in one write."""
    if not gap:
        events = [b"".join(events)]
    headers = (("content-type", media_type), ("cache-control", "no-cache"))
    first, *more = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    head = _head(200, (*headers, ("transfer-encoding", "chunked")))
    pieces = [head + first, *more]
    pieces[-1] += b"0\r\n\r\n"
    return Answer(200, tuple(pieces), headers=headers, body=tuple(events), delay=delay, gap=gap)


def failed(status: int, body: bytes, retry_after: float | None) -> Answer:
    """An error reply that may ask for patience."""
    extra: Headers = () if retry_after is None else (("retry-after", f"{retry_after:g}"),)
    return whole(status, body, extra=extra)


def refusal(status: int, message: str, *, close: bool = False) -> Answer:
    """An error of the server itself: nothing that the script has foreseen."""
    error = {"message": f"scripted provider: {message}", "type": "scripted_provider"}
    return whole(status, json.dumps({"error": error}).encode(), close=close)


def reset() -> Answer:
    return Answer(0, (), ending=RESET)


def garbage() -> Answer:
    return Answer(0, (NOT_HTTP,), ending=BROKEN)


def cut(answer: Answer) -> Answer:
    """Half of the reply, then the end."""
    return _ended(answer, _half(answer.pieces), _half(answer.body), BROKEN)


def then_closed(answer: Answer) -> Answer:
    """The whole reply; then the connection is closed, which no header has announced."""
    return _ended(answer, answer.pieces, answer.body, CLOSE)


def _ended(
    answer: Answer, pieces: tuple[bytes, ...], body: tuple[bytes, ...], ending: int
) -> Answer:
    """The same reply with this much of it, and with this end."""
    return Answer(
        answer.status,
        pieces,
        headers=answer.headers,
        body=body,
        delay=answer.delay,
        gap=answer.gap,
        ending=ending,
    )


def _half(pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(pieces) > 1:
        return pieces[: len(pieces) // 2]
    # The head stays whole: a client must have seen a reply begin.
    head_end = pieces[0].find(b"\r\n\r\n") + 4 if pieces[0].startswith(b"HTTP/") else 0
    return (pieces[0][: head_end + (len(pieces[0]) - head_end) // 2],)


def _head(status: int, headers: Headers) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{lines}\r\n".encode()
