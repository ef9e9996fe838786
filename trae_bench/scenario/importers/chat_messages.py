"""Lists of messages in the format of OpenAI Chat Completions (written for the API of 2025).

The file is an array of messages, or an object with `messages`, as agents and fine-tuning use.
"""

from msgspec import Struct

from trae_bench.scenario.actions import ToolSchema
from trae_bench.scenario.importers.session import (
    ChatMessage,
    Document,
    RecordedSession,
    chat_reply,
    text_of,
)


class _Function(Struct, frozen=True):
    name: str = ""
    parameters: dict[str, object] = {}


class _Tool(Struct, frozen=True):
    function: _Function = _Function()


class _Conversation(Struct, frozen=True):
    messages: tuple[ChatMessage, ...]
    tools: tuple[_Tool, ...] | None = None
    model: str | None = None


def matches(document: Document) -> bool:
    if document.shape == "array":
        return document.has("role")
    return document.shape == "object" and document.has("messages")


def read(document: Document) -> RecordedSession:
    """Convert a list of messages. Raises `NotThisFormat`."""
    if document.shape == "array":
        conversation = _Conversation(document.decode(tuple[ChatMessage, ...]))
    else:
        conversation = document.decode(_Conversation)
    messages, notes = _first_task(conversation.messages)
    replies = tuple(chat_reply(message) for message in messages if message.role == "assistant")
    users = (text_of(message.content) for message in messages if message.role == "user")
    return RecordedSession(
        source="the list of messages",
        replies=replies,
        task=next(users, ""),
        model=conversation.model or "",
        tools=tuple(
            ToolSchema(tool.function.name, tool.function.parameters)
            for tool in conversation.tools or ()
        ),
        final_text=replies[-1].text if replies else "",
        notes=notes,
    )


def _first_task(
    messages: tuple[ChatMessage, ...],
) -> tuple[tuple[ChatMessage, ...], tuple[str, ...]]:
    """Return the messages up to the second prompt, which a replay does not give.

    Without tools, messages of the user can be results, so all of them are kept.
    """
    if not any(message.role == "tool" for message in messages):
        return messages, ()
    replied = False
    for number, message in enumerate(messages):
        replied |= message.role == "assistant"
        if replied and message.role == "user":
            note = "the session has more prompts; the replies after the second one are left out"
            return messages[:number], (note,)
    return messages, ()
