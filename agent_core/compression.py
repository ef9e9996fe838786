"""Compressed HTTP bodies. Nobody asks for them, but some servers and proxies send them."""

from collections.abc import Mapping
from typing import Any

MAX_BODY = 64 * 1024 * 1024
"""Bytes. A longer reply is no reply of a model."""


class BodyError(Exception):
    """A body cannot be used. `retryable` says whether another attempt may give a better one."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        self.retryable = retryable
        super().__init__(reason)


class Decompressor:
    """Decompresses a body, piece by piece."""

    def __init__(self, coding: str) -> None:
        """Raises `BodyError` for a coding that it does not know."""
        import zlib  # rarely needed

        if coding not in ("gzip", "x-gzip", "deflate"):
            raise BodyError(
                f"The reply is compressed with {coding!r:.40}, which was not asked for",
                retryable=False,
            )
        self._zlib = zlib
        self._part = self._new()
        self._size = 0
        self._started = False

    def feed(self, chunk: bytes) -> bytes:
        """Raises `BodyError` for damaged data and above `MAX_BODY`."""
        pieces = []
        while chunk:
            if self._part.eof:  # gzip bodies may be joined
                self._part = self._new()
            self._started = True
            try:
                pieces.append(self._part.decompress(chunk, MAX_BODY - self._size + 1))
            except self._zlib.error:
                raise BodyError("The compressed reply is damaged", retryable=True) from None
            self._size += len(pieces[-1])
            check_size(self._size)
            chunk = self._part.unused_data
        return b"".join(pieces)

    def _new(self) -> Any:
        # 32: recognises the header of gzip and of zlib.
        return self._zlib.decompressobj(wbits=32 + self._zlib.MAX_WBITS)

    def end(self) -> None:
        """Raises `BodyError` if the body is not complete."""
        if self._started and not self._part.eof:
            raise BodyError("The compressed reply is not complete", retryable=True)


def coding_of(headers: Mapping[str, str]) -> str | None:
    """The compression of a body, or None."""
    coding = headers.get("content-encoding")
    return None if coding is None or coding.lower() in ("identity", "") else coding.lower()


def check_size(size: int) -> None:
    """Raises `BodyError` above `MAX_BODY`."""
    if size > MAX_BODY:
        raise BodyError(f"The reply is longer than {MAX_BODY >> 20} MiB", retryable=False)
