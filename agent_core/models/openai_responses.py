"""OpenAI's Responses protocol: a flat list of items, including calls and their outputs."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from agent_core.encoding import encode_json
from agent_core.errors import MalformedReplyError
from agent_core.messages import Message, Reply, ToolCall, ToolSpec, Usage
from agent_core.models.codec import (
    Codec,
    Entry,
    Refused,
    TokenCount,
    arguments_text,
    decoded,
    is_empty,
    opaque_items,
    token_count,
    tool_call,
    truncated_stream,
    without_none,
)
from agent_core.models.endings import ended, refused


class _Error(Struct):
    code: str | None = None
    message: str | None = None


class _Incomplete(Struct):
    reason: str | None = None


class _InputDetails(Struct):
    cached_tokens: TokenCount = None
    cache_write_tokens: TokenCount = None


class _OutputDetails(Struct):
    reasoning_tokens: TokenCount = None


class _Usage(Struct):
    input_tokens: TokenCount = None
    output_tokens: TokenCount = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Body(Struct):
    output: list[dict[str, Any]] | None = None
    status: str | None = None
    error: _Error | None = None
    incomplete_details: _Incomplete | None = None
    usage: _Usage | None = None
    model: str | None = None


class _Event(Struct):
    type: str = ""
    response: _Body | None = None
    item: dict[str, Any] | None = None
    output_index: int = 0
    error: _Error | None = None
    code: str | None = None
    message: str | None = None


_BODY = msgspec.json.Decoder(_Body)
_EVENT = msgspec.json.Decoder(_Event)
_LAST = ("response.completed", "response.incomplete", "response.failed")


class OpenAIResponses(Codec):
    """Responses. Sends the whole history each time, as Trae Agent does."""

    protocol = "openai_responses"
    list_field = "input"

    def url(self, base_url: str) -> str:
        return f"{base_url}/responses"

    def envelope(self, system: Sequence[str], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        p = self.parameters
        fields: dict[str, Any] = {"model": p.model, "max_output_tokens": p.max_tokens}
        fields |= without_none(temperature=p.temperature, top_p=p.top_p)
        fields |= without_none(prompt_cache_key=p.cache_key or None)
        if p.stream:
            fields["stream"] = True
        if tools:
            fields["tools"] = [_tool(spec) for spec in tools]
            if not p.parallel_tool_calls:
                fields["parallel_tool_calls"] = False
        return fields

    def entry(self, message: Message) -> Entry:
        return Entry(message.role, opaque_items(message, self.protocol) or _items(message))

    def decode(self, body: bytes) -> Reply:
        return _reply(decoded(body, _BODY))

    def identify_calls(self, items: list[Any], calls: Sequence[ToolCall]) -> None:
        sent = (item for item in items if item.get("type") == "function_call")
        for item, call in zip(sent, calls, strict=True):
            item |= {"call_id": call.id, "name": call.name}

    def reply_builder(self) -> "ResponsesReplyBuilder":
        return ResponsesReplyBuilder()


class ResponsesReplyBuilder:
    """Builds a reply from the last event, which contains all of it.

    Some compatible servers omit the output there; then the finished items are used.
    """

    def __init__(self) -> None:
        self._items: dict[tuple[int, str], dict[str, Any]] = {}
        """The finished items by index and id: some servers send the index 0 for each."""
        self._body: _Body | None = None

    def add(self, event: bytes) -> None:
        if event == b"[DONE]":
            return
        parsed = decoded(event, _EVENT)
        if parsed.type == "error" or (parsed.error is not None and not parsed.type):
            error = parsed.error or _Error(parsed.code, parsed.message)
            raise Refused(error.message or "", kind=error.code or "")
        if parsed.type == "response.output_item.done" and parsed.item is not None:
            item_id = str(parsed.item.get("call_id") or parsed.item.get("id"))
            self._items[parsed.output_index, item_id] = parsed.item
        elif parsed.type in _LAST:
            self._body = parsed.response

    def reply(self) -> Reply:
        if self._body is None:
            raise truncated_stream()
        if not self._body.output:
            keys = sorted(self._items, key=lambda key: key[0])
            self._body.output = [self._items[key] for key in keys]
        return _reply(self._body)


def _tool(spec: ToolSpec) -> dict[str, Any]:
    # `strict` is on by default at this endpoint and requires every argument.
    return {"type": "function", **asdict(spec), "strict": False}


def _items(message: Message) -> list[dict[str, Any]]:
    if message.result is not None:
        result = message.result
        output = {"type": "function_call_output", "call_id": result.call_id, "output": result.text}
        return [output]
    items: list[dict[str, Any]] = []
    if message.text.strip() or not (message.calls or is_empty(message)):
        items.append({"role": message.role, "content": message.text})
    items += (
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments_text(call),
        }
        for call in message.calls
    )
    return items


def _reply(body: _Body) -> Reply:
    if body.error is not None or body.status == "failed":
        error = body.error or _Error()
        raise Refused(error.message or "the response failed", kind=error.code or "")
    if body.output is None:
        raise MalformedReplyError("The reply has no output.")
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[ToolCall] = []
    reasoned = False
    for item in body.output:
        if item.get("type") == "message":
            texts.append(_text(item, "text"))
            refusals.append(_text(item, "refusal"))
        elif item.get("type") == "function_call":
            calls.append(_call(item))
        else:
            reasoned = True
    kept = _accepted(body.output) if reasoned else []
    opaque = {OpenAIResponses.protocol: kept} if kept else None
    refusal = "".join(refusals)
    message = Message("assistant", "".join(texts) + refusal, tuple(calls), opaque=opaque)
    return refused(ended(message, _usage(body.usage), _finish(body), body.model), refusal)


def _accepted(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that the provider takes back: reasoning only with the item that follows it."""
    kept = list(items)
    while kept and kept[-1].get("type") == "reasoning":
        kept.pop()
    return kept


def _call(item: dict[str, Any]) -> ToolCall:
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else encode_json(arguments).decode()
    return tool_call(str(item.get("call_id") or ""), str(item.get("name") or ""), arguments)


def _text(item: dict[str, Any], field: str) -> str:
    """The parts of a message that are in `field`: "text" or "refusal"."""
    parts = item.get("content")
    if not isinstance(parts, list):
        return str(parts or "") if field == "text" else ""
    return "".join(str(part.get(field) or "") for part in parts if isinstance(part, dict))


def _finish(body: _Body) -> str:
    if body.incomplete_details is not None and body.incomplete_details.reason:
        return body.incomplete_details.reason
    return body.status or ""


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    read = usage.input_tokens_details or _InputDetails()
    written = usage.output_tokens_details or _OutputDetails()
    return Usage(
        input_tokens=token_count(usage.input_tokens),
        output_tokens=token_count(usage.output_tokens),
        cache_creation_input_tokens=token_count(read.cache_write_tokens),
        cache_read_input_tokens=token_count(read.cached_tokens),
        reasoning_tokens=token_count(written.reasoning_tokens),
    )
