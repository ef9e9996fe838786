"""What an agent itself writes in a request, apart from the replies that it repeats.

Two sessions with the same replies differ in ids and in what a provider adds to its replies. What
the agent writes is comparable: its prompt and tools, and the results that it sends back.
"""

from typing import Any

import msgspec
from msgspec import Struct

from trae_bench.scenario import Protocol

_HISTORY: dict[Protocol, str] = {"openai_responses": "input", "gemini": "contents"}
"""The field that holds the conversation; `messages` in the other protocols."""
_IDS = frozenset({"id", "tool_call_id", "call_id", "tool_use_id"})
_SETTINGS = frozenset({"model", "stream", "stream_options"})
"""Fields that a replay sets otherwise."""


class Authored(Struct, frozen=True):
    """The agent's part of a request that contains a whole session."""

    prompt: dict[str, Any]
    """All before the first reply: settings, tools and messages."""
    results: list[Any]
    """What follows the first reply without the replies: results of tools, further messages."""


def authored(protocol: Protocol, body: bytes | str) -> Authored | None:
    """Return the agent's part of a request's body; None if it is not a JSON object."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(request, dict):
        return None
    field = _HISTORY.get(protocol, "messages")
    history = request.get(field)
    messages = history if isinstance(history, list) else [history]
    first = next((n for n, one in enumerate(messages) if _is_reply(one)), len(messages))
    others = {name: value for name, value in request.items() if name not in _SETTINGS}
    prompt = {**others, field: messages[:first]}
    results = [one for one in messages[first:] if not _is_reply(one)]
    return Authored(_without_ids(prompt), _without_ids(results))


def _is_reply(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    kind = message.get("type")
    # In OpenAI Responses calls and reasoning are items; only outputs come from the agent.
    item = isinstance(kind, str) and kind != "message" and not kind.endswith("_output")
    return message.get("role") in ("assistant", "model") or ("role" not in message and item)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_ids(item) for name, item in value.items() if name not in _IDS}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value
