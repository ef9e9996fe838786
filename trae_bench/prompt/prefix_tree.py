"""The prefixes of the prompts of a session, part by part."""

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from trae_bench._util.common_prefix import common_prefix
from trae_bench.prompt.parts import Part

_MAX_FOLLOWERS = 16
"""Parts after the same prefix that are compared byte by byte."""


class Path(Struct, frozen=True):
    """A prompt in the tree."""

    nodes: tuple[int, ...]
    """Names the prefix that ends with each part."""
    known: int
    """Parts at its beginning with which an earlier prompt began."""
    common: int
    """Bytes of the next part with which an earlier prompt went on; less than all of it."""


class PrefixTree:
    """The prefixes of all prompts, and when each was last sent."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, bytes], int] = {}
        """From a node and a part's bytes to the next node. Node 0 is the empty prefix."""
        self._last_sent: dict[int, float] = {}
        self._followers: dict[int, list[tuple[bytes, int]]] = {}
        """The first parts below a node, with their own nodes."""

    def add(self, parts: Sequence[Part], arrived: float = 0.0, lifetime: float = math.inf) -> Path:
        """Add a prompt. An earlier one counts for `lifetime` seconds after it was last sent."""
        nodes = tuple(self._walk(parts))
        oldest = arrived - lifetime
        known = 0
        while known < len(nodes) and self._is_sent(nodes[known], oldest):
            known += 1
        common = 0
        if known < len(nodes):
            before = nodes[known - 1] if known else 0
            common = self._common(before, parts[known].text, oldest)
        self._last_sent.update(dict.fromkeys(nodes, arrived))
        return Path(nodes, known, common)

    def _walk(self, parts: Sequence[Part]) -> Iterator[int]:
        node = 0
        for part in parts:
            below = self._nodes.get((node, part.text))
            if below is None:
                below = self._nodes[node, part.text] = len(self._nodes) + 1
                followers = self._followers.setdefault(node, [])
                if len(followers) < _MAX_FOLLOWERS:
                    followers.append((part.text, below))
            node = below
            yield node

    def _is_sent(self, node: int, oldest: float) -> bool:
        return node in self._last_sent and self._last_sent[node] >= oldest

    def _common(self, node: int, text: bytes, oldest: float) -> int:
        """Return the bytes in common with the parts that were sent after the same prefix."""
        sent = (one for one, below in self._followers[node] if self._is_sent(below, oldest))
        return max((common_prefix(text, one) for one in sent), default=0)
