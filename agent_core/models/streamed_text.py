"""The answer's text in one event of a stream, for a view. The reply itself needs none of this."""

from collections.abc import Callable
from typing import Any

import msgspec

_Reader = Callable[[dict[str, Any]], Any]


def text_in(protocol: str, event: bytes) -> str:
    """The text that `event` adds to the answer, or an empty string."""
    try:
        text = _READERS[protocol](msgspec.json.decode(event))
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return ""  # an event without text
    return text if isinstance(text, str) else ""


def _anthropic(event: dict[str, Any]) -> Any:
    return event["delta"]["text"]


def _responses(event: dict[str, Any]) -> Any:
    return event["delta"] if event["type"] == "response.output_text.delta" else ""


def _gemini(event: dict[str, Any]) -> Any:
    parts = event["candidates"][0]["content"]["parts"]
    return "".join(part.get("text") or "" for part in parts if not part.get("thought"))


_READERS: dict[str, _Reader] = {
    "openai_chat": lambda event: event["choices"][0]["delta"]["content"],
    "openai_responses": _responses,
    "anthropic_messages": _anthropic,
    "gemini": _gemini,
    "ollama_chat": lambda event: event["message"]["content"],
}
