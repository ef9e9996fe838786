"""Messages between the parent and the server process: frames on a stream socket.

A frame is one line of JSON, followed by the raw bytes whose lengths the line lists in `blobs`.
Request and reply bodies are blobs, because encoding megabytes as JSON would be slow.
"""

import json
from collections.abc import Sequence
from typing import Any

Frame = tuple[dict[str, Any], list[bytes]]


def pack(message: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """Encode a frame."""
    line = json.dumps(message | {"blobs": [len(blob) for blob in blobs]})
    return b"".join((line.encode(), b"\n", *blobs))


class FrameReader:
    """Decodes frames from bytes passed to `feed`. It does not validate them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next complete frame, or None."""
        if self._message is None:
            line, newline, _ = self._buffer.partition(b"\n")
            if not newline:
                return None
            del self._buffer[: len(line) + 1]
            self._message = json.loads(line)
        message = self._message
        lengths: list[int] = message["blobs"]
        if len(self._buffer) < sum(lengths):
            return None
        self._message = None
        return message, [self._take(length) for length in lengths]

    def _take(self, length: int) -> bytes:
        blob = bytes(self._buffer[:length])
        del self._buffer[:length]
        return blob
