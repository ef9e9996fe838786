"""One script, five wire protocols, streamed: each turn as the events of its reply.

What a reply says is what `wire` says in one piece: the same ids, counts and reasons, in the
events that each service sends for them, so that a vendor's SDK puts them together again.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from trae_bench.provider.protocols import (
    MODEL,
    Numbered,
    anthropic_messages,
    gemini,
    json_text,
    ollama_chat,
    openai_chat,
    openai_responses,
)
from trae_bench.provider.script import Script
from trae_bench.scenario import Protocol

Event = dict[str, Any]
Cut = Callable[[str], list[str]]
"""A text in pieces, none empty."""

MEDIA_TYPES: dict[Protocol, str] = {
    "openai_chat": "text/event-stream",
    "openai_responses": "text/event-stream",
    "anthropic_messages": "text/event-stream",
    "gemini": "text/event-stream",
    "ollama_chat": "application/x-ndjson",
}


def stream_turns(script: Script) -> list[list[bytes]]:
    """The events of each reply, as bytes of its body."""
    size = script.conditions.chunk_characters

    def cut(text: str) -> list[str]:
        return [text[start : start + size] for start in range(0, len(text), size)]

    events = _STREAMS[script.protocol]
    return [
        list(events(Numbered(turn, number), cut)) for number, turn in enumerate(script.turns, 1)
    ]


def _data(event: Event) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _named(event: Event) -> bytes:
    """An event that says its type twice, as two of the services do."""
    return f"event: {event['type']}\n".encode() + _data(event)


# -- OpenAI Chat Completions ------------------------------------------------------------


def _openai_chat(numbered: Numbered, cut: Cut) -> Iterator[bytes]:
    whole = openai_chat(numbered)
    reason, usage = whole["choices"][0]["finish_reason"], whole["usage"]
    del whole["usage"], whole["choices"]
    whole["object"] = "chat.completion.chunk"

    def chunk(delta: Event, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**whole, "choices": [choice], "usage": None})

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in cut(numbered.turn.text):
        yield chunk({"content": piece})
    for index, call in enumerate(numbered.turn.calls):
        function = {"name": call.name, "arguments": ""}
        begun = {"index": index, "id": call.id, "type": "function", "function": function}
        yield chunk({"tool_calls": [begun]})
        for piece in cut(json_text(call)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, reason)
    yield _data({**whole, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


# -- OpenAI Responses -------------------------------------------------------------------


def _openai_responses(numbered: Numbered, cut: Cut) -> Iterator[bytes]:
    for number, event in enumerate(_responses_events(numbered, cut)):
        yield _named({**event, "sequence_number": number})


def _responses_events(numbered: Numbered, cut: Cut) -> Iterator[Event]:
    whole = openai_responses(numbered)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        is_message = item["type"] == "message"
        empty: Event = {"content": []} if is_message else {"arguments": ""}
        begun = {**item, "status": "in_progress", **empty}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        yield from (_message_events if is_message else _call_events)(item, place, cut)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": whole}


def _message_events(item: Event, place: Event, cut: Cut) -> Iterator[Event]:
    part = item["content"][0]
    place = {**place, "content_index": 0}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    for piece in cut(part["text"]):
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _call_events(item: Event, place: Event, cut: Cut) -> Iterator[Event]:
    kind = "response.function_call_arguments"
    for piece in cut(item["arguments"]):
        yield {"type": f"{kind}.delta", **place, "delta": piece}
    yield {"type": f"{kind}.done", **place, "name": item["name"], "arguments": item["arguments"]}


# -- Anthropic Messages -----------------------------------------------------------------


def _anthropic_messages(numbered: Numbered, cut: Cut) -> Iterator[bytes]:
    return map(_named, _messages_events(numbered, cut))


def _messages_events(numbered: Numbered, cut: Cut) -> Iterator[Event]:
    whole = anthropic_messages(numbered)
    usage = whole["usage"]
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            empty, kind, field = {**block, "text": ""}, "text_delta", "text"
            pieces = cut(block["text"])
        else:
            empty, kind, field = {**block, "input": {}}, "input_json_delta", "partial_json"
            pieces = cut(msgspec.json.encode(block["input"]).decode())
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for piece in pieces:
            delta = {"type": kind, field: piece}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": stop,
        "usage": {"output_tokens": usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


# -- Gemini -----------------------------------------------------------------------------


def _gemini(numbered: Numbered, cut: Cut) -> Iterator[bytes]:
    whole = gemini(numbered)
    usage = whole.pop("usageMetadata")
    (candidate,) = whole.pop("candidates")
    calls = [part for part in candidate["content"]["parts"] if "functionCall" in part]
    parts = [{"text": piece} for piece in cut(numbered.turn.text)] + calls

    def chunk(parts: list[Event], **more: Any) -> bytes:
        content = {"role": "model", "parts": parts}
        return _data({"candidates": [{"content": content, "index": 0, **more}], **whole})

    for part in parts:
        yield chunk([part])
    last = {"candidates": [{**candidate, "content": {"role": "model", "parts": [{"text": ""}]}}]}
    yield _data({**last, "usageMetadata": usage, **whole})


# -- Ollama -----------------------------------------------------------------------------


def _ollama_chat(numbered: Numbered, cut: Cut) -> Iterator[bytes]:
    whole = ollama_chat(numbered)

    def line(message: Event) -> bytes:
        said = {"model": MODEL, "created_at": whole["created_at"], "message": message}
        return msgspec.json.encode({**said, "done": False}) + b"\n"

    for piece in cut(numbered.turn.text):
        yield line({"role": "assistant", "content": piece})
    if "tool_calls" in whole["message"]:
        calls = whole["message"]["tool_calls"]
        yield line({"role": "assistant", "content": "", "tool_calls": calls})
    last = {**whole, "message": {"role": "assistant", "content": ""}}
    yield msgspec.json.encode(last) + b"\n"


_STREAMS: dict[Protocol, Callable[[Numbered, Cut], Iterator[bytes]]] = {
    "openai_chat": _openai_chat,
    "openai_responses": _openai_responses,
    "anthropic_messages": _anthropic_messages,
    "gemini": _gemini,
    "ollama_chat": _ollama_chat,
}
