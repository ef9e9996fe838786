"""Keeps a conversation shorter than the model's context window.

Only outputs of tools are shortened, the oldest first, and about half of the conversation at once:
what stays before them is unchanged, so a provider's prompt cache is lost rarely. The recorder has
already stored every output.
"""

import logging
from collections.abc import Sequence

from msgspec.structs import replace

from agent_core.encoding import encode_json
from agent_core.messages import Message

_LOG = logging.getLogger(__name__)

BYTES_PER_TOKEN = 3
"""A low estimate. Text of any language has more bytes of UTF-8 in a token, code about 3."""

DROPPED = "[This output was dropped because the conversation is long. Call the tool again for it.]"
_CLIPPED = "\n[The middle of this output was dropped because the conversation is long.]\n"
_KEPT = 1000
"""Characters that stay at each end of an output that the model has not seen yet."""


class Context:
    """The limit of one conversation. `window` is in tokens, None if it is not known."""

    def __init__(self, window: int | None) -> None:
        self._limit = None if window is None else window * BYTES_PER_TOKEN
        """Bytes of the messages."""
        self._sizes: list[int] = []
        """Bytes of each message, as far as they have been counted."""

    def fit(self, history: list[Message]) -> None:
        """Shortens `history` in place if it is longer than the known limit."""
        if self._limit is not None and self._size(history) > self._limit:
            self._shorten(history, self._limit // 2)

    def refused(self, history: list[Message]) -> bool:
        """Shortens `history` in place after the provider refused its length.

        Also remembers the length. False if there is nothing left to shorten.
        """
        size = self._size(history)
        self._limit = min(size, self._limit or size) * 9 // 10
        return self._shorten(history, size // 2)

    def _size(self, history: Sequence[Message]) -> int:
        self._sizes += map(_size, history[len(self._sizes) :])
        return sum(self._sizes)

    def _shorten(self, history: list[Message], target: int) -> bool:
        shortened, total, last = 0, sum(self._sizes), _last_answer(history)
        for place, old in enumerate(history):
            if total <= target:
                break
            new = _shorter(old, seen=place < last)
            saved = self._sizes[place] - (self._sizes[place] if new is old else _size(new))
            if saved > 0:
                history[place] = new
                self._sizes[place] -= saved
                total -= saved
                shortened += 1
        if shortened:
            _LOG.warning("The conversation is long; %d outputs of tools were dropped", shortened)
        return shortened > 0


def _last_answer(history: Sequence[Message]) -> int:
    """The place of the model's last message. It has not seen what follows."""
    places = (place for place, message in enumerate(history) if message.role == "assistant")
    return max(places, default=0)


def _shorter(message: Message, *, seen: bool) -> Message:
    """`message`, whose result is dropped if the model has seen it, and clipped if not."""
    result = message.result
    if result is None:
        return message
    if seen:
        return replace(message, result=replace(result, output=DROPPED, error=None))
    error = result.error and _clipped(result.error)
    return replace(message, result=replace(result, output=_clipped(result.output), error=error))


def _clipped(text: str) -> str:
    if len(text) <= 2 * _KEPT + len(_CLIPPED):
        return text
    return f"{text[:_KEPT]}{_CLIPPED}{text[-_KEPT:]}"


def _size(message: Message) -> int:
    """Bytes of the parts that can be long."""
    size = len(message.text.encode("utf-8", "replace"))
    if message.result is not None:
        size += len(message.result.text.encode("utf-8", "replace"))
    for call in message.calls:
        size += len(encode_json(call.arguments))
    if message.opaque:
        size = max(size, len(encode_json(message.opaque)))
    return size
