"""One script, five wire protocols: each turn as the body of an HTTP reply.

A protocol is one function from a turn to the JSON object that its service would send,
whole enough for the vendor's own SDK to parse. What a real service makes up (ids, clocks,
token counts) is made up here the same way each time: token counts are plausible, not a
tokeniser's.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.scenario import Protocol

MODEL = "scripted-model"
_CREATED = 1_735_689_600
"""2025-01-01T00:00:00Z."""
_CHARACTERS_PER_TOKEN = 4
_PROMPT_TOKENS = 1_200
_TOKENS_PER_TURN = 250


class Numbered(Struct, frozen=True):
    """A turn with what its place in the session decides."""

    turn: PlayedTurn
    number: int
    """From 1."""

    @property
    def input_tokens(self) -> int:
        return _PROMPT_TOKENS + _TOKENS_PER_TURN * (self.number - 1)

    @property
    def cached_tokens(self) -> int:
        """What a service with a prompt cache has seen at the turn before."""
        return 0 if self.number == 1 else self.input_tokens - _TOKENS_PER_TURN

    @property
    def output_tokens(self) -> int:
        characters = len(self.turn.text) + sum(
            len(call.name) + len(json_text(call)) for call in self.turn.calls
        )
        return 1 + characters // _CHARACTERS_PER_TOKEN


class Endpoint(Struct, frozen=True):
    """Where clients of one protocol knock, below the session's own path."""

    base: str
    """Part of the base URL that clients of this protocol are given."""
    tail: str
    """How the path of every request for a reply ends."""
    streamed_tail: str = ""
    """The same for a streamed reply, where that is asked for by the path."""

    def tail_for(self, *, stream: bool) -> str:
        return self.streamed_tail if stream and self.streamed_tail else self.tail


ENDPOINTS: dict[Protocol, Endpoint] = {
    "openai_chat": Endpoint("/v1", "/chat/completions"),
    "openai_responses": Endpoint("/v1", "/responses"),
    "anthropic_messages": Endpoint("", "/v1/messages"),
    "gemini": Endpoint("", ":generateContent", ":streamGenerateContent"),
    "ollama_chat": Endpoint("", "/api/chat"),
}


def encode_turns(script: Script, protocol: Protocol | None = None) -> list[bytes]:
    """The body of each reply, in order; in the script's own protocol unless told otherwise."""
    shape = _SHAPES[protocol or script.protocol]
    return [
        msgspec.json.encode(shape(Numbered(turn, number)))
        for number, turn in enumerate(script.turns, 1)
    ]


def encode_error(protocol: Protocol, status: int) -> bytes:
    """The body of an error reply, as the protocol's service words it."""
    message = f"scripted fault: status {status}"
    errors: dict[Protocol, dict[str, Any]] = {
        "openai_chat": {"error": {"message": message, "type": "scripted_fault", "code": None}},
        "openai_responses": {"error": {"message": message, "type": "scripted_fault", "code": None}},
        "anthropic_messages": {
            "type": "error",
            "error": {"type": "scripted_fault", "message": message},
        },
        "gemini": {"error": {"code": status, "message": message, "status": "UNAVAILABLE"}},
        "ollama_chat": {"error": message},
    }
    return msgspec.json.encode(errors[protocol])


def json_text(call: PlayedCall) -> str:
    """The arguments as OpenAI sends them: JSON within JSON."""
    return msgspec.json.encode(call.arguments).decode()


def openai_chat(numbered: Numbered) -> dict[str, Any]:
    turn = numbered.turn
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json_text(call)},
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
        "created": _CREATED,
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


def openai_responses(numbered: Numbered) -> dict[str, Any]:
    return {
        "id": f"resp_{numbered.number:05}",
        "object": "response",
        "created_at": _CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": MODEL,
        "output": _responses_items(numbered),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": numbered.input_tokens,
            "input_tokens_details": {"cached_tokens": numbered.cached_tokens},
            "output_tokens": numbered.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": numbered.input_tokens + numbered.output_tokens,
        },
    }


def _responses_items(numbered: Numbered) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if numbered.turn.text:
        content = {"type": "output_text", "text": numbered.turn.text, "annotations": []}
        items.append(
            {
                "id": f"msg_{numbered.number:05}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [content],
            }
        )
    items += [
        {
            "id": f"fc_{call.id}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": json_text(call),
        }
        for call in numbered.turn.calls
    ]
    return items


def anthropic_messages(numbered: Numbered) -> dict[str, Any]:
    turn = numbered.turn
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
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
            # Anthropic counts the three apart; the others give cached tokens as a share.
            "input_tokens": numbered.input_tokens - numbered.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": numbered.cached_tokens,
            "output_tokens": numbered.output_tokens,
        },
    }


def gemini(numbered: Numbered) -> dict[str, Any]:
    turn = numbered.turn
    parts: list[dict[str, Any]] = [{"text": turn.text}] if turn.text else []
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


def ollama_chat(numbered: Numbered) -> dict[str, Any]:
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


_SHAPES: dict[Protocol, Callable[[Numbered], dict[str, Any]]] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic_messages": anthropic_messages,
    "gemini": gemini,
    "ollama_chat": ollama_chat,
}
