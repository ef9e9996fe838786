"""`build`: what each toggle selects, which settings apply, and how parts are closed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_core import build
from agent_core.build import effective_toggles, load_settings, open_agent, run_task
from agent_core.config import PerformanceSettings, ProviderSettings, Settings, effective_settings
from agent_core.dispatch import ParallelDispatch
from agent_core.dynamic_imports import check_provider_availability
from agent_core.errors import ConfigError, MissingDependencyError
from agent_core.messages import Outcome
from agent_core.pooled_connections import PooledConnections
from agent_core.toggles import Toggles
from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder
from tests.agent_core.fakes import ListRecorder, ScriptedModel, call, reply
from tests.agent_core.scripted_server import Answer, scripted_server

pytestmark = pytest.mark.anyio

PARTS = {
    "parallel_tools": ("ParallelDispatch", "SequentialDispatch"),
    "async_file_io": ("ThreadedFiles", "BlockingFiles"),
    "batched_trajectory": ("OptimizedTrajectoryRecorder", "TrajectoryRecorder"),
    "connection_pool": ("PooledConnections", "FreshConnections"),
    "lazy_tools": ("LazyCatalog", "EagerCatalog"),
    "optional_deps": (None, "import_installed_sdks"),
    "config_cache": ("CachedConfig", "PlainConfig"),
    "native_client": ("open_model", "load_llm_client"),
    "incremental_history": ("IncrementalHistory", "FullHistory"),
    "event_shell": ("EventShell", "PollingShell"),
    "shared_tls": (None, None),
    "prompt_cache": (None, None),
}
"""What `build` calls for each toggle: the optimised implementation, the baseline.
`shared_tls` is an argument of the transports, `prompt_cache` one of the models; see
`test_connections.py` and `test_prompt_cache.py`."""

DONE = {
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": "all done",
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "task_done", "arguments": "{}"},
                    }
                ],
            },
            "finish_reason": "tool_calls",
        }
    ]
}


def settings_for(url: str = "http://127.0.0.1:9/v1", **performance: Any) -> Settings:
    entry = ProviderSettings(api_key="sk-not-a-key", model="scripted", base_url=url, max_retries=0)
    return Settings(
        model_providers={"openai": entry}, performance_settings=PerformanceSettings(**performance)
    )


def settings_with_key(key: str) -> Settings:
    return Settings(model_providers={"openai": ProviderSettings(api_key=key, model="scripted")})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def working_model() -> ScriptedModel:
    return ScriptedModel(
        reply("", call("bash", command="echo hello > made.txt; cat made.txt")),
        reply("finished", call("task_done")),
    )


# ------------------------------------------------------------------------------- toggles


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names in `PARTS` that `build` has called."""
    names: list[str] = []

    def spy(name: str, real: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            names.append(name)
            return real(*args, **kwargs)

        return noted

    for part in (part for pair in PARTS.values() for part in pair if part):
        monkeypatch.setattr(build, part, spy(part, getattr(build, part)))
    return names


def test_every_toggle_has_an_entry_in_parts() -> None:
    assert tuple(PARTS) == Toggles.names()


@pytest.mark.parametrize("toggle", PARTS)
@pytest.mark.parametrize("on", [True, False])
async def test_toggle_selects_exactly_one_implementation(
    toggle: str, on: bool, called: list[str], tmp_path: Path
) -> None:
    if toggle == "native_client" and not on and not check_provider_availability("openai"):
        pytest.skip("the SDK is not installed")
    config = tmp_path / "config.json"
    tool_call = {"name": "bash", "arguments": '{"command": "true"}'}
    bash = json.loads(json.dumps(DONE))
    bash["choices"][0]["message"]["tool_calls"][0]["function"] = tool_call
    answers = [Answer(json.dumps(body).encode()) for body in (bash, DONE)]
    async with scripted_server(*answers) as server:
        entry = {"api_key": "sk-not-a-key", "model": "m", "base_url": f"{server.url}/v1"}
        config.write_text(json.dumps({"model_providers": {"openai": entry}}))
        outcome = await run_task(
            "work",
            config=config,
            environ={"TRAE_CACHE_DIR": str(tmp_path / "cache")},
            workspace=tmp_path,
            trajectory=tmp_path / "t.json",
            toggles=Toggles().with_(**{toggle: on}),
        )
    assert outcome.success
    optimised, baseline = PARTS[toggle]
    wanted, other = (optimised, baseline) if on else (baseline, optimised)
    assert wanted is None or wanted in called
    assert other is None or other not in called


@pytest.mark.parametrize("toggles", [Toggles(), Toggles.none().with_(native_client=True)])
async def test_both_implementations_do_the_same_work(toggles: Toggles, tmp_path: Path) -> None:
    outcome = await run_task(
        "work",
        settings=settings_for(),
        workspace=tmp_path,
        trajectory=tmp_path / "t.json",
        toggles=toggles,
        scripted_model=working_model(),
    )
    assert (outcome.success, outcome.final_text, outcome.steps) == (True, "finished", 2)
    assert (tmp_path / "made.txt").read_text() == "hello\n"
    recorded = json.loads((tmp_path / "t.json").read_text())
    assert (recorded["task"], recorded["success"]) == ("work", True)


@pytest.mark.parametrize(
    ("config", "environ", "arguments", "expected"),
    [
        ({}, {}, None, (True, True)),
        ({"parallel_tool_calls": False}, {}, None, (False, True)),
        ({"lazy_tool_loading": False}, {}, None, (True, False)),
        ({"parallel_tool_calls": False}, {"TRAE_PARALLEL_TOOLS": "true"}, None, (True, True)),
        ({"lazy_tool_loading": True}, {"TRAE_LAZY_LOADING": "false"}, None, (True, False)),
        ({}, {"TRAE_PARALLEL_TOOLS": "false"}, {"parallel_tools": True}, (True, True)),
        ({}, {"TRAE_LAZY_LOADING": "true"}, {"lazy_tools": False}, (True, False)),
        ({"parallel_tool_calls": False}, {}, Toggles(), (True, True)),
        ({}, {}, Toggles.none(), (False, False)),
    ],
)
def test_arguments_override_environment_overrides_config(
    config: dict[str, bool],
    environ: dict[str, str],
    arguments: Toggles | Mapping[str, bool] | None,
    expected: tuple[bool, bool],
) -> None:
    entry = ProviderSettings(parallel_tool_calls=config.get("parallel_tool_calls", True))
    performance = PerformanceSettings(lazy_tool_loading=config.get("lazy_tool_loading"))
    settings = Settings(model_providers={"openai": entry}, performance_settings=performance)
    toggles = effective_toggles(effective_settings(settings, environ), arguments)
    assert (toggles.parallel_tools, toggles.lazy_tools) == expected


# ------------------------------------------------------------------------------ settings


async def test_performance_settings_reach_the_recorder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    real = OptimizedTrajectoryRecorder

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.update(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(build, "OptimizedTrajectoryRecorder", noted)
    settings = settings_for(
        trajectory_batch_size=7, trajectory_background_io=False, max_trajectory_interactions=9
    )
    async with open_agent(settings, workspace=tmp_path, trajectory=tmp_path / "t.json"):
        pass
    assert (seen["batch_size"], seen["background_io"], seen["max_interactions"]) == (7, False, 9)


async def test_connection_pool_size_reaches_the_pool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    real = PooledConnections
    monkeypatch.setattr(
        build, "PooledConnections", lambda **kwargs: seen.update(kwargs) or real(**kwargs)
    )
    async with open_agent(settings_for(connection_pool_size=3), workspace=tmp_path):
        pass
    assert (seen["max_connections"], seen["max_retries"]) == (3, 0)


async def test_parallel_limit_reaches_the_dispatcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits: list[int] = []
    real = ParallelDispatch
    monkeypatch.setattr(build, "ParallelDispatch", lambda n: limits.append(n) or real(n))
    async with open_agent(settings_for(max_parallel_tools=3), workspace=tmp_path):
        pass
    async with open_agent(settings_for(), workspace=tmp_path):
        pass
    assert limits == [3, 8]


async def test_tools_do_not_see_the_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {
        "OPENAI_API_KEY": "sk-the-key-of-openai",
        "GEMINI_API_KEY": "another-provider",
        "LOCAL_API_KEY": "short",
        "COPY": "Bearer sk-the-key-of-openai",
        "FROM_FILE": "key-in-the-config-file",
        "GITHUB_TOKEN": "kept-for-the-tools",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    entries = {
        "openai": ProviderSettings(model="m"),
        "local": ProviderSettings(),
        "spare": ProviderSettings(api_key="key-in-the-config-file"),
    }
    settings = effective_settings(Settings(model_providers=entries), {**os.environ})
    model = ScriptedModel(
        reply("", call("bash", command="env")), reply("", call("task_done", id="2"))
    )
    async with open_agent(settings, workspace=tmp_path, scripted_model=model) as agent:
        await agent.run("x")
    result = model.asked[1][-1].result
    assert result is not None
    seen = dict(line.split("=", 1) for line in result.output.splitlines() if "=" in line)
    assert variables.keys() & seen.keys() == {"GITHUB_TOKEN"}
    assert seen["PATH"] == os.environ["PATH"]


async def test_environment_does_not_change_passed_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid")
    async with scripted_server(Answer(json.dumps(DONE).encode())) as server:
        outcome = await run_task("x", settings=settings_for(f"{server.url}/v1"), workspace=tmp_path)
    assert outcome.success
    assert len(server.seen) == 1


async def test_arguments_override_environment_overrides_file(tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"model_providers": {"openai": {"api_key": "in-file", "model": "file"}}}')
    async with scripted_server(Answer(json.dumps(DONE).encode())) as server:
        environ = {
            "TRAE_CONFIG_FILE": str(config),
            "OPENAI_API_KEY": "in-environment",
            "OPENAI_BASE_URL": "http://elsewhere.invalid",
        }
        outcome = await run_task(
            "x", environ=environ, base_url=f"{server.url}/v1", model="override", workspace=tmp_path
        )
    assert outcome.success
    assert server.seen[0].json["model"] == "override"
    assert server.seen[0].headers["authorization"] == "Bearer in-environment"


def test_defaults_apply_without_a_file() -> None:
    assert load_settings(None, {}) == Settings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(), "No model is set for openai; use --model .model= in Python."),
        (
            Settings(
                default_provider="google", model_providers={"google": ProviderSettings(model="m")}
            ),
            "set the environment variable GOOGLE_API_KEY",
        ),
        (Settings(default_provider="opnai"), "Did you mean 'openai'"),
        (Settings(tools=("bash", "hammer")), r"tools: Unknown tool 'hammer'"),
        (
            Settings(
                default_provider="azure",
                model_providers={"azure": ProviderSettings(model="m", api_key="k")},
            ),
            "azure has no default address; set base_url",
        ),
        (settings_for("ftp://host"), "must begin with http:// or https://"),
        (settings_for("http://[broken"), "must begin with http:// or https://"),
        (settings_for("http://127.0.0.1:99999999/v1"), "a port is a number up to 65535"),
        (settings_for("http:///v1"), "and name a host"),
        (settings_for("http://user:pw@host/v1"), "contains a user name"),
        (settings_with_key("sk-not\na-key"), "API key of openai contains a line break"),
        (settings_with_key("sk-ключ"), "another character that an HTTP header cannot"),
    ],
)
async def test_missing_settings_are_reported_with_a_remedy(
    settings: Settings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        await run_task("x", settings=settings, workspace=tmp_path)


async def test_missing_sdk_is_reported(tmp_path: Path) -> None:
    if check_provider_availability("openai"):
        pytest.skip("the SDK is installed")
    with pytest.raises(MissingDependencyError, match="trae-bench"):
        await run_task(
            "x", settings=settings_for(), workspace=tmp_path, toggles={"native_client": False}
        )


# ------------------------------------------------------------------------------- closing


async def test_listener_receives_the_recorders_events(tmp_path: Path) -> None:
    listener = ListRecorder()
    await run_task(
        "work",
        settings=settings_for(),
        workspace=tmp_path,
        scripted_model=working_model(),
        listener=listener,
    )
    assert listener.kinds() == ["start", "interaction", "step", "interaction", "step", "finish"]
    assert names_in(tmp_path) == ["made.txt"], "no path, no recording"


@pytest.mark.parametrize("pooled", [True, False])
async def test_parts_are_closed_in_reverse_order_even_after_an_error(
    pooled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed: list[str] = []
    for name in ("PooledConnections", "FreshConnections", "LazyCatalog"):
        real = getattr(build, name).close

        async def close(self: Any, name: str = name, real: Any = real) -> None:
            closed.append(name)
            await real(self)

        monkeypatch.setattr(getattr(build, name), "close", close)
    toggles = Toggles().with_(connection_pool=pooled)
    with pytest.raises(RuntimeError, match="in the middle"):
        async with open_agent(settings_for(), workspace=tmp_path, toggles=toggles):
            raise RuntimeError("in the middle")
    assert closed == ["PooledConnections" if pooled else "FreshConnections", "LazyCatalog"]


async def test_provider_failure_leaves_a_complete_trajectory(
    tmp_path: Path,
) -> None:
    refused = Answer(b'{"error": {"message": "no"}}', status=401)
    async with scripted_server(refused) as server:
        outcome: Outcome = await run_task(
            "x",
            settings=settings_for(f"{server.url}/v1"),
            workspace=tmp_path,
            trajectory=tmp_path / "t.json",
        )
    assert (outcome.success, outcome.stop) == (False, "error")
    assert "401" in (outcome.error or "")
    assert json.loads((tmp_path / "t.json").read_text())["success"] is False


async def test_file_tools_leave_the_workspace_only_if_unconfined(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside.txt", tmp_path / "inside"
    inside.mkdir()
    for confined in (True, False):
        create = call(
            "str_replace_based_edit_tool", command="create", path=str(outside), file_text="x"
        )
        model = ScriptedModel(reply("", create), reply("", call("task_done")))
        await run_task(
            "x", settings=settings_for(), workspace=inside, scripted_model=model, confined=confined
        )
        assert outside.exists() is not confined


@pytest.mark.parametrize(("window", "rest"), [(None, None), (8000, 7000), (1001, 1)])
async def test_context_window_leaves_room_for_the_reply(
    window: int | None, rest: int | None, tmp_path: Path
) -> None:
    entry = ProviderSettings(model="m", api_key="k", max_tokens=1000, context_window=window)
    settings = Settings(model_providers={"openai": entry})
    async with open_agent(settings, workspace=tmp_path) as agent:
        assert agent._context_window == rest


async def test_context_window_within_the_reply_is_rejected(tmp_path: Path) -> None:
    entry = ProviderSettings(model="m", api_key="k", max_tokens=1000, context_window=1000)
    settings = Settings(model_providers={"openai": entry})
    with pytest.raises(ConfigError, match=r"context_window of openai is 1000; it must be larger"):
        async with open_agent(settings, workspace=tmp_path):
            pass
