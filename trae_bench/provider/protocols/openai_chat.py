"""OpenAI Chat Completions."""

from collections.abc import Iterator
from typing import Any

from trae_bench.provider.protocols.codec import (
    Codec,
    Endpoint,
    JsonObject,
    NumberedTurn,
    Split,
    arguments_json,
    sse,
)
from trae_bench.provider.routes import CREATED, MODEL


def _complete(numbered: NumberedTurn) -> JsonObject:
    turn = numbered.turn
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_json(call)},
            }
            for call in turn.calls
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "tool_calls" if turn.calls else "stop",
    }
    return {
        "id": f"chatcmpl-{numbered.number:05}",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [choice],
        "usage": {
            "prompt_tokens": numbered.input_tokens,
            "completion_tokens": numbered.output_tokens,
            "total_tokens": numbered.input_tokens + numbered.output_tokens,
            "prompt_tokens_details": {"cached_tokens": numbered.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "system_fingerprint": None,
    }


def _stream(numbered: NumberedTurn, split: Split) -> Iterator[bytes]:
    reply = _complete(numbered)
    finish_reason, usage = reply["choices"][0]["finish_reason"], reply["usage"]
    del reply["usage"], reply["choices"]
    reply["object"] = "chat.completion.chunk"

    def chunk(delta: JsonObject, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**reply, "choices": [choice], "usage": None})

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for text in split(numbered.turn.text):
        yield chunk({"content": text})
    for index, call in enumerate(numbered.turn.calls):
        function = {"name": call.name, "arguments": ""}
        start = {"index": index, "id": call.id, "type": "function", "function": function}
        yield chunk({"tool_calls": [start]})
        for text in split(arguments_json(call)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
    yield chunk({}, finish_reason)
    yield sse({**reply, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def openai_error(status: int, message: str) -> JsonObject:
    """Return an error of either OpenAI protocol."""
    return {"error": {"message": message, "type": "scripted_fault", "code": None}}


OPENAI_CHAT = Codec(Endpoint("/v1", "/chat/completions"), _complete, _stream, openai_error)
