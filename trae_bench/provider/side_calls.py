"""Replies to requests beside the conversation: lists of models, token counts, probes.

Real clients send them before or between the requests of a session. They take no turn of the
script. Standard library only, because the server imports it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trae_bench.provider.responses import Response, json_response
from trae_bench.provider.routes import CREATED, MODEL, clean_path

_TOKENS = 1_200
"""A plausible count for any text."""
_ALLOWED = ("allow", "GET, HEAD, POST, OPTIONS")


def side_reply(
    status: int, reply: dict[str, Any], *, extra: tuple[tuple[str, str], ...] = ()
) -> Response:
    """Return a JSON reply that takes no turn and is not logged."""
    response = json_response(status, json.dumps(reply).encode(), extra=extra)
    return replace(response, side=True)


def side_answer(method: bytes, path: str, headers: Mapping[bytes, bytes]) -> Response | None:
    """Return the reply to a request beside the conversation. None if it is part of it.

    Names of `headers` are in lower case.
    """
    path = clean_path(path)
    gemini = "/v1beta/" in f"{path}/" or any(name.startswith(b"x-goog-") for name in headers)
    if method == b"OPTIONS":
        return side_reply(200, {}, extra=(_ALLOWED,))
    if method == b"HEAD":
        return without_body(_read(path, gemini) or side_reply(200, {}))
    if method == b"POST":
        reply = next((reply for end, reply in _POSTS if path.endswith(end)), None)
        return None if reply is None else side_reply(200, reply)
    if method != b"GET":
        return None
    if b"upgrade" in headers:
        # A client that prefers WebSocket then uses HTTP.
        return side_reply(426, {"error": {"message": "only HTTP is supported here"}})
    return _read(path, gemini)


def without_body(response: Response) -> Response:
    """Return the response to a HEAD request: the same headers, no body."""
    head, end, _ = response.chunks[0].partition(b"\r\n\r\n")
    return replace(response, chunks=(head + end,), body=(b"",))


def _read(path: str, gemini: bool) -> Response | None:
    """Return the reply to a GET request."""
    _, found, name = path.rpartition("/models")
    if path == "" or path.endswith(("/v1", "/v1beta")):
        return side_reply(200, {"status": "ok"})
    if path.endswith("/models"):
        return side_reply(200, _GEMINI_MODELS if gemini else _MODELS)
    if found and name.startswith("/"):
        named = name[1:]
        return side_reply(200, _gemini_model(named) if gemini else _model(named))
    reply = next((reply for end, reply in _GETS if path.endswith(end)), None)
    return None if reply is None else side_reply(200, reply)


def _model(name: str) -> dict[str, Any]:
    """Return a model with the fields of OpenAI and of Anthropic."""
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": "scripted",
        "type": "model",
        "display_name": name,
        "created_at": "2025-01-01T00:00:00Z",
    }


def _gemini_model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1_000_000,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }


_MODELS = {
    "object": "list",
    "data": [_model(MODEL)],
    "has_more": False,
    "first_id": MODEL,
    "last_id": MODEL,
}
_GEMINI_MODELS = {"models": [_gemini_model(MODEL)]}
_OLLAMA_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "scripted",
    "families": ["scripted"],
    "parameter_size": "8B",
    "quantization_level": "Q4_0",
}
_OLLAMA_MODEL = {
    "name": MODEL,
    "model": MODEL,
    "modified_at": "2025-01-01T00:00:00Z",
    "size": 1_000_000,
    "digest": "0" * 64,
    "details": _OLLAMA_DETAILS,
}
_GETS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/tags", {"models": [_OLLAMA_MODEL]}),
    ("/api/ps", {"models": []}),
    ("/api/version", {"version": "0.12.0"}),
)
_OLLAMA_SHOW = {
    "modelfile": "",
    "parameters": "",
    "template": "",
    "details": _OLLAMA_DETAILS,
    "model_info": {"general.architecture": "scripted", "scripted.context_length": 131_072},
    "capabilities": ["completion", "tools"],
}
_POSTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "/responses/input_tokens",
        {"object": "response.input_tokens", "input_tokens": _TOKENS},
    ),
    ("/messages/count_tokens", {"input_tokens": _TOKENS}),
    (":countTokens", {"totalTokens": _TOKENS}),
    ("/api/show", _OLLAMA_SHOW),
    ("/api/event_logging/batch", {}),
)
