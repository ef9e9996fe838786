"""Ollama chat. Streamed replies are lines of JSON."""

from collections.abc import Iterator
from typing import Any

import msgspec

from trae_bench.provider.protocols.codec import (
    Codec,
    Endpoint,
    JsonObject,
    NumberedTurn,
    Split,
)
from trae_bench.provider.routes import MODEL


def _complete(numbered: NumberedTurn) -> JsonObject:
    turn = numbered.turn
    message: dict[str, Any] = {"role": "assistant", "content": turn.text}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    return {
        "model": MODEL,
        "created_at": "2025-01-01T00:00:00Z",
        "message": message,
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "load_duration": 0,
        "prompt_eval_count": numbered.input_tokens,
        "prompt_eval_duration": 500_000,
        "eval_count": numbered.output_tokens,
        "eval_duration": 500_000,
    }


def _stream(numbered: NumberedTurn, split: Split) -> Iterator[bytes]:
    reply = _complete(numbered)
    head = {"model": MODEL, "created_at": reply["created_at"]}

    def line(message: JsonObject) -> bytes:
        return msgspec.json.encode({**head, "message": message, "done": False}) + b"\n"

    for text in split(numbered.turn.text):
        yield line({"role": "assistant", "content": text})
    if "tool_calls" in reply["message"]:
        calls = reply["message"]["tool_calls"]
        yield line({"role": "assistant", "content": "", "tool_calls": calls})
    last = {**reply, "message": {"role": "assistant", "content": ""}}
    yield msgspec.json.encode(last) + b"\n"


def _error(status: int, message: str) -> JsonObject:
    return {"error": message}


OLLAMA_CHAT = Codec(
    Endpoint("", "/api/chat"), _complete, _stream, _error, media_type="application/x-ndjson"
)
