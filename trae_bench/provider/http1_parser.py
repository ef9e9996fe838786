"""Parses HTTP/1.1 requests from bytes. Standard library only, without sockets or clocks.

A request costs one search for the end of the head, one pass over its lines, and one slice for
the body.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_HEAD = 65_536
"""Maximum bytes of the request line and headers."""
MAX_BODY = 256 * 1024 * 1024
"""Maximum bytes of a body."""
_END = b"\r\n\r\n"
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")
_MAX_DIGITS = 12
_MAX_CHUNK_LINE = 256


class BadRequest(Exception):
    """The input is not a valid request. Send `status`, then close the connection."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class Request:
    """One complete request."""

    method: bytes
    path: bytes
    """Path without the query string."""
    keep_alive: bool
    body: bytes
    headers: dict[bytes, bytes] = field(default_factory=dict)
    """By name in lower case."""
    target: bytes = b""
    """Path and query, as sent."""
    header_lines: Sequence[bytes] = ()
    """The header lines as sent, with repeated names."""


class RequestReader:
    """Decodes requests, in order, from bytes passed to `feed`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._chunks: _Chunks | None = None

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next complete request, or None. Raises `BadRequest` if it is invalid."""
        head = self._head
        if head is None:
            head = self._take_head()
            if head is None:
                return None
            self._head = head
        body = self._take_body(head)
        if body is None:
            return None
        self._head = self._chunks = None
        path = head.target.partition(b"?")[0]
        sent = head.target, head.lines
        return Request(head.method, path, head.keep_alive, body, head.headers, *sent)

    def wants_continue(self) -> bool:
        """Return True once for a request with `Expect: 100-continue`."""
        head = self._head
        if head is None or not head.expects_continue:
            return False
        head.expects_continue = False
        return True

    def _take_head(self) -> "_Head | None":
        buffer = self._buffer
        # Skip empty lines before a request (RFC 9112, 2.2).
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
        end = buffer.find(_END, 0, MAX_HEAD)
        if end < 0:
            if len(buffer) >= MAX_HEAD:
                raise BadRequest(431, "the head of the request is too long")
            return None
        head = _Head(bytes(buffer[:end]))
        del buffer[: end + 4]
        return head

    def _take_body(self, head: "_Head") -> bytes | None:
        buffer = self._buffer
        if head.chunked:
            if self._chunks is None:
                self._chunks = _Chunks()
            return self._chunks.take(buffer)
        if len(buffer) < head.length:
            return None
        body = bytes(buffer[: head.length])
        del buffer[: head.length]
        return body


class _Head:
    """The request line and the headers that the server uses. Raises `BadRequest`."""

    __slots__ = (
        "chunked",
        "expects_continue",
        "headers",
        "keep_alive",
        "length",
        "lines",
        "method",
        "target",
    )

    def __init__(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or words[2] not in _VERSIONS or not words[0].isalpha():
            raise BadRequest(400, "the request line is not `METHOD path HTTP/1.1`")
        self.method = words[0]
        self.target, self.lines = words[1], lines
        headers = self.headers = _headers(lines)
        close = b"close" in headers.get(b"connection", b"").lower()
        self.keep_alive = words[2] == b"HTTP/1.1" and not close
        self.expects_continue = headers.get(b"expect", b"").lower() == b"100-continue"
        self.chunked = _is_chunked(headers)
        self.length = 0 if self.chunked else _length(headers.get(b"content-length", b"0"))


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name[-1] in b" \t" or name[0] in b" \t":
            raise BadRequest(400, "a header line is not `name: value`")
        name = name.lower()
        value = value.strip()
        if name == b"content-length" and headers.get(name, value) != value:
            raise BadRequest(400, "two different Content-Length headers")
        headers[name] = value
    return headers


def _is_chunked(headers: dict[bytes, bytes]) -> bool:
    encoding = headers.get(b"transfer-encoding")
    if encoding is None:
        return False
    if encoding.lower() != b"chunked":
        raise BadRequest(501, "a Transfer-Encoding other than chunked")
    if b"content-length" in headers:
        raise BadRequest(400, "both Content-Length and Transfer-Encoding")
    return True


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise BadRequest(400, "the Content-Length is not a number of bytes")
    length = int(value)
    if length > MAX_BODY:
        raise BadRequest(413, "the body is too long")
    return length


class _Chunks:
    """A partly received chunked body. Removes each complete chunk from the buffer."""

    __slots__ = ("_body", "_in_trailer")

    def __init__(self) -> None:
        self._body = bytearray()
        self._in_trailer = False

    def take(self, buffer: bytearray) -> bytes | None:
        """Return the complete body, or None until its end has arrived."""
        at = 0
        while not self._in_trailer:
            size, start = _chunk_size(buffer, at)
            if size < 0 or (size and len(buffer) < start + size + 2):
                del buffer[:at]
                return None
            if size == 0:
                self._in_trailer = True
                at = start
                break
            end = start + size
            if buffer[end : end + 2] != b"\r\n":
                raise BadRequest(400, "a chunk does not end at its declared size")
            self._body += memoryview(buffer)[start:end]
            if len(self._body) > MAX_BODY:
                raise BadRequest(413, "the body is too long")
            at = end + 2
        del buffer[:at]
        return bytes(self._body) if _skip_trailer(buffer) else None


def _chunk_size(buffer: bytearray, at: int) -> tuple[int, int]:
    """Return the chunk's size and the start of its data; size -1 if the line is incomplete."""
    end = buffer.find(b"\r\n", at, at + _MAX_CHUNK_LINE)
    if end < 0:
        if len(buffer) - at >= _MAX_CHUNK_LINE:
            raise BadRequest(400, "the size line of a chunk is too long")
        return -1, at
    digits = bytes(buffer[at:end]).partition(b";")[0].strip()
    if not digits or len(digits) > _MAX_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadRequest(400, "the size of a chunk is not a hexadecimal number")
    size = int(digits, 16)
    if size > MAX_BODY:
        raise BadRequest(413, "the body is too long")
    return size, end + 2


def _skip_trailer(buffer: bytearray) -> bool:
    """Discard the trailer lines. Return True once the final empty line has arrived."""
    while True:
        end = buffer.find(b"\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(buffer) >= MAX_HEAD:
                raise BadRequest(431, "the trailer of the request is too long")
            return False
        del buffer[: end + 2]
        if end == 0:
            return True
