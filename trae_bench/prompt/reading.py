"""Reads the prompt of a request's body."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from trae_bench.prompt.parts import CacheMark, Part, Prompt, Role

_FIELDS = {
    "openai_chat": (("tools", "functions"), (), ("messages",)),
    "openai_responses": (("tools",), ("instructions",), ("input",)),
    "anthropic_messages": (("tools",), ("system",), ("messages",)),
    "gemini": (("tools",), ("systemInstruction", "system_instruction"), ("contents",)),
    "ollama_chat": (("tools",), (), ("messages",)),
}
"""The fields of each protocol that hold tools, the system prompt and messages."""
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
_ITEMS: dict[str, Role] = {
    "function_call": "assistant",
    "custom_tool_call": "assistant",
    "local_shell_call": "assistant",
    "reasoning": "assistant",
    "function_call_output": "tool",
    "custom_tool_call_output": "tool",
    "local_shell_call_output": "tool",
}
"""Roles of Responses items that are no messages."""
_CACHE_CONTROL = "cache_control"
MAX_PARTS = 20_000
"""Parts of a prompt. Longer ones are not read: each part costs memory, whatever its size."""
MAX_SESSION_PARTS = 200_000
"""Different parts of all prompts of a session."""

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_items = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.Encoder(order="sorted").encode


_Split = Callable[[str, Any], Iterator[Part]]
"""Splits the value at a place into parts."""


class PromptReader:
    """Reads the prompts of one session.

    The items of a history come again in every request, so each is parsed only once.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[str, bytes], tuple[Part, ...]] = {}
        self._different = 0

    def read(self, protocol: str, body: bytes, model: str = "") -> Prompt | None:
        """Return the prompt of a request; None if the body is not a JSON object, or too long.

        `model` stands where the body names none.
        """
        try:
            fields = _decode_fields(body)
            named = msgspec.json.decode(fields["model"]) if "model" in fields else model
            parts = tuple(islice(self._all_parts(protocol, fields), MAX_PARTS + 1))
            if protocol == "anthropic_messages" and _CACHE_CONTROL in fields:
                parts = _marked_at_end(parts, msgspec.json.decode(fields[_CACHE_CONTROL]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(parts) > MAX_PARTS or self._different > MAX_SESSION_PARTS:
            return None
        return Prompt(protocol, named if isinstance(named, str) else model, parts)

    def _all_parts(self, protocol: str, fields: dict[str, Raw]) -> Iterator[Part]:
        message = _MESSAGES.get(protocol, _message)
        for names, split in zip(_FIELDS[protocol], (_tool, _system, message), strict=True):
            for name in names:
                if name in fields:
                    yield from self._field(name, fields[name], split)

    def _field(self, name: str, raw: Raw, split: _Split) -> Iterator[Part]:
        if not bytes(raw).startswith(b"["):
            yield from self._item(name, raw, split)
            return
        for index, item in enumerate(_decode_items(raw)):
            yield from self._item(f"{name}[{index}]", item, split)

    def _item(self, place: str, raw: Raw, split: _Split) -> tuple[Part, ...]:
        key = place, bytes(raw)
        if key not in self._parts:
            parts = tuple(islice(split(place, msgspec.json.decode(raw)), MAX_PARTS + 1))
            self._parts[key] = parts
            self._different += len(parts)
        return self._parts[key]


def _tool(place: str, value: Any) -> Iterator[Part]:
    value, mark = _unmarked(value)
    yield Part(place, _encode(value), "", mark)


def _system(place: str, value: Any) -> Iterator[Part]:
    value, mark = _unmarked(_as_block(value))
    yield Part(place, _encode(value), "system", mark)


def _message(place: str, value: Any) -> Iterator[Part]:
    value, mark = _unmarked(value)
    yield Part(place, _encode(value), _role(value), mark)


def _blocks(field: str, place: str, value: Any) -> Iterator[Part]:
    """Split a message into the blocks in its `field`. A text is a single block."""
    content = value.get(field) if isinstance(value, dict) else None
    if not isinstance(content, str | list):
        yield from _message(place, value)
        return
    role = _role(value)
    blocks = [_as_block(content)] if isinstance(content, str) else content
    for index, block in enumerate(blocks):
        block, mark = _unmarked(block)
        shown = {"role": value.get("role"), field: block} if index == 0 else block
        where = f"{place}.{field}[{index}]" if index else place
        yield Part(where, _encode(shown), role, mark)


_MESSAGES: dict[str, _Split] = {
    "anthropic_messages": partial(_blocks, "content"),
    "gemini": partial(_blocks, "parts"),
}
"""Protocols in which a message that is sent again can have more blocks."""


def _role(value: Any) -> Role:
    if not isinstance(value, dict):
        return "user"
    role = value.get("role")
    if isinstance(role, str) and role in _ROLES:
        return _ROLES[role]
    kind = value.get("type")
    return _ITEMS.get(kind, "user") if isinstance(kind, str) else "user"


def _as_block(value: Any) -> Any:
    """Return a text as the block that it stands for."""
    return {"type": "text", "text": value} if isinstance(value, str) else value


def _marked_at_end(parts: tuple[Part, ...], control: Any) -> tuple[Part, ...]:
    """Apply the `cache_control` of a whole request, which marks its last block."""
    if not parts or parts[-1].cache_mark:
        return parts
    return (*parts[:-1], replace(parts[-1], cache_mark=_mark_of(control)))


def _mark_of(control: Any) -> CacheMark:
    if not control:
        return ""
    return "1h" if isinstance(control, dict) and control.get("ttl") == "1h" else "5m"


def _unmarked(value: Any) -> tuple[Any, CacheMark]:
    """Return a value without its cache marks, and the last mark.

    A mark asks for a cache entry. It is no part of what the model reads.
    """
    mark: CacheMark = ""
    if not isinstance(value, dict):
        return value, mark
    if isinstance(value.get("content"), list):
        found = [_unmarked(block) for block in value["content"]]
        mark = next((mark for _, mark in reversed(found) if mark), "")
        value = {**value, "content": [block for block, _ in found]}
    if _CACHE_CONTROL in value:
        mark = _mark_of(value[_CACHE_CONTROL]) or mark
        value = {key: item for key, item in value.items() if key != _CACHE_CONTROL}
    return value, mark
