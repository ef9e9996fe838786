"""Anthropic Messages."""

from collections.abc import Iterator

import msgspec

from trae_bench.provider.protocols.codec import (
    Codec,
    Endpoint,
    JsonObject,
    NumberedTurn,
    Split,
    named_sse,
)
from trae_bench.provider.routes import MODEL


def _complete(numbered: NumberedTurn) -> JsonObject:
    turn = numbered.turn
    content: list[JsonObject] = [{"type": "text", "text": turn.text}] if turn.text else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in turn.calls
    ]
    return {
        "id": f"msg_{numbered.number:05}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": content,
        "stop_reason": "tool_use" if turn.calls else "end_turn",
        "stop_sequence": None,
        "usage": {
            # Anthropic excludes cached tokens from input tokens; the other protocols include them.
            "input_tokens": numbered.input_tokens - numbered.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": numbered.cached_tokens,
            "output_tokens": numbered.output_tokens,
        },
    }


def _stream(numbered: NumberedTurn, split: Split) -> Iterator[bytes]:
    return map(named_sse, _events(numbered, split))


def _events(numbered: NumberedTurn, split: Split) -> Iterator[JsonObject]:
    reply = _complete(numbered)
    usage = reply["usage"]
    started = {**reply, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": started}
    yield {"type": "ping"}
    for index, block in enumerate(reply["content"]):
        yield from _block_events(index, block, split)
    stop = {"stop_reason": reply["stop_reason"], "stop_sequence": None}
    output_tokens = {"output_tokens": usage["output_tokens"]}
    yield {"type": "message_delta", "delta": stop, "usage": output_tokens}
    yield {"type": "message_stop"}


def _block_events(index: int, block: JsonObject, split: Split) -> Iterator[JsonObject]:
    if block["type"] == "text":
        empty, kind, field, text = {**block, "text": ""}, "text_delta", "text", block["text"]
    else:
        empty, kind, field = {**block, "input": {}}, "input_json_delta", "partial_json"
        text = msgspec.json.encode(block["input"]).decode()
    yield {"type": "content_block_start", "index": index, "content_block": empty}
    for part in split(text):
        delta = {"type": kind, field: part}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _error(status: int, message: str) -> JsonObject:
    return {"type": "error", "error": {"type": "scripted_fault", "message": message}}


ANTHROPIC_MESSAGES = Codec(Endpoint("", "/v1/messages"), _complete, _stream, _error)
