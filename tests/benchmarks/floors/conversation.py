"""Shared parts of the floors: the first request, the tool, and the order of sessions.

Supports Chat Completions with one tool. It imports only what `raw_socket` needs.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

FINISH = "task_done"
HEADERS = {"authorization": "Bearer scripted", "content-type": "application/json"}
_PATH = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def opening() -> dict[str, Any]:
    """Return the body of the first request. Its last field, `messages`, is extended later."""
    function = {"name": "view", "description": "Show a file.", "parameters": _PATH}
    return {
        "model": "scripted",
        "tools": [{"type": "function", "function": function}],
        "messages": [
            {"role": "system", "content": "You work on files by calling tools."},
            {"role": "user", "content": "Look at the file."},
        ],
    }


def tool_messages(
    reply: dict[str, Any], decode: Callable[[str], dict[str, Any]]
) -> list[dict[str, Any]] | None:
    """Run the calls of an assistant message. Return None if it ends the session.

    `decode` parses the JSON arguments of a call.
    """
    calls = [(call["id"], call["function"]) for call in reply["tool_calls"]]
    if any(function["name"] == FINISH for _, function in calls):
        return None
    return [tool_message(id, decode(function["arguments"])["path"]) for id, function in calls]


def tool_message(call_id: str, path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - avoids importing pathlib
        return {"role": "tool", "tool_call_id": call_id, "content": file.read()}


Session = Callable[[str], Awaitable[None]]


def run(session: Session) -> None:
    """Run `session` for each base URL of the command line."""
    asyncio.run(_all(session, sys.argv[2::2]))


async def _all(session: Session, base_urls: list[str]) -> None:
    if len(base_urls) > 1:
        await session(base_urls.pop(0))
    await asyncio.gather(*map(session, base_urls))
