"""HTTP/1.1 requests from a stream of bytes: no socket, no clock, standard library only.

Written for little work per request: one search for the end of the head, one pass over its
lines, and the body taken in one slice.
"""

HEAD_LIMIT = 65_536
BODY_LIMIT = 256 * 1024 * 1024
_END = b"\r\n\r\n"
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")
_DIGITS_LIMIT = 12
_CHUNK_LINE_LIMIT = 256


class BadRequest(Exception):
    """These bytes are no request. `status` is the HTTP status to answer; then close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Request:
    """One whole request."""

    __slots__ = ("body", "keep_alive", "method", "path")

    def __init__(self, method: bytes, path: bytes, keep_alive: bool, body: bytes) -> None:
        self.method = method
        self.path = path
        """Without the query."""
        self.keep_alive = keep_alive
        self.body = body


class RequestReader:
    """Bytes in by `feed`, requests out by `next`, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._chunks: _Chunks | None = None

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def next(self) -> Request | None:
        """The next whole request, None until there is one. Raises `BadRequest`."""
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
        return Request(head.method, head.path, head.keep_alive, body)

    def wants_continue(self) -> bool:
        """True once for a client that holds its body back until it is told to go on."""
        head = self._head
        if head is None or not head.expects:
            return False
        head.expects = False
        return True

    def _take_head(self) -> "_Head | None":
        buffer = self._buffer
        # Empty lines before a request are to be skipped (RFC 9112, 2.2).
        while buffer.startswith(b"\r\n"):
            del buffer[:2]
        end = buffer.find(_END, 0, HEAD_LIMIT)
        if end < 0:
            if len(buffer) >= HEAD_LIMIT:
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
    """Request line and the few headers that matter here. Raises `BadRequest`."""

    __slots__ = ("chunked", "expects", "keep_alive", "length", "method", "path")

    def __init__(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or words[2] not in _VERSIONS or not words[0].isalpha():
            raise BadRequest(400, "the request line is not `METHOD path HTTP/1.1`")
        self.method = words[0]
        self.path = words[1].partition(b"?")[0]
        headers = _headers(lines)
        close = b"close" in headers.get(b"connection", b"").lower()
        self.keep_alive = words[2] == b"HTTP/1.1" and not close
        self.expects = headers.get(b"expect", b"").lower() == b"100-continue"
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
    if not value.isdigit() or len(value) > _DIGITS_LIMIT:
        raise BadRequest(400, "the Content-Length is not a number of bytes")
    length = int(value)
    if length > BODY_LIMIT:
        raise BadRequest(413, "the body is too long")
    return length


class _Chunks:
    """A chunked body as far as it has come. Eats the buffer chunk by chunk."""

    __slots__ = ("_body", "_in_trailer")

    def __init__(self) -> None:
        self._body = bytearray()
        self._in_trailer = False

    def take(self, buffer: bytearray) -> bytes | None:
        """The whole body, or None until its end has come."""
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
                raise BadRequest(400, "a chunk does not end where it said")
            self._body += memoryview(buffer)[start:end]
            if len(self._body) > BODY_LIMIT:
                raise BadRequest(413, "the body is too long")
            at = end + 2
        del buffer[:at]
        return bytes(self._body) if _skip_trailer(buffer) else None


def _chunk_size(buffer: bytearray, at: int) -> tuple[int, int]:
    """Size of the chunk at `at` and where its bytes begin; size -1 where the line is not whole."""
    end = buffer.find(b"\r\n", at, at + _CHUNK_LINE_LIMIT)
    if end < 0:
        if len(buffer) - at >= _CHUNK_LINE_LIMIT:
            raise BadRequest(400, "the size line of a chunk is too long")
        return -1, at
    digits = bytes(buffer[at:end]).partition(b";")[0].strip()
    if not digits or len(digits) > _DIGITS_LIMIT or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadRequest(400, "the size of a chunk is not a hexadecimal number")
    size = int(digits, 16)
    if size > BODY_LIMIT:
        raise BadRequest(413, "the body is too long")
    return size, end + 2


def _skip_trailer(buffer: bytearray) -> bool:
    """Drop the trailer's lines; True once the empty one that ends it has come."""
    while True:
        end = buffer.find(b"\r\n", 0, HEAD_LIMIT)
        if end < 0:
            if len(buffer) >= HEAD_LIMIT:
                raise BadRequest(431, "the trailer of the request is too long")
            return False
        del buffer[: end + 2]
        if end == 0:
            return True
