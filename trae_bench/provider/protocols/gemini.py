"""Gemini generateContent."""

from collections.abc import Iterator
from typing import Any

from trae_bench.provider.protocols.codec import (
    Codec,
    Endpoint,
    JsonObject,
    NumberedTurn,
    Split,
    sse,
)
from trae_bench.provider.routes import MODEL


def _complete(numbered: NumberedTurn) -> JsonObject:
    turn = numbered.turn
    parts: list[JsonObject] = [{"text": turn.text}] if turn.text else []
    parts += [
        {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}}
        for call in turn.calls
    ]
    return {
        "candidates": [
            {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {
            "promptTokenCount": numbered.input_tokens,
            "cachedContentTokenCount": numbered.cached_tokens,
            "candidatesTokenCount": numbered.output_tokens,
            "totalTokenCount": numbered.input_tokens + numbered.output_tokens,
        },
        "modelVersion": MODEL,
        "responseId": f"resp-{numbered.number:05}",
    }


def _stream(numbered: NumberedTurn, split: Split) -> Iterator[bytes]:
    reply = _complete(numbered)
    usage = reply.pop("usageMetadata")
    (candidate,) = reply.pop("candidates")
    calls = [part for part in candidate["content"]["parts"] if "functionCall" in part]
    parts = [{"text": text} for text in split(numbered.turn.text)] + calls

    def chunk(parts: list[JsonObject], **more: Any) -> bytes:
        content = {"role": "model", "parts": parts}
        return sse({"candidates": [{"content": content, "index": 0, **more}], **reply})

    for part in parts:
        yield chunk([part])
    last = {"candidates": [{**candidate, "content": {"role": "model", "parts": [{"text": ""}]}}]}
    yield sse({**last, "usageMetadata": usage, **reply})


def _error(status: int, message: str) -> JsonObject:
    return {"error": {"code": status, "message": message, "status": "UNAVAILABLE"}}


GEMINI = Codec(
    Endpoint("", ":generateContent", ":streamGenerateContent"), _complete, _stream, _error
)
