"""Tells the conversations of an agent and its sub-agents apart, by their histories.

A request repeats its conversation so far. One without any reply or result begins a conversation.
Standard library only, because the server imports it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

_HISTORIES = {"openai_responses": "input", "gemini": "contents"}
"""The field that holds the conversation; `messages` in the other protocols."""
_DIGEST_BYTES = 8
_RESULTS = ("tool_result", "functionResponse", "function_response")


class History(NamedTuple):
    """The conversation in a request."""

    digests: bytes
    """A digest of each message, one after the other."""
    begins: bool
    """It has no reply of the model and no result of a tool."""
    prompt: str
    """Text of the user's first message."""

    def shared(self, other: bytes) -> int:
        """Return the number of first messages that are those of another conversation."""
        pairs = zip(_split(self.digests), _split(other), strict=False)
        return next((n for n, (a, b) in enumerate(pairs) if a != b), _shorter(self.digests, other))


def history_of(protocol: str, asked: Mapping[str, Any]) -> History:
    """Return the history in the body of a request. Other fields do not count.

    A body that is nested too deep has none.
    """
    try:
        return _history(protocol, asked)
    except RecursionError:
        return History(b"", False, "")


def _history(protocol: str, asked: Mapping[str, Any]) -> History:
    history = asked.get(_HISTORIES.get(protocol, "messages"), ())
    messages = history if isinstance(history, list) else [history]
    begins = "previous_response_id" not in asked and not any(map(_is_later, messages))
    return History(b"".join(map(_digest, messages)), begins, _prompt(messages))


def continued(history: History, latest: Sequence[bytes]) -> int:
    """Return which of some conversations a request continues, from the latest digests of each.

    It is the one of which the request has the most first messages; of several, the last one.
    """
    return max(range(len(latest)), key=lambda number: (history.shared(latest[number]), number))


def joined(bodies: Sequence[bytes]) -> bytes:
    """Return the last requests of a session's conversations as one: a JSON array if several."""
    if len(bodies) < 2:
        return b"".join(bodies)
    return b"[" + b",".join(body or b"null" for body in bodies) + b"]"


def requests_in(text: str) -> list[str]:
    """Return the requests that `joined` has joined. A text that is no JSON array is one."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    return [json.dumps(one) for one in value] if isinstance(value, list) else [text]


def _is_later(message: Any) -> bool:
    """Whether a message is a reply, or the result of a tool."""
    if not isinstance(message, dict):
        return False
    role, kind = message.get("role"), message.get("type")
    if role in ("assistant", "model", "tool", "function"):
        return True
    if role is None:
        # Items of OpenAI Responses: calls, reasoning, outputs.
        return isinstance(kind, str) and kind != "message"
    parts = message.get("content", message.get("parts"))
    return isinstance(parts, list) and any(map(_is_result, parts))


def _is_result(part: Any) -> bool:
    return isinstance(part, dict) and (
        part.get("type") in _RESULTS or any(name in part for name in _RESULTS)
    )


def _digest(message: Any) -> bytes:
    text = json.dumps(_stable(message), sort_keys=True)
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def _stable(value: Any) -> Any:
    """Leave out where a client wants its prompt cached: that moves from request to request."""
    if isinstance(value, dict):
        return {name: _stable(one) for name, one in value.items() if name != "cache_control"}
    return [_stable(one) for one in value] if isinstance(value, list) else value


def _prompt(messages: Sequence[Any]) -> str:
    for message in messages:
        if isinstance(message, str):
            return message
        if isinstance(message, dict) and message.get("role", "user") == "user":
            return "\n".join(_texts(message.get("content", message.get("parts"))))
    return ""


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _split(digests: bytes) -> Iterator[bytes]:
    return (digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES))


def _shorter(a: bytes, b: bytes) -> int:
    return min(len(a), len(b)) // _DIGEST_BYTES
