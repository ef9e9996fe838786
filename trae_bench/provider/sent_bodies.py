"""Keeps the body of every request of a session, each as its difference from the one before.

A history grows with each step, so the bodies of a long session are large in total and almost
equal. Standard library only, because the server imports it.
"""

from collections.abc import Iterator, Sequence

from trae_bench._util.common_prefix import common_prefix
from trae_bench.provider.routes import relative_path

MAX_STORED = 128 * 1024 * 1024
"""Bytes that a session stores. The bodies of a longer one are dropped."""

Entry = tuple[float, str, int]
"""When the request arrived, its path below the session's, and the bytes that its body has in
common with the one before."""


class SentBodies:
    """The bodies of the requests that got a turn, in order of arrival."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, bytes, int]] = []
        self._rest: list[bytes] = []
        """What follows the common beginning."""
        self._pending: list[tuple[float, bytes, bytes]] = []
        self._last = b""
        self._stored = 0

    def add(self, arrived: float, path: bytes, body: bytes) -> None:
        """Keep a body. `settle` compares it with the one before, after the reply."""
        self._pending.append((arrived, path, body))

    def settle(self) -> None:
        """Compress the bodies that were added."""
        for arrived, path, body in self._pending:
            common = common_prefix(self._last, body)
            self._stored += len(body) - common
            if self._stored <= MAX_STORED:
                self._entries.append((arrived, path, common))
                self._rest.append(body[common:])
                self._last = body
        self._pending.clear()

    def account(self) -> tuple[list[Entry], list[bytes]]:
        """Return what `restored` reads: an entry and a blob per request. Nothing if too long."""
        self.settle()
        if self._stored > MAX_STORED:
            return [], []
        entries = [(when, relative_path(path), common) for when, path, common in self._entries]
        return entries, self._rest


def restored(entries: Sequence[Entry], rest: Sequence[bytes]) -> Iterator[tuple[float, str, bytes]]:
    """Yield the arrival, the path and the body of each request."""
    last = b""
    for (arrived, path, common), tail in zip(entries, rest, strict=True):
        last = last[:common] + tail
        yield arrived, path, last
