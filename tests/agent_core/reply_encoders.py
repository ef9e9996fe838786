"""Replies as the providers send them, whole and streamed, for tables of unusual cases."""

import json
from collections.abc import Callable
from typing import Any

from msgspec import Struct


class SaidCall(Struct, frozen=True):
    """A call. `arguments` is the JSON text as the model wrote it; None if it wrote none."""

    id: str = "c1"
    name: str = "bash"
    arguments: str | None = '{"command": "ls"}'


class Said(Struct, frozen=True, kw_only=True):
    """What a provider sends. `reason` is its own word for the end."""

    reason: str | None = None
    text: str = ""
    thoughts: str | None = None
    signature: str = ""
    calls: tuple[SaidCall, ...] = ()
    refusal: str = ""
    explanation: str = ""


def sse(*events: Any, done: bool = False) -> bytes:
    """Server-sent events. Bytes are sent as they are."""
    parts = [
        event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in events
    ]
    return b"".join(parts) + (b"data: [DONE]\n\n" if done else b"")


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def openai_chat(said: Said, *, stream: bool) -> bytes:
    calls = [
        {
            "index": index,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(said.calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    if said.thoughts is not None:
        message["reasoning_content"] = said.thoughts
    if said.refusal:
        message["refusal"] = said.refusal
    if not stream:
        if calls:
            message["tool_calls"] = calls
        choice = {"message": message, "finish_reason": said.reason}
        return json.dumps({"choices": [choice]}).encode()
    deltas = [message, *({"tool_calls": [call]} for call in calls)]
    chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
    return sse(*chunks, {"choices": [{"delta": {}, "finish_reason": said.reason}]}, done=True)


def openai_responses(said: Said, *, stream: bool) -> bytes:
    items: list[dict[str, Any]] = []
    if said.thoughts is not None:
        items.append({"type": "reasoning", "id": "rs_1", "summary": []})
    if said.text:
        items.append({"type": "message", "content": [{"type": "output_text", "text": said.text}]})
    if said.refusal:
        part = {"type": "refusal", "refusal": said.refusal}
        items.append({"type": "message", "content": [part]})
    items += (
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for call in said.calls
    )
    body: dict[str, Any] = {"status": "completed", "output": items}
    if said.reason not in (None, "completed"):
        body |= {"status": "incomplete", "incomplete_details": {"reason": said.reason}}
    if not stream:
        return json.dumps(body).encode()
    events = [
        {"type": "response.output_item.done", "output_index": index, "item": item}
        for index, item in enumerate(items)
    ]
    return sse(*events, {"type": f"response.{body['status']}", "response": body})


def anthropic_messages(said: Said, *, stream: bool) -> bytes:
    blocks: list[dict[str, Any]] = []
    if said.thoughts is not None:
        thinking = {"type": "thinking", "thinking": said.thoughts}
        blocks.append(thinking | ({"signature": said.signature} if said.signature else {}))
    if said.text:
        blocks.append({"type": "text", "text": said.text})
    for call in said.calls:
        block = {"type": "tool_use", "id": call.id, "name": call.name}
        blocks.append({**block, "input": {} if stream else _object(call.arguments)})
    details = {"stop_reason": said.reason}
    if said.explanation:
        details["stop_details"] = {"explanation": said.explanation}  # type: ignore[assignment]
    if not stream:
        return json.dumps({"type": "message", "content": blocks, **details}).encode()
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"content": []}}]
    written = iter(said.calls)
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        if block["type"] == "tool_use" and (pieces := next(written).arguments):
            delta = {"type": "input_json_delta", "partial_json": pieces}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    return sse(*events, {"type": "message_delta", "delta": details}, {"type": "message_stop"})


def gemini(said: Said, *, stream: bool) -> bytes:
    parts: list[dict[str, Any]] = []
    if said.thoughts is not None:
        parts.append({"text": said.thoughts, "thought": True})
    if said.text:
        parts.append({"text": said.text})
    signature = {"thoughtSignature": said.signature} if said.signature else {}
    for call in said.calls:
        function = {"id": call.id, "name": call.name, "args": _object(call.arguments)}
        parts.append({"functionCall": function, **signature})
    end = {"finishReason": said.reason or "STOP"}
    if said.explanation:
        end["finishMessage"] = said.explanation
    if not stream:
        candidate = {"content": {"parts": parts}, **end} if parts else end
        return json.dumps({"candidates": [candidate]}).encode()
    chunks = [{"candidates": [{"content": {"parts": [part]}}]} for part in parts]
    return sse(*chunks, {"candidates": [end]})


def ollama_chat(said: Said, *, stream: bool) -> bytes:
    calls = [
        {"id": call.id, "function": {"name": call.name, "arguments": _object(call.arguments)}}
        for call in said.calls
    ]
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.thoughts is not None:
        message["thinking"] = said.thoughts
    if calls:
        message["tool_calls"] = calls
    end = {"done": True, "done_reason": said.reason or "stop"}
    if not stream:
        return json.dumps({"message": message, **end}).encode()
    empty = {"role": "assistant", "content": ""}
    return lines({"message": message, "done": False}, {"message": empty, **end})


ENCODERS: dict[str, Callable[..., bytes]] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic_messages": anthropic_messages,
    "gemini": gemini,
    "ollama_chat": ollama_chat,
}


def _object(arguments: str | None) -> Any:
    """The arguments as providers send them that read the text themselves. Half a text is {}."""
    try:
        return None if arguments is None else json.loads(arguments)
    except ValueError:
        return {}
