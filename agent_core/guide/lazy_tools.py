"""Lazy tool loading under the guide's names."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent_core.catalogs import LazyCatalog, LazyToolLoader, LazyToolProxy
from agent_core.ports import ToolContext
from agent_core.tools import TOOLS, ToolEntry

FREQUENT = ("bash", "str_replace_based_edit_tool", "task_done")
"""The default of `preload_frequently_used_tools`."""


class OptimizedToolManager:
    """A `LazyCatalog` with the guide's methods and statistics.

    Without a `context`, the tools work in the current directory. `model_provider` is the
    guide's second argument; no tool uses it.
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
        """One proxy per name. Raises `ToolError` for an unknown name."""
        return [self.get_tool_by_name(name) for name in names]

    def get_tool_by_name(self, name: str) -> LazyToolProxy:
        """Raises `ToolError` for an unknown name."""
        proxy = self.catalog.get(name)
        self._proxies_created.add(proxy.name)
        return proxy

    def preload_frequently_used_tools(self, names: Sequence[str] = FREQUENT) -> None:
        """Loads those of `names` that the registry has."""
        for name in names:
            if name in self.catalog.entries:
                self.catalog.loader.load(self.get_tool_by_name(name).name)

    def optimize_memory(self) -> dict[str, int]:
        """Drops tools that were loaded but never run. A tool that has run keeps its state."""
        return {
            "unused_tools_removed": self.catalog.loader.drop_unused(),
            "unused_proxies_removed": self.catalog.drop_unused_proxies(),
        }

    async def cleanup(self) -> None:
        """Closes all tools. Their proxies stay valid: the next call builds a new tool."""
        await self.catalog.close()

    def get_performance_report(self) -> dict[str, Any]:
        loader = self.catalog.loader
        created, loaded = len(self._proxies_created), len(loader.loaded())
        return {
            "manager_runtime_seconds": round(time.perf_counter() - self._started, 3),
            "memory_efficiency": {
                "total_proxies_created": created,
                "tools_actually_loaded": loaded,
                "memory_savings_percent": _percent_not_loaded(loaded, created),
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
        "load_efficiency_percent": _percent_not_loaded(loaded, available),
        "detailed_stats": {
            name: {"load_time_ms": round(ms, 3), "access_count": counts.get(name, 0)}
            for name, ms in times.items()
        },
    }


def _percent_not_loaded(loaded: int, total: int) -> float:
    """0 if `total` is 0."""
    return round(100 * (1 - loaded / total), 1) if total else 0.0
