"""The tool `bash`: commands in persistent shells."""

from collections.abc import Mapping
from typing import Any

from agent_core.errors import ToolError
from agent_core.messages import ToolOutput
from agent_core.ports import Access, ShellResult, ToolContext
from agent_core.tools import TOOLS
from agent_core.tools.read_only import Reading, reading
from agent_core.tools.shared_shell import Read, SharedShell

TIMEOUT = 120.0
"""Seconds per command, as in Trae Agent."""

MAX_TIMEOUT = 3600
"""Seconds. A larger number is probably meant as milliseconds."""


class BashTool:
    """Named shells, each opened at its first use. Each runs one command at a time.

    Commands of one reply that provably change nothing run at the same time, in shells of
    their own with the folder and the variables of the named one.
    """

    spec = TOOLS["bash"].spec

    def __init__(self, context: ToolContext, *, timeout: float = TIMEOUT) -> None:
        self._open_shell = context.open_shell
        self._timeout = timeout
        self._sessions: dict[str, SharedShell] = {}

    def access(self, arguments: Mapping[str, Any]) -> Access:
        session = frozenset({_session(arguments)})
        if _reading(arguments):
            return Access("shell", reads=session)
        return Access("shell", writes=session)

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        session = self._session(arguments)
        parts = _reading(arguments)
        if parts is not None and (parts.may_be_slow() or session.has_waiting()):
            read = Read(arguments["command"], self._seconds(arguments), parts)
            return _output(await session.read(read))
        async with session.lock:
            if arguments.get("restart"):
                await session.shell.restart()
                return ToolOutput(True, "The shell has been restarted.")
            if not arguments.get("command"):
                raise ToolError("'command' is missing; give a command, or set 'restart'.")
            command = _with_plain_ends(arguments["command"])
            return _output(await session.shell.run(command, self._seconds(arguments)))

    def _seconds(self, arguments: Mapping[str, Any]) -> float:
        seconds: float = arguments.get("timeout", self._timeout)
        if not 0 < seconds <= MAX_TIMEOUT:
            raise ToolError(f"'timeout' is in seconds, up to {MAX_TIMEOUT}, not {seconds:g}.")
        return seconds

    def _session(self, arguments: Mapping[str, Any]) -> SharedShell:
        name = _session(arguments)
        if name not in self._sessions:
            self._sessions[name] = SharedShell(self._open_shell())
        return self._sessions[name]

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.shell.close()


def _reading(arguments: Mapping[str, Any]) -> Reading | None:
    command = arguments.get("command")
    return reading(command) if command and not arguments.get("restart") else None


def _session(arguments: Mapping[str, Any]) -> str:
    return arguments.get("session") or "main"


def _with_plain_ends(command: str) -> str:
    """`command` without the CR of its line ends, which bash takes for a part of each last word."""
    crlf = 0 < command.count("\r\n") == command.count("\n")
    return command.replace("\r\n", "\n").removesuffix("\r") if crlf else command


def _output(result: ShellResult) -> ToolOutput:
    """The text for the model. A failing command always has an error."""
    parts = [result.error] if result.error else []
    if result.exit_status:
        parts.append(f"[exit status {result.exit_status}]")
    return ToolOutput(result.exit_status == 0, result.output, "\n".join(parts) or None)
