"""The tool `sequentialthinking`: numbered thoughts."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agent_core.errors import ToolError
from agent_core.messages import ToolOutput
from agent_core.ports import Access, ToolContext
from agent_core.tools import TOOLS


class SequentialThinkingTool:
    """Counts thoughts and keeps the branches' names. The thoughts stay in the history."""

    spec = TOOLS["sequentialthinking"].spec

    def __init__(self, context: ToolContext) -> None:
        self._thoughts = 0
        self._branches: dict[str, None] = {}

    def access(self, arguments: Mapping[str, Any]) -> Access:
        return Access("none", writes=frozenset({"thoughts"}))

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        for name in ("thought_number", "total_thoughts", "revises_thought", "branch_from_thought"):
            if arguments.get(name) is not None and arguments[name] < 1:
                raise ToolError(f"'{name}' counts from 1, not {arguments[name]}.")
        self._thoughts += 1
        branch = arguments.get("branch_id")
        if branch and arguments.get("branch_from_thought"):
            self._branches[branch] = None
        status = {
            "thought_number": arguments["thought_number"],
            "total_thoughts": max(arguments["thought_number"], arguments["total_thoughts"]),
            "next_thought_needed": arguments["next_thought_needed"],
            "branches": list(self._branches),
            "thought_history_length": self._thoughts,
        }
        text = msgspec.json.format(msgspec.json.encode(status)).decode()
        return ToolOutput(True, f"Thought noted.\n\nStatus:\n{text}")

    async def close(self) -> None:
        self._thoughts = 0
        self._branches.clear()
