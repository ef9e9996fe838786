"""Fakes of the agent's interfaces. They follow a script and record their calls."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_core.errors import ToolError
from agent_core.messages import Message, Reply, ToolCall, ToolOutput, ToolResult, ToolSpec, Usage
from agent_core.ports import Access, Shell, ShellResult, Tool
from agent_core.shell_state import StateReport


def call(name: str, /, id: str = "c1", malformed: str | None = None, **arguments: Any) -> ToolCall:
    return ToolCall(id, name, arguments, malformed)


def reply(text: str = "", *calls: ToolCall) -> Reply:
    return Reply(Message("assistant", text, calls), Usage(input_tokens=10, output_tokens=1))


class ScriptedModel:
    """Returns `turns` in order. An exception among them is raised."""

    def __init__(self, *turns: Reply | BaseException) -> None:
        self._turns = list(turns)
        self.asked: list[list[Message]] = []
        self.tools: list[Sequence[ToolSpec]] = []

    async def reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply:
        self.asked.append(list(history))
        self.tools.append(tools)
        await asyncio.sleep(0)
        turn = self._turns.pop(0)
        if isinstance(turn, BaseException):
            raise turn
        return turn

    async def close(self) -> None:
        pass


class ListRecorder:
    """Stores each entry as a tuple. Raises `failing[method]` if present."""

    def __init__(self, **failing: Exception) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self._failing = failing

    def _note(self, kind: str, *rest: Any) -> None:
        if kind in self._failing:
            raise self._failing[kind]
        self.entries.append((kind, *rest))

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None:
        self._note("start", task, provider, model, max_steps)

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        self._note("interaction", tuple(new_messages), reply, tuple(tools))

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None:
        self._note("step", number, state, tuple(messages), reply, tuple(results), error)

    async def finish(self, success: bool, final_result: str | None) -> None:
        self._note("finish", success, final_result)

    def kinds(self) -> list[str]:
        return [entry[0] for entry in self.entries]

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.entries if entry[0] == kind]


Body = Callable[[Mapping[str, Any]], Awaitable[ToolOutput]]


class ScriptedTool:
    """Runs `body`. `access` is what it reports as its access."""

    def __init__(
        self,
        name: str,
        body: Body,
        access: Access | Callable[[Mapping[str, Any]], Access] = Access("none"),  # noqa: B008
        parameters: dict[str, Any] | None = None,
    ) -> None:
        self.spec = ToolSpec(name, name, parameters or {"type": "object"})
        self._body = body
        self._access = access
        self.closed = False

    def access(self, arguments: Mapping[str, Any]) -> Access:
        return self._access if isinstance(self._access, Access) else self._access(arguments)

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        return await self._body(arguments)

    async def close(self) -> None:
        self.closed = True


class DictCatalog:
    """The given tools, by exact name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.tools = {tool.spec.name: tool for tool in tools}
        self.closed = 0

    def specs(self) -> Sequence[ToolSpec]:
        return [tool.spec for tool in self.tools.values()]

    def get(self, name: str) -> Tool:
        if name not in self.tools:
            raise ToolError(f"Unknown tool '{name}'. Known tools: {', '.join(self.tools)}.")
        return self.tools[name]

    async def close(self) -> None:
        self.closed += 1
        for tool in self.tools.values():
            await tool.close()


class ScriptedShell:
    """A shell without bash. Commands: `append NAME TEXT`, `link NAME TARGET`, `show NAME`.

    It yields between any two file operations, so that a missing lock becomes visible.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.running = 0
        self.most_running = 0
        self.restarts = 0
        self.closed = False

    async def run(
        self, command: str, timeout: float, report: StateReport | None = None
    ) -> ShellResult:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._run(*command.split(" ", 2))
        finally:
            self.running -= 1

    async def _run(self, verb: str, name: str, rest: str = "") -> ShellResult:
        path = self._root / name
        await asyncio.sleep(0)
        text = path.read_text() if path.exists() else ""
        await asyncio.sleep(0)
        if verb == "append":
            path.write_text(f"{text}{rest}\n")
        elif verb == "link":
            path.unlink(missing_ok=True)
            path.symlink_to(self._root / rest)
        await asyncio.sleep(0)
        return ShellResult(text, "", 0)

    async def restart(self) -> None:
        self.restarts += 1

    def twin(self, report: StateReport, between: Sequence[str]) -> Shell | None:
        return None

    def skip(self, commands: Sequence[str]) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
