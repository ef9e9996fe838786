"""HTTP responses as bytes, for HTTP/1.1 and HTTP/2. Standard library only.

A fault is a response too: with other bytes, or with another ending of the connection.
"""

import json
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trae_bench.provider.usage import UsageSlots

KEEP_OPEN = 0
"""The connection stays open for the next request."""
CLOSE = 1
"""The connection closes after the complete response, without `Connection: close`."""
ABORT = 2
"""The response is incomplete, and the connection closes."""
RESET = 3
"""The connection is reset without a response."""

JSON_TYPE = "application/json"
NOT_HTTP = b"\x15\x03\x01 this is no HTTP, and no end of it \x00\xff\r\n\r\n"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    529: "Overloaded",
}

Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Response:
    """One HTTP response, or the bytes that a fault sends instead."""

    status: int
    """0 if no status is sent."""
    chunks: tuple[bytes, ...]
    """All HTTP/1.1 bytes, head first, sent `gap` seconds apart."""
    _: KW_ONLY
    headers: Headers = ()
    """Headers for HTTP/2. Without headers, `chunks` are sent as raw bytes."""
    body: tuple[bytes, ...] = ()
    """Body for HTTP/2, in the same number of chunks."""
    delay: float = 0.0
    """Seconds between the request's last byte and the response's first."""
    gap: float = 0.0
    """Seconds between two chunks."""
    ending: int = KEEP_OPEN
    calls: int = 0
    """Tool calls in the reply."""
    side: bool = False
    """It belongs to no turn, and its request is not logged."""
    usage: "UsageSlots | None" = None
    """Where its token counts are."""


def json_response(
    status: int, body: bytes, *, extra: Headers = (), delay: float = 0.0, close: bool = False
) -> Response:
    """Return a JSON response, head and body in one chunk so that one write sends them."""
    headers = (("content-type", JSON_TYPE), ("content-length", str(len(body))), *extra)
    http1_headers = (*headers, ("connection", "close")) if close else headers
    chunks = (_head(status, http1_headers) + body,)
    return Response(status, chunks, headers=headers, body=(body,), delay=delay)


def streamed_response(
    media_type: str, events: list[bytes], *, delay: float, gap: float
) -> Response:
    """Return a response of several events. Without a gap, one write sends them all."""
    if not gap:
        events = [b"".join(events)]
    headers = (("content-type", media_type), ("cache-control", "no-cache"))
    first, *rest = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    head = _head(200, (*headers, ("transfer-encoding", "chunked")))
    chunks = [head + first, *rest]
    chunks[-1] += b"0\r\n\r\n"
    return Response(200, tuple(chunks), headers=headers, body=tuple(events), delay=delay, gap=gap)


def error_response(status: int, body: bytes, retry_after: float | None) -> Response:
    """Return a scripted error, with a `Retry-After` header if given (seconds)."""
    extra: Headers = () if retry_after is None else (("retry-after", f"{retry_after:g}"),)
    return json_response(status, body, extra=extra)


def rejection(status: int, message: str, *, close: bool = False) -> Response:
    """Return an error of the server itself, for a request that the script does not expect."""
    error = {"message": f"scripted provider: {message}", "type": "scripted_provider"}
    return json_response(status, json.dumps({"error": error}).encode(), close=close)


def reset() -> Response:
    """Return the fault that resets the connection."""
    return Response(0, (), ending=RESET)


def garbage() -> Response:
    """Return the fault that sends bytes that are not HTTP."""
    return Response(0, (NOT_HTTP,), ending=ABORT)


def truncated(response: Response) -> Response:
    """Return the first half of a response; then the connection closes."""
    chunks, body = _half(response.chunks), _half(response.body)
    return replace(response, chunks=chunks, body=body, ending=ABORT, calls=0)


def then_closed(response: Response) -> Response:
    """Return the complete response; then the connection closes without notice."""
    return replace(response, ending=CLOSE)


def _half(chunks: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(chunks) > 1:
        return chunks[: len(chunks) // 2]
    # Keep the complete head: the client must see that a response started.
    head_end = chunks[0].find(b"\r\n\r\n") + 4 if chunks[0].startswith(b"HTTP/") else 0
    return (chunks[0][: head_end + (len(chunks[0]) - head_end) // 2],)


def _head(status: int, headers: Headers) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{lines}\r\n".encode()
