"""The records that travel through the agent: frozen, typed, and free of behaviour.

A session is a growing list of `Message`. The model answers with a `Reply`; the calls
in it become `ToolResult`s, which become messages again. `Outcome` is how it ended.
"""

from typing import Any, Literal

from msgspec import Struct

Role = Literal["system", "user", "assistant", "tool"]
Stop = Literal["task_done", "max_steps", "error"]


class ToolSpec(Struct, frozen=True):
    """What a model is told about a tool: enough to call it, without importing it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON Schema of the arguments (an object schema)."""


class ToolCall(Struct, frozen=True):
    """One call that the model asked for."""

    id: str
    name: str
    arguments: dict[str, Any]
    malformed: str | None = None
    """The arguments as sent, where they were no JSON object; then `arguments` is empty."""


class ToolOutput(Struct, frozen=True):
    """What a tool has to say after one execution."""

    ok: bool
    output: str = ""
    error: str | None = None


class ToolResult(Struct, frozen=True):
    """A tool's output tied to the call that asked for it."""

    call_id: str
    name: str
    ok: bool
    output: str = ""
    error: str | None = None

    @property
    def text(self) -> str:
        """The result as the model reads it: the output, then the error where there is one."""
        if self.error is None:
            return self.output
        return f"{self.output}\n{self.error}" if self.output else self.error


class Message(Struct, frozen=True):
    """One entry of the history.

    `calls` is set on assistant messages only, `result` on tool messages only.
    """

    role: Role
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    result: ToolResult | None = None
    opaque: dict[str, Any] | None = None
    """What one provider wants back unread with this message (thought signatures and the like)."""


class Usage(Struct, frozen=True):
    """Tokens, as the provider counted them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class Reply(Struct, frozen=True):
    """One answer of a model: an assistant message and what it cost."""

    message: Message
    usage: Usage = Usage()
    finish_reason: str = ""
    model: str = ""


class Outcome(Struct, frozen=True):
    """How a session ended."""

    success: bool
    stop: Stop
    final_text: str
    steps: int
    usage: Usage = Usage()
    error: str | None = None
