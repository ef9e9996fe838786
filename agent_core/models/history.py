"""Builds request bodies: the whole history, encoded again or extended.

Every request contains the whole history. `FullHistory` builds and encodes all of it each
time, as an SDK does. `IncrementalHistory` encodes each message once and keeps the bytes.
Both give the same bytes.

A history only grows, so each request begins with the one before it. If the codec has a
`cache_mark`, two parts of the list carry it: the last one of the user, and the last one of the
user before the last reply, where the previous request ended. So the provider finds that end
again, however long the step was.
"""

from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any, NamedTuple, Protocol

from agent_core.encoding import encode_json
from agent_core.messages import Message, ToolSpec
from agent_core.models.codec import Codec


class History(Protocol):
    """Builds request bodies."""

    def body(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> bytes: ...


def _system_texts(codec: Codec, history: Sequence[Message]) -> list[str]:
    if not codec.lifts_system:
        return []
    return [message.text for message in history if message.role == "system"]


class FullHistory:
    """Encodes all messages at every step."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def body(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> bytes:
        return encode_json(self.document(history, tools))

    def document(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        """The body as plain data, for an SDK that encodes it itself."""
        document = self._codec.envelope(_system_texts(self._codec, history), tools)
        document[self._codec.list_field] = self._items(history)
        return document

    def _items(self, history: Sequence[Message]) -> list[Any]:
        field = self._codec.grouped
        items: list[Any] = []
        for role, parts in map(self._codec.entry, history):
            if field is None:
                items += parts
            elif parts and items and items[-1]["role"] == role:
                items[-1][field] += parts
            elif parts:
                items.append({"role": role, field: list(parts)})
        if field and self._codec.cache_mark:
            self._mark([(item["role"], item[field]) for item in items], self._codec.cache_mark)
        return items

    def _mark(self, groups: list[tuple[str, list[Any]]], mark: dict[str, Any]) -> None:
        """Marks the two ends in `groups`, which are roles with their parts."""
        end = previous_end = None
        for role, parts in groups:
            if role != "user":
                previous_end = end
                continue
            for place, part in enumerate(parts):
                if self._codec.takes_mark(part):
                    end = parts, place
        # Replaced and not changed, because a part can belong to a message.
        for parts, place in filter(None, (previous_end, end)):
            parts[place] = {**parts[place], **mark}


class _Boundary(NamedTuple):
    """The state of the encoded list after one message."""

    length: int
    role: str
    """Role of the open group, or "" if none is open."""
    end: int = 0
    """Where the mark of the user's last part belongs; 0 if no part takes one."""
    previous_end: int = 0
    """The same for the list before the last reply."""


_START = _Boundary(0, "")


class IncrementalHistory:
    """Encodes each message once. A step costs the new messages and one copy of the bytes.

    Messages are frozen, so the same object has the same bytes. From the first message that is
    a different object (an edited or shortened history), everything is encoded again.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        mark = codec.cache_mark if codec.grouped else None
        self._mark = b"," + encode_json(mark)[1:-1] if mark else b""
        self._seen: list[Message] = []
        self._boundaries: list[_Boundary] = []
        self._list = bytearray()
        self._tools: Sequence[ToolSpec] | None = None
        self._system: list[str] = []
        self._head = b""

    def body(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> bytes:
        kept = self._common(history)
        changed = kept < len(self._seen)
        if changed:
            self._forget(kept)
        for message in history[kept:]:
            self._append(message)
        if changed or any(message.role == "system" for message in history[kept:]):
            self._system = _system_texts(self._codec, history)
            self._tools = None
        if self._tools is None or not _same(self._tools, tools):
            self._head = self._encoded_head(tools)
            self._tools = tuple(tools)
        end = b"]}" if self._last.role else b""
        # A view is not copied; it is released, because the list cannot grow while it has one.
        with memoryview(self._list) as encoded:
            return b"".join((self._head, *self._marked(encoded), end, b"]}"))

    def _marked(self, encoded: memoryview) -> Iterator[memoryview | bytes]:
        start = 0
        for place in sorted({self._last.previous_end, self._last.end} - {0}):
            yield encoded[start:place]
            yield self._mark
            start = place
        yield encoded[start:]

    @property
    def _last(self) -> _Boundary:
        return self._boundaries[-1] if self._boundaries else _START

    def _common(self, history: Sequence[Message]) -> int:
        """The number of leading messages that are already encoded."""
        both = min(len(self._seen), len(history))
        if all(map(is_, self._seen, history)):
            return both
        return next(i for i in range(both) if self._seen[i] is not history[i])

    def _forget(self, kept: int) -> None:
        del self._seen[kept:], self._boundaries[kept:]
        del self._list[self._last.length :]

    def _append(self, message: Message) -> None:
        role, parts = self._codec.entry(message)
        after = self._last
        if parts:
            self._list += self._separator(after.role, role)
            self._list += encode_json(parts)[1:-1]
            after = self._after(role, parts)
        self._seen.append(message)
        self._boundaries.append(after)

    def _after(self, role: str, parts: list[Any]) -> _Boundary:
        """The state of the list, whose end is `parts`."""
        length, (_, _, end, previous_end) = len(self._list), self._last
        if self._mark and role != "user":
            previous_end = end
        elif self._mark and self._codec.takes_mark(parts[-1]):
            end = length - 1  # before the brace that closes the part
        return _Boundary(length, role if self._codec.grouped else "", end, previous_end)

    def _separator(self, before: str, role: str) -> bytes:
        """The bytes between the list so far and the next parts."""
        comma = b"," if self._list else b""
        if self._codec.grouped is None or before == role:
            return comma
        opening = encode_json({"role": role, self._codec.grouped: []})[:-2]
        return (b"]}," if before else comma) + opening

    def _encoded_head(self, tools: Sequence[ToolSpec]) -> bytes:
        document = self._codec.envelope(self._system, tools)
        document[self._codec.list_field] = []
        return encode_json(document)[:-2]


def _same(old: Sequence[ToolSpec], new: Sequence[ToolSpec]) -> bool:
    return len(old) == len(new) and all(map(is_, old, new))
