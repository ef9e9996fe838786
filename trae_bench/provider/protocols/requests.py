"""Reads a model request of any protocol: what it asks, and which tools it offers."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec
from msgspec import Struct

from trae_bench.provider.routes import clean_path, find_route, wants_stream
from trae_bench.scenario import Protocol
from trae_bench.scenario.actions import ToolSchema

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a body. A longer one is not read."""
MAX_TOOLS = 1_000
"""Tools of a request that are read."""
_MAX_NAME = 200
"""Characters of the name of a tool or a model."""
_HISTORY: dict[Protocol, str] = {
    "openai_chat": "messages",
    "openai_responses": "input",
    "anthropic_messages": "messages",
    "gemini": "contents",
    "ollama_chat": "messages",
}
"""The field that holds the conversation."""


class RequestFacts(Struct, frozen=True):
    """What a model request asks."""

    protocol: Protocol
    stream: bool
    """The reply is to be streamed."""
    tools: tuple[ToolSchema, ...]
    """Tools with a name, in the order of the request."""
    model: str
    """Empty if the request names none."""
    messages: int
    """Messages or other items of the conversation."""


def read_request(path: str, body: bytes) -> RequestFacts | None:
    """Return what a request asks; None if it is no model request.

    `path` may have a prefix and a query. `body` is not compressed. Unknown fields are ignored,
    and a tool that does not have the form of its protocol is left out.
    """
    route = find_route(path)
    if route is None or len(body) > MAX_BODY:
        return None
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    protocol = cast(Protocol, route.protocol)
    history = asked.get(_HISTORY[protocol]) if isinstance(asked, dict) else None
    if not _is_history(protocol, history):
        return None
    tools = tuple(tool for _, tool in zip(range(MAX_TOOLS), _tools(protocol, asked), strict=False))
    return RequestFacts(
        protocol=protocol,
        stream=wants_stream(route, asked),
        tools=tools,
        model=_named_model(asked) or model_in_path(path),
        messages=len(history) if isinstance(history, list) else 1,
    )


def _is_history(protocol: Protocol, history: object) -> bool:
    # Responses accepts a text, and the items of a conversation may be texts in Gemini.
    if protocol == "openai_responses" and isinstance(history, str):
        return True
    return isinstance(history, list) and all(isinstance(one, dict | str) for one in history)


def _named_model(asked: dict[str, Any]) -> str:
    model = asked.get("model")
    return model[:_MAX_NAME] if isinstance(model, str) else ""


def model_in_path(path: str) -> str:
    """Return NAME of Gemini's `/v1beta/models/NAME:generateContent`; empty without one."""
    _, found, rest = clean_path(path).rpartition("/models/")
    return rest.rpartition(":")[0][:_MAX_NAME] if found else ""


def _tools(protocol: Protocol, asked: dict[str, Any]) -> Iterator[ToolSchema]:
    for entry in _objects(asked.get("tools")):
        if protocol == "gemini":
            for declared in _gemini_declarations(entry):
                yield from _tool(declared, _GEMINI_SCHEMAS)
        elif protocol == "anthropic_messages":
            yield from _tool(entry, ("input_schema",))
        elif protocol == "openai_responses":
            yield from _tool(entry, ("parameters",))
        else:
            yield from _tool(entry.get("function", entry.get("custom")), ("parameters",))
    # The older form of OpenAI Chat.
    for entry in _objects(asked.get("functions") if protocol == "openai_chat" else None):
        yield from _tool(entry, ("parameters",))


_GEMINI_SCHEMAS = ("parametersJsonSchema", "parameters_json_schema", "parameters")


def _gemini_declarations(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("functionDeclarations", "function_declarations"):
        yield from _objects(entry.get(name))


def _tool(entry: object, schemas: tuple[str, ...]) -> Iterator[ToolSchema]:
    """Yield the tool, if the entry is one. `schemas` are the fields that can hold its schema."""
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        return
    found = (entry[field] for field in schemas if isinstance(entry.get(field), dict))
    yield ToolSchema(name, next(found, {}))


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))
