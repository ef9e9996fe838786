"""The interfaces between the parts of the agent.

The loop in `agent.py` depends on these only. Most have a baseline and an optimised
implementation; `build.py` chooses one. The tests have a fake for each.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from agent_core.config import Settings
from agent_core.messages import Message, Reply, ToolCall, ToolOutput, ToolResult, ToolSpec
from agent_core.shell_state import StateReport
from agent_core.workspace import Workspace


class Model(Protocol):
    """Answers a history. Raises `ProviderError`."""

    async def reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply: ...

    async def close(self) -> None: ...


class Access(Struct, frozen=True):
    """The resources that one call uses. A dispatcher derives from it which calls are independent.

    Calls of the domains "files" and "shell" always conflict with each other, because a
    shell command may use any file. "none" conflicts with neither. Within a domain, two calls
    conflict if one writes a name that the other reads or writes. A name includes all names
    below it: "/w/src" includes "/w/src/a.py".
    """

    domain: Literal["none", "files", "shell"]
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


@runtime_checkable
class Tool(Protocol):
    """A tool that the model can call."""

    @property
    def spec(self) -> ToolSpec: ...

    def access(self, arguments: Mapping[str, Any]) -> Access: ...

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput: ...

    async def close(self) -> None: ...


class Catalog(Protocol):
    """The tools of a session. `get` raises `ToolError` for an unknown name."""

    def specs(self) -> Sequence[ToolSpec]: ...

    def get(self, name: str) -> Tool: ...

    async def close(self) -> None: ...


OnResult = Callable[[ToolResult, float], None]
"""Receives a result and the seconds that its call took."""


def ignore_result(result: ToolResult, seconds: float) -> None:
    """An `OnResult` that does nothing."""


class Dispatch(Protocol):
    """Runs the calls of one reply and returns one result per call, in call order.

    A tool error becomes a failed result. `on_result` receives each result as soon as it is
    available, in any order, so an interrupted batch is recorded as well.
    """

    async def run(
        self, calls: Sequence[ToolCall], catalog: Catalog, on_result: OnResult = ignore_result
    ) -> Sequence[ToolResult]: ...


class Lines(Struct, frozen=True):
    """A range of lines of a text file."""

    text: str
    """Truncated at the character limit."""
    length: int
    """Characters in the range before truncation."""
    count: int
    """Lines in the whole file."""
    note: str = ""
    """What a reader should know about the encoding."""


class Files(Protocol):
    """Reads and writes text files. Preserves newlines and encoding. Raises `ToolError`."""

    async def read(self, path: Path) -> str: ...

    async def read_lines(self, path: Path, first: int, last: int | None, limit: int) -> Lines:
        """Lines `first` to `last`, from 1, inclusive; at most `limit` characters.

        A `last` of None is the end of the file.
        """
        ...

    async def write(self, path: Path, text: str) -> None: ...


class ShellResult(Struct, frozen=True):
    """The result of one command."""

    output: str
    error: str
    exit_status: int | None
    """None if the command was killed at its timeout."""


class Shell(Protocol):
    """A persistent shell. Raises `ToolError` if it cannot run a command."""

    async def run(
        self, command: str, timeout: float, report: StateReport | None = None
    ) -> ShellResult:
        """Runs `command` for at most `timeout` seconds. Its state before goes to `report`."""
        ...

    def twin(self, report: StateReport, between: Sequence[str]) -> "Shell | None":
        """A new shell for a command that changes nothing, while this one runs another.

        The twin behaves as this shell would after the commands `between`, which change nothing
        either. None if it might not, as the report says. The caller closes the twin.
        """
        ...

    def skip(self, commands: Sequence[str]) -> None:
        """Counts the lines of commands that twins have run, because bash's errors name lines."""
        ...

    async def restart(self) -> None: ...

    async def close(self) -> None: ...


class ToolContext(Struct, frozen=True):
    """What tools depend on: the only argument of each tool's constructor."""

    files: Files
    open_shell: Callable[[], Shell]
    workspace: Workspace


class Recorder(Protocol):
    """Records the session. Raises `RecordingError`."""

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None: ...

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        """Records one exchange with the model. `new_messages` are those sent for the first time."""
        ...

    def step(
        self,
        number: int,
        state: str,
        messages: Sequence[Message],
        reply: Reply | None,
        results: Sequence[ToolResult],
        error: str | None = None,
    ) -> None: ...

    async def finish(self, success: bool, final_result: str | None) -> None: ...


class View(Recorder, Protocol):
    """Shows the session while it runs."""

    def text(self, part: str) -> None:
        """Called with each part of a streamed answer. `interaction` has the whole answer."""
        ...

    def result(self, result: ToolResult, seconds: float) -> None:
        """Called when a call has ended, in order of completion."""
        ...


class Request(Struct, frozen=True):
    """An HTTP POST to a provider."""

    provider: str
    url: str
    headers: dict[str, str]
    body: bytes
    safe_to_repeat: bool = True


class Response(Struct, frozen=True):
    """A complete HTTP response of any status."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connections(Protocol):
    """Sends requests. The interface is small, so that one class can replace the transport.

    Retries what is safe to repeat, then raises `ConnectionFailedError`.
    """

    async def post(self, request: Request) -> Response: ...

    def stream(
        self, request: Request
    ) -> AbstractAsyncContextManager[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        """Status, headers, and the body in chunks as they arrive."""
        ...

    def stats(self) -> dict[str, float]: ...

    async def close(self) -> None: ...


class ConfigSource(Protocol):
    """Loads settings from a config file. Raises `ConfigError`."""

    def load(self, path: Path) -> Settings: ...
