"""The record to which every reader of sessions converts, and what vendors' messages share."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from trae_bench.scenario.actions import ToolSchema
from trae_bench.scenario.model import Protocol

MAX_SESSION_BYTES = 256 * 1024 * 1024
"""Maximum size of a file with a recorded session."""


class RecordedCall(Struct, frozen=True):
    """One tool call of a recorded reply."""

    name: str
    arguments: dict[str, Any] | str = {}
    """A JSON object, or the text that the model sent instead of one."""


class RecordedReply(Struct, frozen=True):
    """One reply of the model, without its reasoning."""

    text: str = ""
    calls: tuple[RecordedCall, ...] = ()


class RecordedSubAgent(Struct, frozen=True):
    """A conversation beside the main one of a session."""

    prompt: str
    """First message of the user."""
    replies: tuple[RecordedReply, ...]


class RecordedSession(Struct, frozen=True):
    """One session of any agent, as far as its source records it."""

    source: str
    """What the session was read from, such as `a trajectory of Trae Agent`."""
    replies: tuple[RecordedReply, ...]
    """Replies of the model, in order."""
    sub_agents: tuple[RecordedSubAgent, ...] = ()
    task: str = ""
    agent: str = ""
    """Name of the agent, if the source records it."""
    protocol: Protocol = "openai_chat"
    stream: bool = False
    model: str = ""
    tools: tuple[ToolSchema, ...] = ()
    """Tools that the agent offered to the model."""
    final_text: str = ""
    success: bool | None = None
    """Whether the agent says that it succeeded. None if the source does not record it."""
    workspace: str = ""
    """Folder in which the session worked."""
    last_request: str = ""
    """Body of the last request, if the source has it: with it, the whole conversation. With
    sub-agents, an array of the last request of each conversation."""
    notes: tuple[str, ...] = ()
    """What the source cannot give, one sentence each."""


class NotThisFormat(ValueError):
    """The content is not in the reader's format. The message says which field is wrong."""


class Part(Struct, frozen=True):
    """One part of a message's content; parts of other kinds have no text here."""

    type: str = "text"
    text: str | None = None


class CalledFunction(Struct, frozen=True):
    """Name and arguments of a call, as OpenAI and Ollama send them."""

    name: str | None = None
    arguments: dict[str, Any] | str | None = None
    input: str | None = None
    """Input of a custom tool, which takes a text instead of an object."""


class ChatCall(Struct, frozen=True):
    """A call in a message of OpenAI Chat Completions or Ollama."""

    id: str | None = None
    index: int | None = None
    function: CalledFunction | None = None
    custom: CalledFunction | None = None

    @property
    def called(self) -> CalledFunction:
        return self.function or self.custom or CalledFunction()


Content = str | tuple[Part, ...] | None


class ChatMessage(Struct, frozen=True):
    """A message of OpenAI Chat Completions or Ollama, or a part of a streamed one."""

    role: str = ""
    content: Content = None
    tool_calls: tuple[ChatCall, ...] | None = None


class ResponsesItem(Struct, frozen=True):
    """An item of OpenAI Responses: a message or a call."""

    type: str = "message"
    role: str = ""
    content: Content = None
    name: str = ""
    arguments: str | None = None
    input: str | None = None
    action: dict[str, Any] | None = None


class AnthropicBlock(Struct, frozen=True):
    """A block of an Anthropic message."""

    type: str
    text: str = ""
    name: str = ""
    input: dict[str, Any] = {}


_TEXT_PARTS = frozenset({"text", "output_text", "input_text"})


def text_of(content: Content) -> str:
    """Return the text of a message's content, without reasoning and images."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content if part.type in _TEXT_PARTS)


def arguments_of(text: dict[str, Any] | str | None) -> dict[str, Any] | str:
    """Decode the arguments of a call. Text that is not a JSON object is returned unchanged."""
    if not isinstance(text, str):
        return text or {}
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
        # Half of a surrogate pair has no place in a file or a request.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def chat_reply(message: ChatMessage) -> RecordedReply:
    """Return the reply in an assistant message of Chat Completions or Ollama."""
    calls = (call.called for call in message.tool_calls or ())
    return RecordedReply(text_of(message.content), tuple(map(recorded_call, calls)))


def recorded_call(called: CalledFunction) -> RecordedCall:
    """Return the call of a function or of a custom tool."""
    if called.input is not None:
        return RecordedCall(called.name or "", {"input": called.input})
    return RecordedCall(called.name or "", arguments_of(called.arguments))


def responses_reply(items: Iterable[ResponsesItem]) -> RecordedReply:
    """Return the reply in the output items of OpenAI Responses. Reasoning is ignored."""
    text, calls = "", []
    for item in items:
        if item.type == "message":
            text += text_of(item.content)
        elif item.type == "function_call":
            calls.append(RecordedCall(item.name, arguments_of(item.arguments)))
        elif item.type == "custom_tool_call":
            calls.append(RecordedCall(item.name, {"input": item.input or ""}))
        elif item.type == "local_shell_call":
            command = (item.action or {}).get("command", [])
            calls.append(RecordedCall("shell", {"command": command}))
    return RecordedReply(text, tuple(calls))


def anthropic_reply(blocks: Iterable[AnthropicBlock]) -> RecordedReply:
    """Return the reply in the blocks of an Anthropic message. Thinking is ignored."""
    blocks = tuple(blocks)
    return RecordedReply(
        "".join(block.text for block in blocks if block.type == "text"),
        tuple(
            RecordedCall(block.name, block.input) for block in blocks if block.type == "tool_use"
        ),
    )


class Document(Struct, frozen=True):
    """The content of a session file, and enough of its shape to tell formats apart."""

    data: bytes
    shape: str
    """object, array or lines (of JSON)."""
    fields: tuple[dict[str, Raw], ...]
    """Fields of the object, or of the first lines."""

    def has(self, *names: str) -> bool:
        """Return True if the object, or one of the first lines, has all of these fields."""
        return any(all(name in fields for name in names) for fields in self.fields)

    def decode(self, kind: Any) -> Any:
        """Decode an object or array. Raises `NotThisFormat`."""
        try:
            return msgspec.json.decode(self.data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotThisFormat(str(error)) from error

    def decode_lines(self, kind: Any) -> list[Any]:
        """Decode each line; an incomplete last line is left out. Raises `NotThisFormat`."""
        decoder, found = msgspec.json.Decoder(kind), []
        lines = self.data.splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                # A killed agent can leave half a line.
                if number == len(lines) and not isinstance(error, msgspec.ValidationError):
                    break
                raise NotThisFormat(f"line {number}: {error}") from error
        return found
