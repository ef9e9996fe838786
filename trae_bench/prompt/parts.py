"""The prompt of a request as a sequence of parts, in the order in which providers read them."""

from typing import Literal

from msgspec import Struct

Role = Literal["", "system", "user", "assistant", "tool"]
CacheMark = Literal["", "5m", "1h"]


class Part(Struct, frozen=True):
    """A tool, a block of the system prompt, or a message or one block of it."""

    place: str
    """Where the request has it, like `tools[3]` or `messages[2].content[0]`."""
    text: bytes
    """JSON with sorted keys, without cache marks, so equal content has equal bytes. The part of
    a message's first block also has the message's role."""
    role: Role = ""
    """Who said it; empty for a tool."""
    cache_mark: CacheMark = ""
    """Lifetime of the cache entry that Anthropic's `cache_control` asks for at this part's end."""


class Prompt(Struct, frozen=True):
    """What one request asks the model to read: tools, then the system prompt, then messages."""

    protocol: str
    """A `scenario.Protocol`."""
    model: str
    """Empty if the request names none."""
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(len(part.text) for part in self.parts)

    @property
    def is_first(self) -> bool:
        """Whether the model has said nothing yet, so a conversation starts."""
        return not any(part.role == "assistant" for part in self.parts)
