"""Every seam of the agent, on one page.

The loop in `agent.py` knows these and nothing behind them. Each has a baseline and an
optimised body, side by side in one module; `build.py` picks. Each has a scripted twin
in the tests.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from msgspec import Struct

from agent_core.config import Settings
from agent_core.messages import Message, Reply, ToolCall, ToolOutput, ToolResult, ToolSpec
from agent_core.workspace import Workspace


class Model(Protocol):
    """Answers a history. Raises `ProviderError`."""

    async def reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply: ...

    async def close(self) -> None: ...


class Access(Struct, frozen=True):
    """What one call touches, so that a dispatcher knows which calls are independent.

    "files" and "shell" calls are never independent of each other (a shell command may
    touch any file); "none" is independent of both. Within a domain, calls conflict where
    one writes a name that the other reads or writes. A name covers all names below it
    ("/w/src" covers "/w/src/a.py"), so that a folder stands for its files.
    """

    domain: Literal["none", "files", "shell"]
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


@runtime_checkable
class Tool(Protocol):
    """One thing that the model can do."""

    @property
    def spec(self) -> ToolSpec: ...

    def access(self, arguments: Mapping[str, Any]) -> Access: ...

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput: ...

    async def close(self) -> None: ...


class Catalog(Protocol):
    """The tools of a session. `get` raises `ToolError` for a name that it does not know."""

    def specs(self) -> Sequence[ToolSpec]: ...

    def get(self, name: str) -> Tool: ...

    async def close(self) -> None: ...


OnResult = Callable[[ToolResult], None]


class Dispatch(Protocol):
    """Runs one reply's calls. One result for each call, in call order; never raises for a tool.

    `ended` is told each result as soon as it is there, in any order: what an interrupted
    batch has done is known, then, too.
    """

    async def run(
        self, calls: Sequence[ToolCall], catalog: Catalog, ended: OnResult = lambda result: None
    ) -> Sequence[ToolResult]: ...


class Lines(Struct, frozen=True):
    """Some lines of a text file."""

    text: str
    """Where a limit was passed, their beginning."""
    length: int
    """How many characters they have in all."""
    count: int
    """How many lines the file has."""


class Files(Protocol):
    """Text files: newlines and encoding survive a read and a write. Raises `ToolError`."""

    async def read(self, path: Path) -> str: ...

    async def read_lines(self, path: Path, first: int, last: int | None, limit: int) -> Lines:
        """Lines `first` to `last` (from 1, inclusive; None: the end), up to `limit` characters."""
        ...

    async def write(self, path: Path, text: str) -> None: ...


class ShellResult(Struct, frozen=True):
    """What one command left behind."""

    output: str
    error: str
    exit_status: int | None
    """None where the command was killed at its timeout."""


class Shell(Protocol):
    """One persistent shell. Raises `ToolError` where it cannot run a command at all."""

    async def run(self, command: str, timeout: float) -> ShellResult: ...

    async def restart(self) -> None: ...

    async def close(self) -> None: ...


class ToolContext(Struct, frozen=True):
    """All that a tool may need; the one argument of each tool's constructor."""

    files: Files
    open_shell: Callable[[], Shell]
    workspace: Workspace


class Recorder(Protocol):
    """Writes the session's diary. Raises `RecordingError`."""

    def start(self, task: str, provider: str, model: str, max_steps: int) -> None: ...

    def interaction(
        self, new_messages: Sequence[Message], reply: Reply, tools: Sequence[str]
    ) -> None:
        """One exchange with the model; `new_messages` are those sent for the first time."""
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


class Request(Struct, frozen=True):
    """One HTTP POST to a provider."""

    provider: str
    url: str
    headers: dict[str, str]
    body: bytes
    safe_to_repeat: bool = True


class Response(Struct, frozen=True):
    """The whole answer to a `Request`; any status."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connections(Protocol):
    """Carries requests. Narrow on purpose: a faster transport is one class.

    Retries what is safe to repeat; raises `ConnectionFailedError` when it gives up.
    """

    async def post(self, request: Request) -> Response: ...

    def stream(
        self, request: Request
    ) -> AbstractAsyncContextManager[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        """Status, headers and the body's chunks as they arrive."""
        ...

    def stats(self) -> dict[str, float]: ...

    async def close(self) -> None: ...


class ConfigSource(Protocol):
    """Turns a config file into settings. Raises `ConfigError`."""

    def load(self, path: Path) -> Settings: ...
