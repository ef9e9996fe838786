"""What every floor says and does: the opening, the one tool, and the order of sessions.

Chat Completions only, with one tool. It imports nothing that `raw_socket` could do without.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

FINISH = "task_done"
HEADERS = {"authorization": "Bearer scripted", "content-type": "application/json"}
_PATH = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def opening() -> dict[str, Any]:
    """The first request's body; what follows is appended to its `messages`, its last field."""
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
    """Runs the calls of an assistant message; None where it ends the session.

    `decode` reads JSON: a call's arguments are a text.
    """
    calls = [(call["id"], call["function"]) for call in reply["tool_calls"]]
    if any(function["name"] == FINISH for _, function in calls):
        return None
    return [tool_message(id, decode(function["arguments"])["path"]) for id, function in calls]


def tool_message(call_id: str, path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be charged
        return {"role": "tool", "tool_call_id": call_id, "content": file.read()}


Session = Callable[[str], Awaitable[None]]


def run(session: Session) -> None:
    """Runs `session` for each base URL of the command line."""
    asyncio.run(_all(session, sys.argv[2::2]))


async def _all(session: Session, base_urls: list[str]) -> None:
    if len(base_urls) > 1:
        await session(base_urls.pop(0))
    await asyncio.gather(*map(session, base_urls))
