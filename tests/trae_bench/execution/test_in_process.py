"""Trials in this process: metrics, correctness and failures."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.trae_bench.fakes import ScriptedExecutor, figures
from trae_bench.execution.executor_router import ExecutorRouter
from trae_bench.execution.in_process import InProcessExecutor
from trae_bench.model.experiment import Arm, SessionEndpoint, Side, Trial
from trae_bench.model.sample import ChildReport, Sample
from trae_bench.provider.respx_mock import RespxProvider
from trae_bench.provider.script import Script, expand
from trae_bench.scenario import (
    Oracle,
    ProviderConditions,
    Scenario,
    ScriptedCall,
    ToggleUse,
    Turn,
    WorkspaceFixture,
)
from trae_bench.scenario.measurable import IN_PROCESS_METRICS

Perform = Callable[[SessionEndpoint, Path], Awaitable[ChildReport]]


class Agent:
    """Runs the function of a test."""

    def __init__(self, act: Perform) -> None:
        self._act = act

    async def perform(
        self, trial: Trial, scenario: Scenario, endpoint: SessionEndpoint, home: Path
    ) -> ChildReport:
        return await self._act(endpoint, home)


def scenario(oracle: Oracle | None = None, timeout: float = 20.0) -> Scenario:
    return Scenario(
        name="small",
        about="",
        task="do it",
        turns=(Turn(text="one"), Turn(text="done", calls=(ScriptedCall("task_done"),))),
        toggles=ToggleUse(("fast",)),
        metrics=("cpu",),
        provider=ProviderConditions(transport="respx"),
        workspace=WorkspaceFixture(files={"a/b.txt": "text"}),
        oracle=oracle or Oracle(final_text="done", files={"out": "done"}, command="test -f out"),
        timeout_seconds=timeout,
    )


def trial(side: Side = "A") -> Trial:
    return Trial("small", "fast", "duet", 1, side, 0, Arm(side, {"fast": side == "B"}), seed=1)


def run(act: Perform, tmp_path: Path, what: Scenario | None = None, times: int = 1) -> list[Sample]:
    with RespxProvider() as provider:
        executor: InProcessExecutor[Script] = InProcessExecutor(
            Agent(act), provider, {"small": what or scenario()}, script=expand, scratch=tmp_path
        )
        return list(executor.run([trial("A"), trial("B")][:times]))


def leave(workspace: Path, text: str) -> None:
    assert (workspace / "a/b.txt").read_text() == "text"
    (workspace / "out").write_text(text)


async def work(endpoint: SessionEndpoint, home: Path) -> ChildReport:
    """Make two requests, write one file, use some CPU time."""
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            reply = await client.post(
                f"{endpoint.base_url}/chat/completions", json={"at": str(home)}
            )
    text = reply.json()["choices"][0]["message"]["content"]
    leave(Path(endpoint.workspace), text)
    sum(range(300_000))
    return ChildReport(success=True, final_text=text, steps=2)


def test_equal_trials_have_equal_digests(tmp_path: Path) -> None:
    one, other = run(work, tmp_path, times=2)
    assert (one.status, one.correct, one.problem, other.correct) == ("ok", True, None, True)
    assert (one.side, other.side) == ("A", "B")
    assert one.transcript == other.transcript != ""
    assert one.workspace == other.workspace != ""
    assert set(one.metrics) == IN_PROCESS_METRICS
    assert one.metrics["requests"] == 2
    assert one.metrics["cpu"] > 0
    assert one.metrics["cpu"] == one.metrics["cpu_user"] + one.metrics["cpu_system"]
    assert other.started > one.started
    assert list(tmp_path.iterdir()) == []


def test_cpu_time_of_tools_is_included(tmp_path: Path) -> None:
    async def busy(endpoint: SessionEndpoint, home: Path) -> ChildReport:
        program = "import time\nwhile time.process_time() < 0.2: pass"
        child = await asyncio.create_subprocess_exec("python3", "-c", program)
        await child.wait()
        return await work(endpoint, home)

    (sample,) = run(busy, tmp_path)
    assert sample.metrics["cpu"] >= 0.2


def test_the_agent_sees_no_environment_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    seen = {}

    async def look(endpoint: SessionEndpoint, home: Path) -> ChildReport:
        seen.update(os.environ)
        assert seen["HOME"] == str(home)
        return await work(endpoint, home)

    (sample,) = run(look, tmp_path)
    assert sample.correct
    assert "OPENAI_API_KEY" not in seen
    assert os.environ["OPENAI_API_KEY"] == "secret"


@pytest.mark.parametrize(
    ("oracle", "problem"),
    [
        (Oracle(final_text="other"), "does not contain 'other'"),
        (Oracle(files={"out": "other"}), "out is not as expected"),
        (
            Oracle(command="echo why; exit 3"),
            "exit status 3 (echo why; exit 3); its last lines:\nwhy",
        ),
    ],
)
def test_a_wrong_answer_gives_an_incorrect_sample(
    tmp_path: Path, oracle: Oracle, problem: str
) -> None:
    (sample,) = run(work, tmp_path, scenario(oracle))
    assert (sample.status, sample.correct) == ("ok", False)
    assert problem in str(sample.problem)


def test_failures_give_a_status_and_a_problem(tmp_path: Path) -> None:
    async def crash(endpoint: SessionEndpoint, home: Path) -> ChildReport:
        raise KeyError("x")

    async def hang(endpoint: SessionEndpoint, home: Path) -> ChildReport:
        await asyncio.sleep(60)
        raise AssertionError

    async def give_up(endpoint: SessionEndpoint, home: Path) -> ChildReport:
        return ChildReport(success=False, final_text="", steps=1, error="no model")

    for act, status, problem in (
        (crash, "failed", "KeyError: 'x'"),
        (hang, "timeout", "not done after 0.1 s"),
        (give_up, "failed", "the subject gave up: no model"),
    ):
        (sample,) = run(act, tmp_path, scenario(timeout=0.1))
        assert (sample.status, sample.correct, sample.metrics) == (status, False, {})
        assert problem in str(sample.problem)
    (sample,) = run(work, tmp_path)
    assert sample.correct, "the next trial is none the worse"


def test_a_folder_without_permissions_is_removed(tmp_path: Path) -> None:
    async def lock(endpoint: SessionEndpoint, home: Path) -> ChildReport:
        report = await work(endpoint, home)
        (Path(endpoint.workspace) / "a").chmod(0)
        return report

    (sample,) = run(lock, tmp_path)
    assert sample.correct, sample.problem
    assert list(tmp_path.iterdir()) == []


def test_the_router_chooses_by_scenario() -> None:
    usual, other = ScriptedExecutor(figures()), ScriptedExecutor(figures())
    both = ExecutorRouter(usual, other, ["small"])
    ours, theirs = trial(), msgspec.structs.replace(trial(), scenario="large")
    assert [sample.scenario for sample in both.run([ours, ours])] == ["small", "small"]
    assert [sample.scenario for sample in both.run([theirs])] == ["large"]
    assert other.batches == [(ours, ours)]
    assert usual.batches == [(theirs,)]
