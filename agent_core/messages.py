"""The records of a session: frozen, typed, without behaviour.

A session is a growing list of `Message`. The model answers with a `Reply`; each call in
it gives a `ToolResult`, which becomes a message. `Outcome` is the end of the session.
"""

from operator import add
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import astuple

Role = Literal["system", "user", "assistant", "tool"]
Stop = Literal["task_done", "max_steps", "error"]
Ending = Literal["complete", "limit", "window", "refused", "unreadable"]
"""How a reply ended: as the model wanted; cut at `max_tokens`; cut because the model's context
window is full; refused by the model or a filter; with a call that the provider could not read.
"""


class ToolSpec(Struct, frozen=True):
    """The description of a tool that the model receives."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments, an object schema."""


class ToolCall(Struct, frozen=True):
    """A call that the model requests."""

    id: str
    name: str
    arguments: dict[str, Any]
    malformed: str | None = None
    """The arguments as received, if they are not a JSON object. `arguments` is then empty."""


class ToolOutput(Struct, frozen=True):
    """The result of one execution of a tool."""

    ok: bool
    output: str = ""
    error: str | None = None


class ToolResult(Struct, frozen=True):
    """A tool's output with the id of its call."""

    call_id: str
    name: str
    ok: bool
    output: str = ""
    error: str | None = None

    @property
    def text(self) -> str:
        """The text that the model reads: the output, then any error."""
        if self.error is None:
            return self.output
        return f"{self.output}\n{self.error}" if self.output else self.error


class Message(Struct, frozen=True):
    """One entry of the history.

    Only assistant messages have `calls`; only tool messages have a `result`.
    """

    role: Role
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    result: ToolResult | None = None
    opaque: dict[str, Any] | None = None
    """Provider data to send back unchanged with this message, e.g. thought signatures."""


class Usage(Struct, frozen=True):
    """Tokens as counted by the provider."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*map(add, astuple(self), astuple(other)))


class Reply(Struct, frozen=True):
    """A model's answer: an assistant message and its token usage."""

    message: Message
    usage: Usage = Usage()
    finish_reason: str = ""
    """The provider's own word."""
    model: str = ""
    ending: Ending = "complete"
    explanation: str = ""
    """The provider's text about an ending other than "complete", if any."""


class Outcome(Struct, frozen=True):
    """The result of a session."""

    success: bool
    stop: Stop
    final_text: str
    steps: int
    usage: Usage = Usage()
    error: str | None = None
