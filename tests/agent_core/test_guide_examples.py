"""The guide's code works with only the name of its package changed.

The test supplies names that a snippet uses without defining them: `data`,
`tools_registry`, `MissingDependencyError`.
"""

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import agent_core.config_cache
from agent_core.build import effective_toggles, run_task
from agent_core.config import ProviderSettings, effective_settings
from agent_core.config_sources import PlainConfig
from agent_core.connection_metrics import ConnectionPoolMetrics, pool_metrics
from agent_core.connection_pool import ConnectionPoolManager
from agent_core.dynamic_imports import MissingDependencyError, check_provider_availability
from agent_core.guide import config_cache
from agent_core.providers import PROVIDERS
from agent_core.tools import tools_registry
from tests.agent_core.fakes import ScriptedModel, call, reply
from tests.agent_core.scripted_server import Answer, scripted_server

pytestmark = pytest.mark.anyio

MODEL_PARAMETERS = ProviderSettings(api_key="sk-x", model="m", base_url="http://127.0.0.1:9/v1")

CONFIG = """\
{
  "default_provider": "anthropic",
  "max_steps": 20,
  "enable_lakeview": true,
  "model_providers": {
    "anthropic": {
      "api_key": "your_key",
      "model": "claude-sonnet-4-20250514",
      "max_tokens": 4096,
      "temperature": 0.5,
      "top_p": 1,
      "top_k": 0,
      "parallel_tool_calls": true,
      "max_retries": 10
    },
    "openai": {
      "api_key": "your_key",
      "model": "gpt-4o",
      "max_tokens": 4096,
      "temperature": 0.5,
      "top_p": 1,
      "parallel_tool_calls": true,
      "max_retries": 10
    }
  },
  "performance_settings": {
    "trajectory_batch_size": 5,
    "trajectory_background_io": true,
    "max_trajectory_interactions": 1000,
    "connection_pool_size": 10,
    "lazy_tool_loading": true,
    "config_cache_ttl": 3600
  }
}
"""


def adapted(snippet: str) -> str:
    """The snippet with the name of this package."""
    return snippet.replace("trae_agent.utils", "agent_core")


async def play(snippet: str, **names: Any) -> dict[str, Any]:
    """Runs the snippet, with top-level `await`. Returns its names."""
    code = compile(adapted(snippet), "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    space: dict[str, Any] = {"__name__": "guide", **names}
    running = eval(code, space)
    if inspect.isawaitable(running):
        await running
    return space


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the guide's config file, and an environment without other settings."""
    for name in [*PROVIDERS, "trae"]:
        for suffix in ("_API_KEY", "_BASE_URL"):
            monkeypatch.delenv(name.upper() + suffix, raising=False)
    monkeypatch.setenv("TRAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config_cache._process_cache.cache_clear()
    monkeypatch.setattr(pool_metrics, "__dict__", vars(ConnectionPoolMetrics()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trae_config.json").write_text(CONFIG)
    return tmp_path


# -------------------------------------------------------------- the seven optimisations


async def test_3_optimized_trajectory_recording(folder: Path) -> None:
    space = await play("""
from trae_agent.utils.trajectory_recorder_optimized import OptimizedTrajectoryRecorder

# High-performance mode
recorder = OptimizedTrajectoryRecorder(
    batch_size=10,          # Write every 10 interactions
    background_io=True,     # Use background threads
    max_interactions=1000   # Limit memory usage
)

# Conservative mode
recorder = OptimizedTrajectoryRecorder(
    batch_size=3,           # Write every 3 interactions
    background_io=True
)
""")
    recorder = space["recorder"]
    recorder.start_recording(task="t", provider="openai", model="m", max_steps=1)
    recorder.finalize_recording(success=True, final_result="ok")
    path = folder / recorder.get_trajectory_path()
    assert json.loads(path.read_text())["success"] is True


async def test_4_connection_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_server(Answer(b'{"ok": true}'), Answer(b'{"ok": true}')) as server:
        here = replace(PROVIDERS["openai"], base_url=f"{server.url}/v1")
        monkeypatch.setitem(PROVIDERS, "openai", here)  # the guide's address is not local
        space = await play(
            """
from trae_agent.utils.connection_pool import ConnectionPoolManager

# Get pooled client
async with ConnectionPoolManager.get_pooled_client("openai") as client:
    response = await client.post("/chat/completions", json=data)

# Manual client management
client = await ConnectionPoolManager.get_client(
    provider="openai",
    api_key="your-key",
    max_connections=15,
    max_keepalive_connections=8
)
""",
            data={"model": "m"},
        )
        assert space["response"].json() == {"ok": True}
        await space["client"].post("/chat/completions", json={})
        await ConnectionPoolManager.close_all()
    assert [seen.path for seen in server.seen] == ["/v1/chat/completions"] * 2
    assert "authorization" not in server.seen[0].headers
    assert server.seen[1].headers["authorization"] == "Bearer your-key"
    assert server.seen[0].connection != server.seen[1].connection, "separate connections per key"


async def test_5_lazy_tool_instantiation(capsys: pytest.CaptureFixture[str]) -> None:
    space = await play(
        """
from trae_agent.utils.lazy_tools import OptimizedToolManager

# Create optimized tool manager
tool_manager = OptimizedToolManager(tools_registry, model_provider)

# Get tool proxies (fast)
tools = tool_manager.get_tools_list(["bash", "edit_tool", "task_done"])

# Tools are only loaded when actually used
result = await tools[0].execute({"command": "echo hello"})  # Tool loaded here

# Performance monitoring
report = tool_manager.get_performance_report()
print(f"Memory savings: {report['memory_efficiency']['memory_savings_percent']}%")
""",
        tools_registry=tools_registry,
        model_provider="openai",
    )
    await space["tool_manager"].cleanup()
    assert space["result"].output.strip() == "hello"
    assert space["report"]["memory_efficiency"]["tools_actually_loaded"] == 1
    assert capsys.readouterr().out == "Memory savings: 66.7%\n"


DYNAMIC_LOADING = """
from trae_agent.utils.dynamic_imports import (
    load_llm_client,
    check_provider_availability,
    get_dependency_report
)

# Check what's available
if check_provider_availability("openai"):
    client = load_llm_client("openai", model_parameters)
else:
    print("OpenAI not available. Install with: pip install trae-agent[openai]")

# Get dependency report
report = get_dependency_report()
print(f"Available providers: {report['available_providers']}")

try:
    client = load_llm_client("anthropic", model_parameters)
except MissingDependencyError as e:
    print(f"Missing dependency: {e.install_command}")
"""


async def test_6_dynamic_loading(capsys: pytest.CaptureFixture[str]) -> None:
    space = await play(
        DYNAMIC_LOADING,
        model_parameters=MODEL_PARAMETERS,
        MissingDependencyError=MissingDependencyError,
    )
    out = capsys.readouterr().out
    assert "Available providers: [" in out
    for provider, sign in (
        ("openai", "OpenAI not available"),
        ("anthropic", "Missing dependency: pip install 'trae-bench[anthropic]'"),
    ):
        assert (sign not in out) is check_provider_availability(provider)
    if "client" in space:
        await space["client"].close()


async def test_7_configuration_caching(capsys: pytest.CaptureFixture[str]) -> None:
    space = await play("""
from trae_agent.utils.config_cache import (
    load_config_cached,
    get_config_cache_stats,
    ConfigLoadTimer
)

# Drop-in replacement for Config loading
config = load_config_cached("trae_config.json")

# Performance timing
with ConfigLoadTimer("Config load") as timer:
    config = load_config_cached("trae_config.json")
print(timer)  # "Config load: 2.34ms"

# Cache statistics
stats = get_config_cache_stats()
print(f"Cache hit rate: {stats['hit_rate_percent']}%")
""")
    assert space["config"].model_providers["openai"].api_key == "your_key"
    timer, rate = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Config load: \d+\.\d\dms", timer)
    assert rate == "Cache hit rate: 50.0%"


# ------------------------------------------------------------------------- whole examples


async def test_complete_performance_setup(capsys: pytest.CaptureFixture[str]) -> None:
    space = await play(
        """
# example_optimized_setup.py
import asyncio
from trae_agent.utils.config_cache import load_config_cached
from trae_agent.utils.lazy_tools import OptimizedToolManager
from trae_agent.utils.trajectory_recorder_optimized import OptimizedTrajectoryRecorder
from trae_agent.utils.connection_pool import ConnectionPoolManager
from trae_agent.utils.dynamic_imports import load_llm_client

async def optimized_agent_setup():
    # Fast config loading with caching
    config = load_config_cached("trae_config.json")

    # Dynamic LLM client loading
    try:
        llm_client = load_llm_client(config.default_provider, config.model_parameters)
    except MissingDependencyError as e:
        print(f"Please install: {e.install_command}")
        return

    # Lazy tool management
    tool_manager = OptimizedToolManager(tools_registry, config.default_provider)
    tools = tool_manager.get_tools_list(["bash", "edit_tool", "task_done"])

    # Optimized trajectory recording
    recorder = OptimizedTrajectoryRecorder(
        batch_size=5,
        background_io=True,
        max_interactions=500
    )

    # Connection pooling is automatic
    print("✅ Optimized agent setup complete!")

    # Performance report
    tool_report = tool_manager.get_performance_report()
    print(f"Tool loading efficiency: {tool_report['loading_performance']['load_efficiency_percent']}%")

if __name__ == "__main__":
    asyncio.run(optimized_agent_setup())
""",  # noqa: E501 - the guide's own line
        MissingDependencyError=MissingDependencyError,
        tools_registry=tools_registry,
    )
    await space["optimized_agent_setup"]()
    out = capsys.readouterr().out
    if check_provider_availability("anthropic"):
        assert out == "✅ Optimized agent setup complete!\nTool loading efficiency: 100.0%\n"
    else:
        assert out == "Please install: pip install 'trae-bench[anthropic]'\n"


async def test_performance_monitor(capsys: pytest.CaptureFixture[str]) -> None:
    space = await play("""
# performance_monitor.py
from trae_agent.utils.config_cache import get_config_cache_stats
from trae_agent.utils.dynamic_imports import get_dependency_report
from trae_agent.utils.connection_pool import pool_metrics

def print_performance_report():
    print("🔍 Trae Agent Performance Report")
    print("=" * 50)

    # Configuration caching
    config_stats = get_config_cache_stats()
    print(f"\\n📁 Configuration Cache:")
    print(f"  Hit rate: {config_stats['hit_rate_percent']}%")
    print(f"  Cache size: {config_stats['cache_size']}")

    # Dependencies
    dep_report = get_dependency_report()
    print(f"\\n📦 Dependencies:")
    print(f"  Available providers: {len(dep_report['available_providers'])}")
    print(f"  Missing providers: {len(dep_report['missing_providers'])}")

    # Connection pool
    pool_stats = pool_metrics.get_stats()
    print(f"\\n🌐 Connection Pool:")
    print(f"  Total requests: {pool_stats['total_requests']}")
    print(f"  Connection reuse rate: {pool_stats['connection_reuse_rate_percent']}%")
    print(f"  Average request time: {pool_stats['average_request_time_ms']}ms")

if __name__ == "__main__":
    print_performance_report()
""")
    space["print_performance_report"]()
    out = capsys.readouterr().out
    for line in (
        "Hit rate: 0.0%",
        "Cache size: 0",
        "Total requests: 0",
        "Average request time: 0.0ms",
    ):
        assert f"  {line}\n" in out


async def test_troubleshooting_and_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    await play(
        """
# Clear cache if needed
from trae_agent.utils.config_cache import clear_config_cache
clear_config_cache()

# Cleanup connections
from trae_agent.utils.connection_pool import ConnectionPoolManager
await ConnectionPoolManager.close_all()

# Monitor tool loading
from trae_agent.utils.lazy_tools import OptimizedToolManager
tool_manager = OptimizedToolManager(tools_registry, provider)
# ... use tools ...
print(tool_manager.get_performance_report())

# Monitor connection pool
from trae_agent.utils.connection_pool import pool_metrics
print(pool_metrics.get_stats())

# Periodic cleanup in long-running applications
tool_manager.optimize_memory()
config_cache.optimize_cache()
""",
        tools_registry=tools_registry,
        provider="openai",
        config_cache=agent_core.config_cache,  # the guide uses the module without importing it
    )
    tools, pool = capsys.readouterr().out.splitlines()
    assert ast.literal_eval(tools)["loading_performance"]["instantiated_tools"] == 0
    assert ast.literal_eval(pool)["total_requests"] == 0


# -------------------------------------------------------------------------- configuration


def test_configuration_fragments_of_the_guide_are_files(folder: Path) -> None:
    """Both contain comments, which are accepted."""
    usage = folder / "usage.json"
    usage.write_text("""\
# In trae_config.json - disable if needed
{
  "model_providers": {
    "anthropic": {
      "parallel_tool_calls": false  // Disable parallel execution
    }
  }
}
""")
    loaded = PlainConfig().load(usage)
    assert loaded.model_providers["anthropic"].parallel_tool_calls is False

    usage.write_text("""\
{
  "parallel_tool_calls": true,     // Enable parallel execution
  "max_tokens": 4096,              // Reasonable token limits
  "max_retries": 10,               // Good retry balance
  "temperature": 0.5               // Consistent performance
}
""")
    entry = PlainConfig().load(usage).model_parameters
    assert (entry.parallel_tool_calls, entry.max_retries, entry.temperature) == (True, 10, 0.5)


ENVIRONMENT = """
# Core configuration
export TRAE_CONFIG_CACHE_TTL=1800
export TRAE_TRAJECTORY_BATCH_SIZE=6
export TRAE_CONNECTION_POOL_SIZE=11

# Provider-specific
export OPENAI_API_KEY="openai-key"
export ANTHROPIC_API_KEY="anthropic-key"
export GOOGLE_API_KEY="google-key"

# Performance tuning
export TRAE_PARALLEL_TOOLS=false
export TRAE_BACKGROUND_IO=false
export TRAE_LAZY_LOADING=false
"""


def test_every_variable_of_the_guide_has_an_effect(folder: Path) -> None:
    """The guide's variables, with values that differ from the defaults."""
    environ = dict(re.findall(r'^export (\w+)="?([\w-]+)"?$', ENVIRONMENT, re.MULTILINE))
    assert len(environ) == 9
    settings = effective_settings(PlainConfig().load(folder / "trae_config.json"), environ)
    performance = settings.performance_settings
    assert performance.config_cache_ttl == 1800
    assert performance.trajectory_batch_size == 6
    assert performance.connection_pool_size == 11
    assert performance.trajectory_background_io is False
    for name in ("openai", "anthropic"):
        assert settings.model_providers[name].api_key == f"{name}-key"
    google = effective_settings(replace(settings, default_provider="google"), environ)
    assert google.model_parameters.api_key == "google-key"
    assert effective_toggles(settings, None).enabled() == tuple(
        name
        for name in effective_toggles(settings, None).names()
        if name not in ("parallel_tools", "lazy_tools")
    )


async def test_configuration_of_the_guide_runs_a_session(folder: Path) -> None:
    outcome = await run_task(
        "say hello",
        config=folder / "trae_config.json",
        environ={"TRAE_CACHE_DIR": str(folder / "cache")},
        workspace=folder,
        trajectory=folder / "session.json",
        scripted_model=ScriptedModel(reply("hello", call("task_done"))),
    )
    assert outcome.success
    recorded = json.loads((folder / "session.json").read_text())
    assert (recorded["provider"], recorded["model"], recorded["max_steps"]) == (
        "anthropic",
        "claude-sonnet-4-20250514",
        20,
    )


async def test_development_and_production_recorders_write_the_same(folder: Path) -> None:
    written = []
    for name, snippet in (
        (
            "development",
            "recorder = OptimizedTrajectoryRecorder(batch_size=10, background_io=True)",
        ),
        ("production", "recorder = OptimizedTrajectoryRecorder(batch_size=3, background_io=True)"),
    ):
        space = await play(
            "from trae_agent.utils.trajectory_recorder_optimized import"
            f" OptimizedTrajectoryRecorder\n{snippet}"
        )
        recorder = space["recorder"]
        recorder.trajectory_path = folder / f"{name}.json"
        recorder.start("t", "openai", "m", 4)
        for number in range(1, 5):
            recorder.step(number, "completed", (), reply(f"step {number}"), ())
        await recorder.finish(True, "ok")
        steps = json.loads((folder / f"{name}.json").read_text())["agent_steps"]
        written.append([{**step, "timestamp": ""} for step in steps])

    assert written[0] == written[1]
    assert len(written[0]) == 4
