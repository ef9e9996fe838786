"""The tools of a session: `EagerCatalog` | `LazyCatalog`, and the guide's manager on top.

Names, descriptions and schemas come from the table in `agent_core.tools`, so a lazy
catalog tells a model everything without importing a tool; the first call of a tool
imports and builds it.
"""

import importlib
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

FREQUENT = ("bash", "str_replace_based_edit_tool", "task_done")
"""What `preload_frequently_used_tools` loads: the tools that most sessions use."""


class EagerCatalog:
    """Every tool imported and built at the start, as Trae Agent does.

    `names` are those that the session offers, all of `registry` unless given. Raises
    `ToolError` for a name that `registry` does not know; so does `LazyCatalog`.
    """

    def __init__(
        self,
        context: ToolContext,
        names: Sequence[str] | None = None,
        registry: Mapping[str, ToolEntry] = TOOLS,
    ) -> None:
        self._entries = _chosen(registry, names)
        self._tools = {name: _build(entry, context) for name, entry in self._entries.items()}

    def specs(self) -> Sequence[ToolSpec]:
        return [tool.spec for tool in self._tools.values()]

    def get(self, name: str) -> Tool:
        return self._tools[find(self._entries, name).name]

    async def close(self) -> None:
        for tool in self._tools.values():
            await tool.close()


class LazyToolLoader:
    """Imports and builds tools at first use, and counts. One instance a name."""

    def __init__(self, registry: Mapping[str, ToolEntry], context: ToolContext | None = None):
        self.registry = registry
        self._context = context
        self._tools: dict[str, Tool] = {}
        self.load_seconds: dict[str, float] = {}
        """How long each tool took to import and build, the last time."""
        self.executions: dict[str, int] = {}
        """How often each tool was run."""

    def load(self, name: str) -> Tool:
        """The tool called `name`, a key of the registry."""
        if name not in self._tools:
            started = time.perf_counter()
            if self._context is None:
                self._context = _here()
            self._tools[name] = _build(self.registry[name], self._context)
            self.load_seconds[name] = time.perf_counter() - started
        return self._tools[name]

    def loaded(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def drop_unused(self) -> int:
        """Forgets the tools that were loaded and never run, which have no state; how many."""
        unused = [name for name in self._tools if not self.executions.get(name)]
        for name in unused:
            del self._tools[name]
        return len(unused)

    async def close(self, name: str) -> None:
        """Closes the tool where it is loaded; its next use builds a fresh one."""
        tool = self._tools.pop(name, None)
        if tool is not None:
            await tool.close()


class LazyToolProxy:
    """Stands for one tool, loaded or not; the same object for the whole session."""

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
        self._loader.executions[self.name] = self._loader.executions.get(self.name, 0) + 1
        return await tool.execute(arguments)

    async def close(self) -> None:
        await self._loader.close(self.name)

    def __repr__(self) -> str:
        state = "loaded" if self.name in self._loader.loaded() else "not loaded"
        return f"<LazyToolProxy {self.name}, {state}>"


class LazyCatalog:
    """Proxies at the start, tools at their first execution."""

    def __init__(
        self,
        context: ToolContext | None = None,
        names: Sequence[str] | None = None,
        registry: Mapping[str, ToolEntry] = TOOLS,
    ) -> None:
        self.entries = _chosen(registry, names)
        self.loader = LazyToolLoader(self.entries, context)
        self._proxies: dict[str, LazyToolProxy] = {}

    def specs(self) -> Sequence[ToolSpec]:
        return [entry.spec for entry in self.entries.values()]

    def get(self, name: str) -> LazyToolProxy:
        entry = find(self.entries, name)
        if entry.name not in self._proxies:
            self._proxies[entry.name] = LazyToolProxy(entry, self.loader)
        return self._proxies[entry.name]

    def drop_unused_proxies(self) -> int:
        """Forgets the proxies of tools that are not loaded, where nobody holds them; how many."""
        before = len(self._proxies)
        idle = set(self._proxies) - set(self.loader.loaded())
        held = {name: weakref.ref(self._proxies.pop(name)) for name in idle}
        for name, reference in held.items():
            proxy = reference()
            if proxy is not None:  # somebody may still call it: it stays the one and only
                self._proxies[name] = proxy
        return before - len(self._proxies)

    async def close(self) -> None:
        for name in self.loader.loaded():
            await self.loader.close(name)


class OptimizedToolManager:
    """The guide's tool manager: a `LazyCatalog` with its figures.

    Without a `context`, the tools work in the current directory. `model_provider` is
    the guide's second argument; no tool depends on it.
    """

    def __init__(
        self,
        tool_registry: Mapping[str, ToolEntry] = TOOLS,
        model_provider: str | None = None,
        *,
        context: ToolContext | None = None,
    ) -> None:
        self.model_provider = model_provider
        self.catalog = LazyCatalog(context, registry=tool_registry)
        self._started = time.perf_counter()
        self._proxies_created: set[str] = set()

    def get_tools_list(self, names: Sequence[str]) -> list[LazyToolProxy]:
        """A proxy for each name. Raises `ToolError` for an unknown one."""
        return [self.get_tool_by_name(name) for name in names]

    def get_tool_by_name(self, name: str) -> LazyToolProxy:
        proxy = self.catalog.get(name)
        self._proxies_created.add(proxy.name)
        return proxy

    def preload_frequently_used_tools(self, names: Sequence[str] = FREQUENT) -> None:
        """Loads `names` now, where the registry has them."""
        for name in names:
            if name in self.catalog.entries:
                self.catalog.loader.load(self.get_tool_by_name(name).name)

    def optimize_memory(self) -> dict[str, int]:
        """Forgets what is loaded and was never run; a tool that was run has state and stays."""
        return {
            "unused_tools_removed": self.catalog.loader.drop_unused(),
            "unused_proxies_removed": self.catalog.drop_unused_proxies(),
        }

    async def cleanup(self) -> None:
        """Closes all tools. Their proxies stay good: the next call opens a fresh one."""
        await self.catalog.close()

    def get_performance_report(self) -> dict[str, Any]:
        loader = self.catalog.loader
        created, loaded = len(self._proxies_created), len(loader.loaded())
        return {
            "manager_runtime_seconds": round(time.perf_counter() - self._started, 3),
            "memory_efficiency": {
                "total_proxies_created": created,
                "tools_actually_loaded": loaded,
                "memory_savings_percent": _percent_spared(loaded, created),
            },
            "loading_performance": _loading_performance(loader),
        }


def _loading_performance(loader: LazyToolLoader) -> dict[str, Any]:
    times = {name: 1000 * seconds for name, seconds in loader.load_seconds.items()}
    counts = loader.executions
    most_used = max(counts, key=lambda name: counts[name], default=None)
    loaded, available = len(loader.loaded()), len(loader.registry)
    return {
        "instantiated_tools": loaded,
        "available_tools": available,
        "total_load_time_ms": round(sum(times.values()), 3),
        "average_load_time_ms": round(sum(times.values()) / len(times), 3) if times else 0.0,
        "most_used_tool": most_used,
        "most_used_tool_accesses": counts[most_used] if most_used else 0,
        "load_efficiency_percent": _percent_spared(loaded, available),
        "detailed_stats": {
            name: {"load_time_ms": round(ms, 3), "access_count": counts.get(name, 0)}
            for name, ms in times.items()
        },
    }


def _percent_spared(loaded: int, total: int) -> float:
    """The share of `total` that did not have to be loaded; 0 where there is none."""
    return round(100 * (1 - loaded / total), 1) if total else 0.0


def _chosen(registry: Mapping[str, ToolEntry], names: Sequence[str] | None) -> dict[str, ToolEntry]:
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


def _here() -> ToolContext:
    """Tools for the current directory, for a manager that was given no context."""
    from agent_core.files import ThreadedFiles
    from agent_core.shell import EventShell

    folder = Path.cwd()
    return ToolContext(ThreadedFiles(), lambda: EventShell(folder), Workspace(folder))
