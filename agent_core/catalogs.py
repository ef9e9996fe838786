"""The tools of a session: `EagerCatalog` | `LazyCatalog`.

Names, descriptions and schemas come from the table in `agent_core.tools`. A lazy catalog
can therefore describe its tools without importing them. The first call of a tool imports
and builds it.
"""

import importlib
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from agent_core.errors import ToolError
from agent_core.messages import ToolOutput, ToolSpec
from agent_core.ports import Access, Tool, ToolContext
from agent_core.tools import TOOLS, ToolEntry, find
from agent_core.workspace import Workspace


class EagerCatalog:
    """Imports and builds every tool at the start, as Trae Agent does.

    `names` selects the session's tools; the default is all of `registry`. Both catalogs raise
    `ToolError` for a name that is not in `registry`.
    """

    def __init__(
        self,
        context: ToolContext,
        names: Sequence[str] | None = None,
        registry: Mapping[str, ToolEntry] = TOOLS,
    ) -> None:
        self._entries = _select(registry, names)
        self._tools = {name: _build(entry, context) for name, entry in self._entries.items()}

    def specs(self) -> Sequence[ToolSpec]:
        return [tool.spec for tool in self._tools.values()]

    def get(self, name: str) -> Tool:
        return self._tools[find(self._entries, name).name]

    async def close(self) -> None:
        for tool in self._tools.values():
            await tool.close()


class LazyToolLoader:
    """Imports and builds each tool at its first use, one instance per name. Keeps statistics."""

    def __init__(self, registry: Mapping[str, ToolEntry], context: ToolContext | None = None):
        self.registry = registry
        self._context = context
        self._lock = threading.RLock()
        self._tools: dict[str, Tool] = {}
        self.load_seconds: dict[str, float] = {}
        """Seconds to import and build each tool, the last time."""
        self.executions: dict[str, int] = {}
        """Executions of each tool."""

    def load(self, name: str) -> Tool:
        """The tool `name`, a key of the registry. Threads that ask at once get the same one."""
        with self._lock:
            if name not in self._tools:
                started = time.perf_counter()
                if self._context is None:
                    self._context = _default_context()
                self._tools[name] = _build(self.registry[name], self._context)
                self.load_seconds[name] = time.perf_counter() - started
            return self._tools[name]

    def count_execution(self, name: str) -> None:
        with self._lock:
            self.executions[name] = self.executions.get(name, 0) + 1

    def loaded(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def drop_unused(self) -> int:
        """Drops tools that were loaded but never run, which have no state. Returns how many."""
        with self._lock:
            unused = [name for name in self._tools if not self.executions.get(name)]
            for name in unused:
                del self._tools[name]
            return len(unused)

    async def close(self, name: str) -> None:
        """Closes the tool if it is loaded. Its next use builds a new one."""
        tool = self._tools.pop(name, None)
        if tool is not None:
            await tool.close()


class LazyToolProxy:
    """Represents one tool, loaded or not. It stays the same object for the whole session."""

    def __init__(self, entry: ToolEntry, loader: LazyToolLoader) -> None:
        self._entry = entry
        self._loader = loader

    @property
    def spec(self) -> ToolSpec:
        return self._entry.spec

    @property
    def name(self) -> str:
        return self._entry.name

    def access(self, arguments: Mapping[str, Any]) -> Access:
        return self._loader.load(self.name).access(arguments)

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        tool = self._loader.load(self.name)
        self._loader.count_execution(self.name)
        return await tool.execute(arguments)

    async def close(self) -> None:
        await self._loader.close(self.name)

    def __repr__(self) -> str:
        state = "loaded" if self.name in self._loader.loaded() else "not loaded"
        return f"<LazyToolProxy {self.name}, {state}>"


class LazyCatalog:
    """Creates proxies at the start and tools at their first execution."""

    def __init__(
        self,
        context: ToolContext | None = None,
        names: Sequence[str] | None = None,
        registry: Mapping[str, ToolEntry] = TOOLS,
    ) -> None:
        self.entries = _select(registry, names)
        self.loader = LazyToolLoader(self.entries, context)
        self._proxies: dict[str, LazyToolProxy] = {}

    def specs(self) -> Sequence[ToolSpec]:
        return [entry.spec for entry in self.entries.values()]

    def get(self, name: str) -> LazyToolProxy:
        entry = find(self.entries, name)
        proxy = self._proxies.get(entry.name)
        # `setdefault` is atomic, so threads get the same proxy.
        return proxy or self._proxies.setdefault(entry.name, LazyToolProxy(entry, self.loader))

    def drop_unused_proxies(self) -> int:
        """Drops proxies of tools that are not loaded, unless still referenced. Returns how many."""
        before = len(self._proxies)
        idle = set(self._proxies) - set(self.loader.loaded())
        held = {name: weakref.ref(self._proxies.pop(name)) for name in idle}
        for name, reference in held.items():
            proxy = reference()
            if proxy is not None:  # still referenced, so it must stay the only one
                self._proxies[name] = proxy
        return before - len(self._proxies)

    async def close(self) -> None:
        for name in self.loader.loaded():
            await self.loader.close(name)


def _select(registry: Mapping[str, ToolEntry], names: Sequence[str] | None) -> dict[str, ToolEntry]:
    if names is None:
        return dict(registry)
    entries = [find(registry, name) for name in names]
    return {entry.name: entry for entry in entries}


def _build(entry: ToolEntry, context: ToolContext) -> Tool:
    module, _, name = entry.path.partition(":")
    try:
        built = getattr(importlib.import_module(module), name)(context)
    except (ImportError, AttributeError) as error:
        raise ToolError(f"The tool '{entry.name}' cannot be loaded: {error}.") from error
    return cast(Tool, built)


def _default_context() -> ToolContext:
    """The context for a loader that was created without one: the current directory."""
    from agent_core.config import Settings, key_variables
    from agent_core.files import ThreadedFiles
    from agent_core.redaction import without_keys
    from agent_core.shell import EventShell

    folder, environ = Path.cwd(), without_keys(os.environ, key_variables(Settings()))
    return ToolContext(ThreadedFiles(), lambda: EventShell(folder, environ), Workspace(folder))
