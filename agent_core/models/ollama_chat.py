"""Ollama's native chat protocol."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec, Usage
from agent_core.models.codec import (
    Codec,
    Entry,
    JsonLines,
    Refused,
    TokenCount,
    arguments_object,
    decoded,
    function_tool,
    is_empty,
    opaque_items,
    token_count,
    tool_call,
    truncated_stream,
    without_none,
)
from agent_core.models.endings import ended


class _Function(Struct):
    name: str | None = None
    arguments: Any = None


class _Call(Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Body(Struct):
    """A whole reply, or one line of a streamed one: both have the same shape."""

    message: _Message | None = None
    model: str | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: TokenCount = None
    eval_count: TokenCount = None
    error: str | None = None


_BODY = msgspec.json.Decoder(_Body)


class OllamaChat(Codec):
    """Ollama's chat: arguments are objects, and a result refers to its tool by name."""

    protocol = "ollama_chat"
    list_field = "messages"

    def url(self, base_url: str) -> str:
        # Trae Agent's settings have the address of Ollama's OpenAI-compatible interface.
        return f"{base_url.removesuffix('/v1')}/api/chat"

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        p = self.parameters
        fields: dict[str, Any] = {"model": p.model, "stream": p.stream}
        fields["options"] = without_none(
            num_predict=p.max_tokens,
            temperature=p.temperature,
            top_p=p.top_p,
            top_k=p.top_k or None,
            # The server's default is a few thousand tokens, and it drops the rest silently.
            num_ctx=p.context_window,
        )
        if tools:
            fields["tools"] = [function_tool(spec) for spec in tools]
        return fields

    def entry(self, message: Message) -> Entry:
        if items := opaque_items(message, self.protocol):
            return Entry(message.role, items)
        return Entry(message.role, [] if is_empty(message) else [_encoded(message)])

    def decode(self, body: bytes) -> Reply:
        builder = OllamaReplyBuilder()
        builder.add(body)
        if builder.empty:
            raise MalformedReplyError("The reply has no message.")
        return builder.current()

    def splitter(self) -> JsonLines:
        return JsonLines()

    def identify_calls(self, items: list[Any], calls: Sequence[ToolCall]) -> None:
        for item, call in zip(items[0].get("tool_calls", ()), calls, strict=True):
            item["function"]["name"] = call.name

    def reply_builder(self) -> "OllamaReplyBuilder":
        return OllamaReplyBuilder()


class OllamaReplyBuilder:
    """Builds a reply from lines. The last one has `done` and the token counts."""

    def __init__(self) -> None:
        self.empty = True
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[ToolCall] = []
        self._last = _Body()

    def add(self, event: bytes) -> None:
        line = decoded(event, _BODY)
        if line.error is not None:
            raise Refused(line.error)
        if not self._last.done:  # some servers end twice, the second time without counts
            self._last = line
        if line.message is not None:
            self.empty = False
            self._text.append(line.message.content or "")
            self._thinking.append(line.message.thinking or "")
            self._calls += [_call(call) for call in line.message.tool_calls or ()]

    def reply(self) -> Reply:
        if not self._last.done:
            raise truncated_stream()
        return self.current()

    def current(self) -> Reply:
        """The reply from the lines so far."""
        last, text, thinking = self._last, "".join(self._text), "".join(self._thinking)
        message = Message("assistant", text, tuple(self._calls))
        if thinking:
            sent_back = _encoded(message) | {"thinking": thinking}
            message = Message(
                "assistant", text, message.calls, opaque={OllamaChat.protocol: [sent_back]}
            )
        usage = Usage(
            input_tokens=token_count(last.prompt_eval_count),
            output_tokens=token_count(last.eval_count),
        )
        return ended(message, usage, last.done_reason, last.model)


def _encoded(message: Message) -> dict[str, Any]:
    if message.result is not None:
        return {
            "role": "tool",
            "tool_name": message.result.name,
            "content": message.result.text,
        }
    encoded: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        encoded["tool_calls"] = [
            {"function": {"name": call.name, "arguments": arguments_object(call)}}
            for call in message.calls
        ]
    return encoded


def _call(call: _Call) -> ToolCall:
    function = call.function or _Function()
    call_id, name, arguments = call.id or "", function.name or "", function.arguments
    if arguments is None or isinstance(arguments, dict):
        return ToolCall(call_id, name, arguments or {})
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return tool_call(call_id, name, text)
