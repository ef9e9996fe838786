"""Rollouts of Codex (`~/.codex/sessions/**/rollout-*.jsonl`, for 0.40 to 0.171)."""

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from trae_bench.scenario.importers.session import (
    Document,
    NotThisFormat,
    RecordedReply,
    RecordedSession,
    ResponsesItem,
    responses_reply,
    text_of,
)

_NOT_A_PROMPT = ("<", "# AGENTS.md")
"""How messages begin that Codex adds as the user, such as the environment."""
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output", "local_shell_call_output"})
_OF_A_REPLY = frozenset(
    {"message", "reasoning", "function_call", "custom_tool_call", "local_shell_call"}
)


_CONTEXTS = frozenset({"session_meta", "turn_context"})


class _Line(Struct, frozen=True):
    type: str
    payload: Raw


class _Context(Struct, frozen=True):
    """The fields of `session_meta` and `turn_context` that the import uses."""

    cwd: str | None = None
    model: str | None = None


class _Event(Struct, frozen=True):
    type: str = ""
    message: Any = None


_Kind = TypeVar("_Kind", _Context, _Event, ResponsesItem)


def matches(document: Document) -> bool:
    return document.has("timestamp", "type", "payload")


def read(document: Document) -> RecordedSession:
    """Convert a rollout. Raises `NotThisFormat`. Prompts after the first one are left out."""
    lines: list[_Line] = document.decode_lines(_Line)
    contexts = [_decoded(line, _Context) for line in lines if line.type in _CONTEXTS]
    events = [_decoded(line, _Event) for line in lines if line.type == "event_msg"]
    items = [_decoded(line, ResponsesItem) for line in lines if line.type == "response_item"]
    first = next((number for number, item in enumerate(items) if _is_output(item)), len(items))
    prompts = _prompts(items, events)
    end = next((number for number in prompts if number > first), len(items))
    # Several messages can precede the first reply; the last of them is the task.
    task = next((number for number in reversed(prompts) if number < first), None)
    replies = tuple(_replies(items[:end]))
    more = "the session has more prompts; the replies to the first one are kept"
    return RecordedSession(
        source="the rollout of Codex",
        replies=replies,
        task="" if task is None else text_of(items[task].content),
        agent="codex",
        protocol="openai_responses",
        stream=True,
        model=next((context.model for context in contexts if context.model), ""),
        final_text=replies[-1].text if replies else "",
        workspace=next((context.cwd for context in contexts if context.cwd), ""),
        notes=(more,) if end < len(items) else (),
    )


def _decoded(line: _Line, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(line.payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotThisFormat(f"a {line.type}: {error}") from error


def _prompts(items: list[ResponsesItem], events: list[_Event]) -> list[int]:
    """Return the places of the user's prompts. The events name them; older files have none."""
    texts = [
        (number, text_of(item.content))
        for number, item in enumerate(items)
        if item.type == "message" and item.role == "user"
    ]
    said = (event.message for event in events if event.type == "user_message")
    typed = {message for message in said if isinstance(message, str)}
    if typed:
        return [number for number, text in texts if text in typed]
    return [number for number, text in texts if not text.lstrip().startswith(_NOT_A_PROMPT)]


def _is_output(item: ResponsesItem) -> bool:
    return item.type in _OF_A_REPLY and (item.type != "message" or item.role == "assistant")


def _replies(items: list[ResponsesItem]) -> Iterator[RecordedReply]:
    """Yield the replies: the items of the model between two groups of results."""
    group: list[ResponsesItem] = []
    answered = False
    for item in items:
        if item.type in _OUTPUTS:
            answered = True
        elif _is_output(item):
            if answered and group:
                yield responses_reply(group)
                group = []
            answered = False
            group.append(item)
    if any(item.type != "reasoning" for item in group):
        yield responses_reply(group)
