"""Session files of Claude Code (`~/.claude/projects/*/*.jsonl`, written for versions 1.0 to 2.1).

A reply takes one line per content block; its lines share the id of the message.
"""

import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from trae_bench.scenario.importers.session import (
    AnthropicBlock,
    Document,
    NotThisFormat,
    RecordedReply,
    RecordedSession,
    anthropic_reply,
)

_NOT_A_PROMPT = re.compile(r"<(command-|local-command|system-reminder|bash-)|Caveat: ")
"""How messages begin that Claude Code adds as the user."""
_SYNTHETIC = "<synthetic>"
"""Model of messages that Claude Code writes itself, such as API errors."""


class _Message(Struct, frozen=True):
    id: str = ""
    role: str = ""
    model: str = ""
    content: str | tuple[AnthropicBlock, ...] = ""

    @property
    def prompt(self) -> str:
        """Text of the user. Empty for results of tools."""
        if isinstance(self.content, str):
            text = self.content
        elif any(block.type == "tool_result" for block in self.content):
            text = ""
        else:
            text = "\n".join(block.text for block in self.content if block.type == "text")
        return "" if _NOT_A_PROMPT.match(text) else text

    @property
    def blocks(self) -> tuple[AnthropicBlock, ...]:
        if isinstance(self.content, str):
            return (AnthropicBlock("text", self.content),)
        return self.content


class _Line(Struct, frozen=True, rename="camel"):
    type: str = ""
    message: Raw = Raw()
    cwd: str | None = None
    is_sidechain: bool = False
    is_meta: bool | None = None


class _Entry(Struct, frozen=True):
    """A line with a message of the user or the model."""

    message: _Message
    is_reply: bool
    is_sidechain: bool
    cwd: str


def matches(document: Document) -> bool:
    return document.has("type", "sessionId", "message")


def read(document: Document) -> RecordedSession:
    """Convert a session. Raises `NotThisFormat`.

    Sub-agents (side chains) and prompts after the first one are left out.
    """
    entries = list(_entries(document))
    main = [entry for entry in entries if not entry.is_sidechain]
    replies, task, prompts = _first_task(main)
    models = (entry.message.model for entry in main if entry.is_reply)
    notes = []
    if prompts > 1:
        notes.append(f"the session has {prompts} prompts; the replies to the first one are kept")
    if len(main) < len(entries):
        notes.append("replies to sub-agents are left out")
    return RecordedSession(
        source="the session of Claude Code",
        replies=replies,
        task=task,
        agent="claude-code",
        protocol="anthropic_messages",
        stream=True,
        model=next(models, ""),
        final_text=replies[-1].text if replies else "",
        workspace=next((entry.cwd for entry in main if entry.cwd), ""),
        notes=tuple(notes),
    )


def _entries(document: Document) -> Iterator[_Entry]:
    for line in document.decode_lines(_Line):
        if line.type not in ("user", "assistant") or not line.message or line.is_meta:
            continue
        try:
            message = msgspec.json.decode(line.message, type=_Message)
        except msgspec.MsgspecError as error:
            raise NotThisFormat(f"a message of the {line.type}: {error}") from error
        if message.model != _SYNTHETIC:
            yield _Entry(message, line.type == "assistant", line.is_sidechain, line.cwd or "")


def _first_task(entries: list[_Entry]) -> tuple[tuple[RecordedReply, ...], str, int]:
    """Return the replies to the first prompt, that prompt, and the number of prompts."""
    blocks: dict[str, list[AnthropicBlock]] = {}
    task, prompts = "", 0
    for entry in entries:
        message = entry.message
        if entry.is_reply and prompts <= 1:
            blocks.setdefault(message.id, []).extend(message.blocks)
        elif not entry.is_reply and message.prompt:
            prompts += 1
            task = task or message.prompt
    return tuple(map(anthropic_reply, blocks.values())), task, prompts
