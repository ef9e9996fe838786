"""Regression tests for defects of Trae Agent and of the guide's fork.

Each test is named after a defect that no other test covers.
"""

import asyncio
import importlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent_core import sdks, shell
from agent_core.build import effective_toggles, run_task
from agent_core.catalogs import LazyCatalog
from agent_core.cli import main
from agent_core.config import ProviderSettings, Settings, effective_settings
from agent_core.dispatch import ParallelDispatch
from agent_core.files import ThreadedFiles
from agent_core.guide.dynamic_imports import check_provider_availability
from agent_core.messages import Message
from agent_core.ports import Shell, Tool, ToolContext
from agent_core.sdks import SDKS, Sdk
from agent_core.shell import EventShell, PollingShell
from agent_core.toggles import Toggles
from agent_core.tools import TOOLS
from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder, TrajectoryRecorder
from agent_core.workspace import Workspace
from tests.agent_core.fakes import ScriptedModel, call, reply

pytestmark = pytest.mark.anyio


def context_of(folder: Path, kind: type[EventShell] | type[PollingShell] = EventShell) -> Any:
    def open_shell() -> Shell:
        return kind(folder)

    return ToolContext(ThreadedFiles(), open_shell, Workspace(folder))


# -------------------------------------------------------------------------- parallel tools


def test_provider_without_parallel_tool_calls_gets_false() -> None:
    """There, configuring any provider turned off the guide's default."""
    settings = Settings(model_providers={"openai": ProviderSettings(model="m")})
    assert effective_toggles(effective_settings(settings, {}), None).parallel_tools is True
    without_an_entry = Settings(default_provider="anthropic")
    assert effective_toggles(effective_settings(without_an_entry, {}), None).parallel_tools is True


@pytest.mark.parametrize("kind", [EventShell, PollingShell])
async def test_parallel_bash_calls_of_one_batch_fail_or_hang(
    kind: type[EventShell] | type[PollingShell], tmp_path: Path
) -> None:
    """There, 13 of 15 fast calls waited for a marker that another call had read."""
    catalog = LazyCatalog(context_of(tmp_path, kind))
    calls = [call("bash", id=str(n), command=f"echo output {n}") for n in range(5)]
    async with asyncio.timeout(30):
        results = await ParallelDispatch().run(calls, catalog)
    await catalog.close()
    assert [(result.ok, result.output) for result in results] == [
        (True, f"output {n}") for n in range(5)
    ]


# ------------------------------------------------------------------------------- file I/O


class NoThreads(ThreadPoolExecutor):
    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        raise AssertionError("a thread was asked for")


async def test_small_files_pay_for_a_thread_hop(tmp_path: Path) -> None:
    path, loop = tmp_path / "f", asyncio.get_running_loop()
    loop.set_default_executor(NoThreads())
    try:
        files = ThreadedFiles(inline_limit=100)
        await files.write(path, "x" * 100)
        assert await files.read(path) == "x" * 100
        assert (await files.read_lines(path, 1, 1, 9)).count == 1
        with pytest.raises(AssertionError, match="a thread"):
            await files.write(path, "x" * 101)
        path.write_text("x" * 101)
        with pytest.raises(AssertionError, match="a thread"):
            await files.read(path)
    finally:
        loop.set_default_executor(ThreadPoolExecutor())


# ------------------------------------------------------------------------------- recorder


def test_whole_trajectory_is_rewritten_with_every_batch(tmp_path: Path) -> None:
    """Four times the steps write four times the bytes, not sixteen times."""

    def bytes_of(recorder: TrajectoryRecorder | OptimizedTrajectoryRecorder, steps: int) -> float:
        recorder.start("t", "openai", "m", steps)
        for number in range(steps):
            recorder.step(number, "completed", [Message("user", "x" * 500)], None, [])
        if isinstance(recorder, OptimizedTrajectoryRecorder):
            recorder.flush()
        written = recorder.get_statistics()["bytes_written"]
        recorder.finalize_recording(True)
        return written

    path = tmp_path / "t.json"
    batched = [bytes_of(OptimizedTrajectoryRecorder(path), steps) for steps in (20, 80)]
    assert batched[1] / batched[0] < 4.1
    rewritten = [bytes_of(TrajectoryRecorder(path), steps) for steps in (20, 80)]
    assert rewritten[1] / rewritten[0] > 12, "the baseline behaves like Trae Agent"


# -------------------------------------------------------------------------------- tools


def test_lazy_proxy_is_not_a_tool(tmp_path: Path) -> None:
    catalog = LazyCatalog(context_of(tmp_path))
    for name in TOOLS:
        assert isinstance(catalog.get(name), Tool)
    assert catalog.loader.loaded() == ()


async def test_shell_waits_for_the_next_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a poll interval of one hour, only an event-driven shell answers."""
    monkeypatch.setattr(shell, "POLL_INTERVAL", 3600.0)
    opened = EventShell(tmp_path)
    async with asyncio.timeout(30):
        assert (await opened.run("echo woken", 30)).output == "woken"
        assert (await opened.run("exit 3", 30)).exit_status == 3
    await opened.close()


# --------------------------------------------------------------------------- dependencies


def test_missing_sdk_is_cached_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Sdk("late-sdk", "late_sdk_of_a_test", "late", "nowhere:Nothing")
    monkeypatch.setitem(SDKS, "ollama", sdk)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_provider_availability("ollama") is False
    (tmp_path / "late_sdk_of_a_test.py").write_text("")
    importlib.invalidate_caches()
    assert check_provider_availability("ollama") is True


def test_missing_sdk_prints_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdks, "is_installed", lambda sdk: False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        main,
        ["run", "x", "-p", "anthropic", "-m", "m", "--toggle", "native_client=off"],
        env={"ANTHROPIC_API_KEY": "sk-x", "TRAE_CONFIG_FILE": ""},
    )
    assert result.exit_code == 2
    assert result.output.startswith("Error: anthropic needs the package 'anthropic'")
    assert "pip install 'trae-bench[anthropic]'" in result.output


# ------------------------------------------------------------------- end of the program


@pytest.mark.parametrize("toggles", [Toggles(), Toggles.none().with_(native_client=True)])
async def test_program_runs_for_seconds_after_the_last_reply(
    toggles: Toggles, tmp_path: Path
) -> None:
    """There, a console kept sleeping. Here, no thread or task is left."""
    before = set(threading.enumerate()), asyncio.all_tasks()
    model = ScriptedModel(
        reply("", call("bash", command="sleep 60 & echo hi")), reply("", call("task_done"))
    )
    settings = Settings(model_providers={"openai": ProviderSettings(api_key="sk-x", model="m")})
    outcome = await run_task(
        "x",
        settings=settings,
        workspace=tmp_path,
        trajectory=tmp_path / "t.json",
        toggles=toggles,
        scripted_model=model,
    )
    assert outcome.success
    assert (set(threading.enumerate()), asyncio.all_tasks()) == before
