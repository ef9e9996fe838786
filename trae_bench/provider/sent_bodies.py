"""Keeps the body of every request of a session, each as its difference from the one before.

A history grows with each step, so the bodies of a long session are large in total and almost
equal. Standard library only, because the server imports it.
"""

from collections.abc import Iterator, Sequence

from trae_bench._util.common_prefix import common_prefix
from trae_bench.provider.routes import relative_path

MAX_STORED = 128 * 1024 * 1024
"""Bytes that a session stores. The bodies of a longer one are dropped."""

Entry = tuple[float, str, int, int]
"""When the request arrived, its path below the session's, the turn that answered it, and the bytes
that its body has in common with the one before. Turn 0 stands for an incomplete reply."""


class SentBodies:
    """The bodies of the requests that got a turn, in order of arrival."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, bytes, int, int]] = []
        self._rest: list[bytes] = []
        """What follows the common beginning."""
        self._pending: list[tuple[float, bytes, int, bytes]] = []
        self._last = b""
        self._stored = 0

    def add(self, arrived: float, path: bytes, turn: int, body: bytes) -> None:
        """Keep a body. `settle` compares it with the one before, after the reply."""
        self._pending.append((arrived, path, turn, body))

    def settle(self) -> None:
        """Compress the bodies that were added."""
        for arrived, path, turn, body in self._pending:
            common = common_prefix(self._last, body)
            self._stored += len(body) - common
            if self._stored <= MAX_STORED:
                self._entries.append((arrived, path, turn, common))
                self._rest.append(body[common:])
                self._last = body
        self._pending.clear()

    def account(self) -> tuple[list[Entry], list[bytes]]:
        """Return what `restored` reads: an entry and a blob per request. Nothing if too long."""
        self.settle()
        if self._stored > MAX_STORED:
            return [], []
        entries = [
            (arrived, relative_path(path), turn, common)
            for arrived, path, turn, common in self._entries
        ]
        return entries, self._rest


def restored(
    entries: Sequence[Entry], rest: Sequence[bytes]
) -> Iterator[tuple[float, str, int, bytes]]:
    """Yield the arrival, the path, the turn and the body of each request."""
    last = b""
    for (arrived, path, turn, common), tail in zip(entries, rest, strict=True):
        last = last[:common] + tail
        yield arrived, path, turn, last
