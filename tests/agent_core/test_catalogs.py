"""Catalogs: what is known before loading, what is loaded when, and the statistics."""

import json
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent_core.catalogs import EagerCatalog, LazyCatalog, LazyToolLoader
from agent_core.errors import ToolError
from agent_core.files import BlockingFiles
from agent_core.guide.lazy_tools import OptimizedToolManager
from agent_core.ports import Catalog, Tool, ToolContext
from agent_core.shell import EventShell
from agent_core.tools import TOOLS, ToolEntry, tools_registry
from agent_core.workspace import Workspace

pytestmark = pytest.mark.anyio

IDLE = ToolEntry(TOOLS["task_done"].spec, "tests.agent_core.no_such_module:Tool")


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    return ToolContext(BlockingFiles(), lambda: EventShell(tmp_path), Workspace(tmp_path))


def fresh(code: str) -> Any:
    """The JSON that `code` prints in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


LOADED = "json.dumps(sorted(m for m in sys.modules if m.startswith('agent_core.tools.')))"
START = (
    "import json, sys\n"
    "from pathlib import Path\n"
    "from agent_core.files import BlockingFiles\n"
    "from agent_core.catalogs import EagerCatalog, LazyCatalog\n"
    "from agent_core.ports import ToolContext\n"
    "from agent_core.workspace import Workspace\n"
    "here = ToolContext(BlockingFiles(), lambda: None, Workspace(Path.cwd()))\n"
)


def test_building_a_request_imports_no_tool() -> None:
    code = (
        f"{START}catalog = LazyCatalog(here)\n"
        "specs = catalog.specs()\n"
        "assert all(s.name and s.description and s.parameters['type'] for s in specs)\n"
        "assert len(specs) == 6 and all(catalog.get(s.name).spec is s for s in specs)\n"
        f"print({LOADED})"
    )
    assert fresh(code) == []


def test_one_call_imports_one_tool() -> None:
    code = (
        f"{START}import asyncio\n"
        "asyncio.run(LazyCatalog(here).get('task_done').execute({}))\n"
        f"print({LOADED})"
    )
    assert fresh(code) == ["agent_core.tools.task_done"]


def test_eager_catalog_imports_all_tools_at_the_start() -> None:
    loaded = fresh(f"{START}EagerCatalog(here)\nprint({LOADED})")
    assert {entry.path.partition(":")[0] for entry in TOOLS.values()} <= set(loaded)


@pytest.mark.parametrize("kind", [EagerCatalog, LazyCatalog])
def test_both_catalogs_have_the_same_tools(kind: type[EagerCatalog], context: ToolContext) -> None:
    catalog: Catalog = kind(context)
    assert list(catalog.specs()) == [entry.spec for entry in TOOLS.values()]
    some: Catalog = kind(context, ["task_done", "Edit_Tool"])
    assert [spec.name for spec in some.specs()] == ["task_done", "str_replace_based_edit_tool"]
    for name in ("str_replace_based_edit_tool", "StrReplaceBasedEditTool", "edit_tool"):
        assert some.get(name).spec.name == "str_replace_based_edit_tool"
        assert isinstance(some.get(name), Tool)
    with pytest.raises(ToolError, match=r"Unknown tool 'bash'\. Known tools: task_done, str_"):
        some.get("bash")
    with pytest.raises(ToolError, match="Unknown tool 'no'"):
        kind(context, ["no"])


def test_every_tool_has_the_spec_in_the_table(context: ToolContext) -> None:
    for entry in TOOLS.values():
        assert LazyToolLoader(TOOLS, context).load(entry.name).spec is entry.spec


async def test_default_context_hides_the_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted")
    monkeypatch.chdir(tmp_path)
    catalog = LazyCatalog()
    shown = await catalog.get("bash").execute({"command": "echo ${OPENAI_API_KEY:-none}; pwd"})
    await catalog.close()
    assert shown.output == f"none\n{tmp_path}"


def test_threads_build_one_tool_and_one_proxy(context: ToolContext) -> None:
    """Nine threads once built nine instances, because building a tool can switch threads."""
    built: list[object] = []

    class Slow:
        spec = TOOLS["task_done"].spec

        def __init__(self, context: ToolContext) -> None:
            gate.wait(0.05)
            built.append(self)

    threads = 9
    gate, start = threading.Event(), threading.Barrier(threads)
    module = types.ModuleType("slow_tool_of_a_test")
    module.Slow = Slow  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        registry = {"task_done": ToolEntry(Slow.spec, f"{module.__name__}:Slow")}
        catalog = LazyCatalog(context, registry=registry)

        def use(_: int) -> tuple[int, int]:
            start.wait()
            proxy = catalog.get("task_done")
            return id(proxy), id(catalog.loader.load("task_done"))

        with ThreadPoolExecutor(threads) as pool:
            seen = set(pool.map(use, range(threads)))
    finally:
        del sys.modules[module.__name__]
    assert len(built) == len(seen) == 1


async def test_proxy_keeps_its_identity_and_the_tools_state(context: ToolContext) -> None:
    catalog = LazyCatalog(context)
    bash = catalog.get("bash")
    assert catalog.get("BASH") is bash
    await bash.execute({"command": "X=kept"})
    assert (await catalog.get("bash").execute({"command": "echo $X"})).output == "kept"
    await catalog.close()


async def test_cleanup_closes_bash(context: ToolContext) -> None:
    manager = OptimizedToolManager(tools_registry, "openai", context=context)
    bash = manager.get_tool_by_name("bash")
    pid = int((await bash.execute({"command": "X=old; echo $$"})).output)
    assert manager.optimize_memory()["unused_tools_removed"] == 0
    assert (await bash.execute({"command": "echo $X"})).output == "old"
    await manager.cleanup()
    assert not is_running(pid)
    assert manager.get_tool_by_name("bash") is bash
    assert (await bash.execute({"command": "echo ${X:-fresh}"})).output == "fresh"
    await manager.cleanup()


async def test_optimize_memory_drops_only_unused_and_unreferenced_tools(
    context: ToolContext,
) -> None:
    manager = OptimizedToolManager(tools_registry, context=context)
    held = manager.get_tool_by_name("ckg")
    manager.preload_frequently_used_tools()
    await manager.get_tool_by_name("task_done").execute({})
    assert manager.get_performance_report()["loading_performance"]["instantiated_tools"] == 3
    assert manager.optimize_memory() == {"unused_tools_removed": 2, "unused_proxies_removed": 2}
    assert manager.get_tool_by_name("ckg") is held
    assert manager.optimize_memory() == {"unused_tools_removed": 0, "unused_proxies_removed": 0}


async def test_guides_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a context, tools work in the current directory."""
    monkeypatch.chdir(tmp_path)
    tool_manager = OptimizedToolManager(tools_registry, "anthropic")
    tools = tool_manager.get_tools_list(["bash", "edit_tool", "task_done"])
    result = await tools[0].execute({"command": "echo hello; pwd"})
    assert result.output == f"hello\n{tmp_path}"
    report = tool_manager.get_performance_report()
    assert report["memory_efficiency"] == {
        "total_proxies_created": 3,
        "tools_actually_loaded": 1,
        "memory_savings_percent": 66.7,
    }
    performance = report["loading_performance"]
    assert set(report) == {"manager_runtime_seconds", "memory_efficiency", "loading_performance"}
    assert set(performance) == {
        "instantiated_tools",
        "available_tools",
        "total_load_time_ms",
        "average_load_time_ms",
        "most_used_tool",
        "most_used_tool_accesses",
        "load_efficiency_percent",
        "detailed_stats",
    }
    assert performance["most_used_tool"] == "bash"
    assert performance["most_used_tool_accesses"] == 1
    assert performance["load_efficiency_percent"] == 83.3
    assert set(performance["detailed_stats"]["bash"]) == {"load_time_ms", "access_count"}
    assert "loaded" in repr(tools[0])
    await tool_manager.cleanup()


def test_empty_registry_has_a_report() -> None:
    manager = OptimizedToolManager({}, "openai")
    manager.preload_frequently_used_tools()
    report = manager.get_performance_report()
    assert report["memory_efficiency"]["memory_savings_percent"] == 0
    assert report["loading_performance"]["average_load_time_ms"] == 0
    assert report["loading_performance"]["most_used_tool"] is None


async def test_tool_that_cannot_be_imported_raises_tool_error(context: ToolContext) -> None:
    registry = {"task_done": IDLE}
    with pytest.raises(ToolError, match="'task_done' cannot be loaded: No module named"):
        EagerCatalog(context, registry=registry)
    with pytest.raises(ToolError, match="'task_done' cannot be loaded"):
        await LazyCatalog(context, registry=registry).get("task_done").execute({})
