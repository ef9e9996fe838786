"""What the wire protocols share: the codec record, token counts and event encoding.

Ids and clocks are generated and always the same. Output tokens are estimated. Input tokens are
placeholders, which the server replaces; see `provider.usage`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench.prompt.tokens import ESTIMATE
from trae_bench.provider.script import PlayedCall, PlayedTurn, spoken
from trae_bench.provider.usage import CACHED, INPUT

SSE = "text/event-stream"

JsonObject = dict[str, Any]
Split = Callable[[str], list[str]]
"""Splits a text into chunks, none empty."""


class NumberedTurn(Struct, frozen=True):
    """A turn and its position in the session, which determines ids."""

    turn: PlayedTurn
    number: int
    """From 1."""

    @property
    def input_tokens(self) -> int:
        """A placeholder."""
        return INPUT

    @property
    def cached_tokens(self) -> int:
        """A placeholder."""
        return CACHED

    @property
    def output_tokens(self) -> int:
        return sum(map(ESTIMATE.of_text, spoken(self.turn)))


class Endpoint(Struct, frozen=True):
    """URL paths of one protocol, below the session's path."""

    base: str
    """Path of the base URL that a client is configured with."""
    suffix: str
    """End of the path of every request."""
    stream_suffix: str = ""
    """End of the path of a request for a streamed reply, if it differs."""

    def suffix_for(self, *, stream: bool) -> str:
        return self.stream_suffix if stream and self.stream_suffix else self.suffix


class Codec(Struct, frozen=True):
    """Encodes turns in one protocol."""

    endpoint: Endpoint
    complete: Callable[[NumberedTurn], JsonObject]
    """Returns a complete reply."""
    stream: Callable[[NumberedTurn, Split], Iterator[bytes]]
    """Yields the events of a streamed reply."""
    error: Callable[[int, str], JsonObject]
    """Returns an error reply for a status and a message."""
    media_type: str = SSE
    """Content type of a streamed reply."""


def arguments_json(call: PlayedCall) -> str:
    """Return the arguments as a JSON string, as OpenAI sends them inside JSON."""
    return msgspec.json.encode(call.arguments).decode()


def sse(event: JsonObject) -> bytes:
    """Encode a server-sent event."""
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def named_sse(event: JsonObject) -> bytes:
    """Encode a server-sent event that repeats its type in an `event:` line."""
    return f"event: {event['type']}\n".encode() + sse(event)
