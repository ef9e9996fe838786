"""Anthropic's Messages protocol."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec, Usage
from agent_core.models.codec import (
    Codec,
    Entry,
    Parameters,
    Refused,
    TokenCount,
    arguments_object,
    decoded,
    opaque_items,
    token_count,
    tool_call,
    truncated_stream,
    without_none,
)
from agent_core.models.endings import ended


class _Usage(Struct):
    input_tokens: TokenCount = None
    output_tokens: TokenCount = None
    cache_creation_input_tokens: TokenCount = None
    cache_read_input_tokens: TokenCount = None


class _Details(Struct):
    explanation: str | None = None


class _Error(Struct):
    type: str = ""
    message: str = ""


class _Body(Struct):
    content: list[dict[str, Any]] | None = None
    usage: _Usage | None = None
    stop_reason: str | None = None
    stop_details: _Details | None = None
    model: str | None = None
    type: str | None = None
    error: _Error | None = None


class _Delta(Struct):
    type: str | None = None
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_details: _Details | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    message: _Body | None = None
    content_block: dict[str, Any] | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None


_BODY = msgspec.json.Decoder(_Body)
_EVENT = msgspec.json.Decoder(_Event)


class AnthropicMessages(Codec):
    """Messages made of content blocks. The system text is a separate field, and all results of a
    step are in one user message.

    The provider caches a prompt (tools, system, messages) up to each block with `cache_control`
    and finds such an end again if it is at most 20 blocks before one of the at most four marks
    of a later request (platform.claude.com, Prompt caching, November 2026).
    """

    protocol = "anthropic_messages"
    list_field = "messages"
    grouped = "content"
    lifts_system = True

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        if parameters.cache_marks:
            self.cache_mark = {"cache_control": {"type": "ephemeral"}}

    def url(self, base_url: str) -> str:
        # The vendor's clients take an address without the version.
        return f"{base_url}/messages" if base_url.endswith("/v1") else f"{base_url}/v1/messages"

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        p = self.parameters
        fields: dict[str, Any] = {"model": p.model, "max_tokens": p.max_tokens}
        fields |= without_none(temperature=p.temperature, top_p=p.top_p, top_k=p.top_k or None)
        if p.stream:
            fields["stream"] = True
        constant: list[dict[str, Any]] = []
        if tools:
            fields["tools"] = constant = [_tool(spec) for spec in tools]
            if not p.parallel_tool_calls:
                fields["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
        if texts := [text for text in system if text.strip()]:
            # A block, because a plain text cannot be marked.
            fields["system"] = constant = [{"type": "text", "text": "\n\n".join(texts)}]
        if constant and self.cache_mark:
            constant[-1] |= self.cache_mark
        return fields

    def entry(self, message: Message) -> Entry:
        if message.role == "system":
            return Entry("", [])
        if message.role == "assistant":
            return Entry("assistant", opaque_items(message, self.protocol) or _blocks(message))
        return Entry("user", _blocks(message))

    def takes_mark(self, part: dict[str, Any]) -> bool:
        # The provider rejects a mark on an empty text.
        return bool(str(part.get("text") or part.get("content") or "").strip())

    def decode(self, body: bytes) -> Reply:
        reply = decoded(body, _BODY)
        if reply.error is not None:
            raise Refused(reply.error.message, kind=reply.error.type)
        if reply.content is None:
            raise MalformedReplyError("The reply has no content.")
        return _reply(reply.content, reply, {})

    def identify_calls(self, items: list[Any], calls: Sequence[ToolCall]) -> None:
        blocks = (block for block in items if block.get("type") == "tool_use")
        for block, call in zip(blocks, calls, strict=True):
            block |= {"id": call.id, "name": call.name}

    def reply_builder(self) -> "MessagesReplyBuilder":
        return MessagesReplyBuilder()


class MessagesReplyBuilder:
    """Builds a reply from events, block by block."""

    def __init__(self) -> None:
        self._start = _Body()
        self._usage = _Usage()
        self._blocks: list[dict[str, Any]] = []
        self._places: dict[int, int] = {}
        """The place of the last block of each index: some servers count from 0 again."""
        self._arguments: dict[int, list[str]] = {}
        """The streamed pieces of each call's input, which is JSON, by place."""
        self._complete = False

    def add(self, event: bytes) -> None:
        parsed = decoded(event, _EVENT)
        if parsed.type == "error" or parsed.error is not None:
            error = parsed.error or _Error()
            raise Refused(error.message, kind=error.type)
        if parsed.type == "message_start" and parsed.message is not None:
            self._start = parsed.message
            self._count(parsed.message.usage)
        elif parsed.type == "content_block_start" and parsed.content_block is not None:
            self._begin(parsed.index, parsed.content_block)
        elif parsed.type == "content_block_delta" and parsed.delta is not None:
            self._extend(parsed.index, parsed.delta)
        elif parsed.type == "message_delta":
            if parsed.delta is not None and parsed.delta.stop_reason:
                self._start.stop_reason = parsed.delta.stop_reason
                self._start.stop_details = parsed.delta.stop_details
            self._count(parsed.usage)
        elif parsed.type == "message_stop":
            self._complete = True

    def reply(self) -> Reply:
        if not self._complete:
            raise truncated_stream()
        arguments = {place: "".join(pieces) for place, pieces in self._arguments.items()}
        self._start.usage = self._usage
        return _reply(self._blocks, self._start, arguments)

    def _begin(self, index: int, block: dict[str, Any]) -> None:
        before = self._places.get(index)
        if before is not None and self._blocks[before] == block:
            return  # sent twice
        self._places[index] = len(self._blocks)
        self._blocks.append(block)

    def _extend(self, index: int, delta: _Delta) -> None:
        if index not in self._places:
            raise MalformedReplyError("The stream continues a block that was not started.")
        place = self._places[index]
        block = self._blocks[place]
        if delta.type == "input_json_delta":
            self._arguments.setdefault(place, []).append(delta.partial_json)
        for field in ("text", "thinking", "signature"):
            if added := getattr(delta, field):
                block[field] = (block.get(field) or "") + added

    def _count(self, usage: _Usage | None) -> None:
        """Keeps the last number of each kind: the counts in `message_delta` are totals."""
        for field in _Usage.__struct_fields__:
            if usage is not None and (number := getattr(usage, field)) is not None:
                setattr(self._usage, field, number)


def _tool(spec: ToolSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "input_schema": spec.parameters,
    }


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.result is not None:
        result = message.result
        block = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.text}
        return [block if result.ok else {**block, "is_error": True}]
    # The provider rejects a text block without text.
    blocks: list[dict[str, Any]] = []
    if message.text.strip():
        blocks.append({"type": "text", "text": message.text})
    blocks += (
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(call)}
        for call in message.calls
    )
    return blocks


def _reply(blocks: list[dict[str, Any]], body: _Body, arguments: dict[int, str]) -> Reply:
    """`arguments` has the streamed input of calls, by the index of their block."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    thoughts = False
    for index, block in enumerate(blocks):
        if block.get("type") == "text":
            texts.append(str(block.get("text") or ""))
        elif block.get("type") == "tool_use":
            calls.append(_call(block, arguments.get(index)))
            block["input"] = arguments_object(calls[-1])
        else:
            thoughts = True
    # Thinking blocks must be sent back signed and in their original order.
    kept = _accepted(blocks) if thoughts else []
    opaque = {AnthropicMessages.protocol: kept} if kept else None
    message = Message("assistant", "".join(texts), tuple(calls), opaque=opaque)
    details = body.stop_details or _Details()
    usage = _usage(body.usage or _Usage())
    return ended(message, usage, body.stop_reason, body.model, details.explanation)


def _accepted(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that the provider takes back.

    It refuses blank text, blank thinking without a signature, and thinking as the last block.
    """
    kept = [block for block in blocks if not _is_blank(block)]
    while kept and kept[-1].get("type") in ("thinking", "redacted_thinking"):
        kept.pop()
    return kept


def _is_blank(block: dict[str, Any]) -> bool:
    kind = block.get("type")
    if kind == "text":
        return not str(block.get("text") or "").strip()
    blank = not str(block.get("thinking") or "").strip()
    return kind == "thinking" and blank and not block.get("signature")


def _call(block: dict[str, Any], streamed: str | None) -> ToolCall:
    call_id, name = str(block.get("id") or ""), str(block.get("name") or "")
    if streamed is not None:
        return tool_call(call_id, name, streamed)
    given = block.get("input")
    if isinstance(given, dict):
        return ToolCall(call_id, name, given)
    return tool_call(call_id, name, msgspec.json.encode(given).decode())


def _usage(usage: _Usage) -> Usage:
    return Usage(
        input_tokens=token_count(usage.input_tokens),
        output_tokens=token_count(usage.output_tokens),
        cache_creation_input_tokens=token_count(usage.cache_creation_input_tokens),
        cache_read_input_tokens=token_count(usage.cache_read_input_tokens),
    )
