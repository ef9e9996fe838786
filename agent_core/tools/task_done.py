"""The tool `task_done`: the model reports that it has finished."""

from collections.abc import Mapping
from typing import Any

from agent_core.messages import ToolOutput
from agent_core.ports import Access, ToolContext
from agent_core.tools import TOOLS


class TaskDoneTool:
    """Ends a session. The loop checks the name; this class serves direct callers."""

    spec = TOOLS["task_done"].spec

    def __init__(self, context: ToolContext) -> None:
        pass

    def access(self, arguments: Mapping[str, Any]) -> Access:
        return Access("none")

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        return ToolOutput(True, "Task done.")

    async def close(self) -> None:
        pass
